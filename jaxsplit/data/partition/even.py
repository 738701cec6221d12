"""The same number of samples on each device, at random."""

import numpy as np

from jaxsplit.data.partition.base import Partition, check_sizes, padded


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
    num_samples = len(labels)
    check_sizes(num_samples, num_devices)
    shuffled = np.random.default_rng(seed).permutation(num_samples)
    sizes = num_samples // num_devices + (np.arange(num_devices) < num_samples % num_devices)
    return padded(shuffled, sizes)
