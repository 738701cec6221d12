"""Size skew: few devices with many samples, many with few, of the same mix of labels."""

import functools
import math

import numpy as np

from jaxsplit.data.partition.base import Partition, Partitioner, check_sizes, check_whole, padded
from jaxsplit.data.partition.counts import largest_remainder, raised_to


@functools.cache
def power_law(exponent: float = 1.0, min_size: int = 1) -> Partitioner:
    r"""Sizes that fall with the rank of the device by a power law; labels are IID.

    The device of rank i = 1 … N holds a share :math:`i^{-a} / \sum_j j^{-a}` of the samples
    (Zipf's law; FedProx, too, lets "the number of samples per device follow a power law"). The
    sizes are the same under every seed; which device has which rank is drawn, and which samples.
    Devices below `min_size` are filled up from the largest.

    Args:
      exponent: a >= 0; 0 gives equal sizes.
      min_size: samples that each device holds at least.

    Returns:
      A `Partitioner` that uses each sample once.

    Raises:
      ValueError: `exponent` or `min_size` out of range; at the call of the partitioner:
        N · `min_size` > M.

    Example:
      >>> sorted(power_law(1.0)(0, np.zeros(110), 4).sizes.tolist())
      [13, 18, 26, 53]

    References:
      Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, §5.1.
    """
    if not 0 <= exponent < math.inf:
        raise ValueError(f"exponent={exponent}: choose a finite number, 0 or more, say 1.2")
    check_whole("min_size", min_size)

    def partition(seed: int, labels: np.ndarray, num_devices: int) -> Partition:
        num_samples = len(labels)
        check_sizes(num_samples, num_devices, min_size)
        rng = np.random.default_rng(seed)
        with np.errstate(over="ignore"):  # to −inf, whose share is 0
            weight = np.exp(-exponent * np.log(np.arange(1, num_devices + 1)))
        share = (weight / weight.sum())[None]
        [sizes] = largest_remainder(rng, np.array([num_samples]), share)
        sizes = rng.permutation(raised_to(min_size, sizes))
        return padded(rng.permutation(num_samples), sizes)

    return partition
