"""The contract of a partitioner, and the steps that its members share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Partition(NamedTuple):
    """Sample indices per device, padded to the largest device."""

    indices: np.ndarray  # [N, M_max] int32; the first `sizes[n]` entries of row n count
    sizes: np.ndarray  # [N] int32, samples of each device, at least 1


#: A partitioner: `(seed, labels [M], num_devices) -> Partition`. Equal arguments give equal
#: partitions; every device holds at least one sample. Except for those that are given from
#: outside (`from_indices`), each sample is on exactly one device.
Partitioner = Callable[[int, np.ndarray, int], Partition]


def check_sizes(num_samples: int, num_devices: int, min_size: int = 1) -> None:
    """Make sure that there are enough samples for all devices.

    Args:
      num_samples: M.
      num_devices: N.
      min_size: samples that each device must hold.

    Raises:
      ValueError: no devices, or N · `min_size` > M.
    """
    if not 1 <= num_devices <= num_samples:
        raise ValueError(
            f"num_devices={num_devices}: choose 1 to {num_samples}, the number of training samples"
        )
    if min_size * num_devices > num_samples:
        raise ValueError(
            f"min_size={min_size}: {num_devices} devices would need {min_size * num_devices} of "
            f"{num_samples} samples; choose 1 to {num_samples // num_devices}, or at most "
            f"{num_samples // min_size} devices"
        )


def check_whole(name: str, value: int, low: int = 1) -> None:
    """Make sure that a choice is a whole number.

    Args:
      name: of the choice, for the message.
      value: of the choice.
      low: the least that is allowed.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name}={value}: choose a whole number, {low} or more")


def classes_of(labels: np.ndarray, bins: int | None) -> np.ndarray:
    """Number the classes of the labels.

    Args:
      labels: shape [M].
      bins: cut real labels at their quantiles into so many classes of equal size.

    Returns:
      The class of each sample, shape [M] int, 0 … K − 1, each of which occurs.

    Raises:
      ValueError: real labels without `bins`.

    Example:
      >>> classes_of(np.array([7, 3, 7]), None).tolist()
      [1, 0, 1]
      >>> classes_of(np.array([0.1, 2.5, 0.7, 9.0]), 2).tolist()
      [0, 1, 0, 1]
    """
    if bins is not None:
        cuts = np.quantile(labels, np.arange(1, bins) / bins)
        labels = np.searchsorted(cuts, labels)
    elif np.issubdtype(labels.dtype, np.floating):
        raise ValueError(
            f"labels are real numbers ({labels.dtype}) and have no classes to divide: choose iid "
            "or power_law, or give bins=10 to cut them into classes at their quantiles"
        )
    return np.unique(labels, return_inverse=True)[1]


def deal(rng: np.random.Generator, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Deal the samples of each class to the devices at random.

    Args:
      rng: decides which sample of a class goes where.
      classes: class of each sample, shape [M], 0 … K − 1.
      counts: samples of class k for device n, shape [K, N]; row k sums to the size of class k.

    Returns:
      The device of each sample, shape [M].
    """
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    num_classes, num_devices = counts.shape
    owner = np.empty(len(classes), np.int64)
    owner[by_class] = np.repeat(np.tile(np.arange(num_devices), num_classes), counts.ravel())
    return owner


def partition_of(owner: np.ndarray, num_devices: int) -> Partition:
    """Collect the samples of each device.

    Args:
      owner: device of each sample, shape [M].
      num_devices: N.

    Returns:
      The `Partition`; a device's samples are in ascending order.

    Example:
      >>> partition_of(np.array([1, 0, 1]), 2).indices.tolist()
      [[1, 0], [0, 2]]
    """
    sizes = np.bincount(owner, minlength=num_devices)
    return padded(np.argsort(owner, kind="stable"), sizes)


def padded(samples: np.ndarray, sizes: np.ndarray) -> Partition:
    """Set the samples of the devices, one after the other, into rows of equal length.

    Args:
      samples: indices of the samples of device 0, 1, …, shape [sum of sizes].
      sizes: samples of each device, shape [N].

    Returns:
      The `Partition`, padded with zeros.
    """
    row = np.repeat(np.arange(len(sizes)), sizes)
    indices = np.zeros((len(sizes), sizes.max()), np.int32)
    indices[row, place_in_row(sizes)] = samples
    return Partition(indices, sizes.astype(np.int32))


def place_in_row(sizes: np.ndarray) -> np.ndarray:
    """Count within each device.

    Args:
      sizes: samples of each device, shape [N].

    Returns:
      0 … sizes[0] − 1, 0 … sizes[1] − 1, …, shape [sum of sizes].

    Example:
      >>> place_in_row(np.array([2, 3])).tolist()
      [0, 1, 0, 1, 2]
    """
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
