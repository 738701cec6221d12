"""Which device holds which samples."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Partition(NamedTuple):
    """Sample indices per device, padded to the largest device."""

    indices: np.ndarray  # [N, M_max] int32; the first `sizes[n]` entries of row n count
    sizes: np.ndarray  # [N] int32, samples of each device


#: A partitioner: `(seed, labels [M], num_devices) -> Partition`.
Partitioner = Callable[[int, np.ndarray, int], Partition]


def iid(seed: int, labels: np.ndarray, num_devices: int) -> Partition:
    """Split the training set evenly and at random (FedFT §V-A).

    Args:
      seed: of the shuffle.
      labels: training labels, shape [M].
      num_devices: N <= M.

    Returns:
      A `Partition` in which sizes differ by at most one and each sample is used once.

    Raises:
      ValueError: more devices than samples.

    Example:
      >>> iid(0, np.zeros(10), 3).sizes.tolist()
      [4, 3, 3]
    """
    if not 1 <= num_devices <= len(labels):
        raise ValueError(
            f"num_devices={num_devices}: choose 1 to {len(labels)}, the number of training samples"
        )
    shuffled = np.random.default_rng(seed).permutation(len(labels)).astype(np.int32)
    parts = np.array_split(shuffled, num_devices)
    sizes = np.array([len(part) for part in parts], np.int32)
    indices = np.zeros((num_devices, sizes.max()), np.int32)
    for row, part in zip(indices, parts, strict=True):
        row[: len(part)] = part
    return Partition(indices, sizes)
