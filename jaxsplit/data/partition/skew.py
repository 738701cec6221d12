"""How unequal the devices of a partition are."""

import numpy as np

from jaxsplit.data.partition.base import Partition, place_in_row


def label_counts(partition: Partition, classes: np.ndarray, num_classes: int = 0) -> np.ndarray:
    """Count the samples of each class on each device.

    Args:
      partition: who holds which samples.
      classes: class of each sample, shape [M] int, 0 … K − 1.
      num_classes: K; by default the highest class that occurs, plus one.

    Returns:
      Counts, shape [K, N].

    Example:
      >>> partition = Partition(np.array([[0, 1], [2, 0]]), np.array([2, 1]))
      >>> label_counts(partition, np.array([0, 1, 1])).tolist()
      [[1, 0], [1, 1]]
    """
    num_devices = len(partition.sizes)
    num_classes = max(num_classes, int(classes.max()) + 1)
    device = np.repeat(np.arange(num_devices), partition.sizes)
    held = classes[partition.indices[device, place_in_row(partition.sizes)]]
    counts = np.bincount(held * num_devices + device, minlength=num_classes * num_devices)
    return counts.reshape(num_classes, num_devices)


def label_distance(counts: np.ndarray) -> np.ndarray:
    r"""How far the labels of each device are from those of all devices together.

    The total variation distance :math:`\tfrac12 \sum_k |p_{k|n} - p_k|`: the share of a device's
    samples that would have to be of other labels. 0 is the mix of all; 1 − p_k a single label k.

    Args:
      counts: samples of each class on each device, shape [K, N].

    Returns:
      Shape [N], between 0 and 1.

    Example:
      >>> label_distance(np.array([[5, 0, 5], [5, 10, 15]])).tolist()
      [0.25, 0.25, 0.0]
    """
    of_device = counts / counts.sum(0)
    of_all = counts.sum(1) / counts.sum()
    return np.abs(of_device - of_all[:, None]).sum(0) / 2
