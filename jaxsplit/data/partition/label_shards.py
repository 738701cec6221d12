"""Label skew of a fixed number: each device holds samples of exactly s labels."""

import functools

import numpy as np

from jaxsplit.data.partition.base import (
    Partition,
    Partitioner,
    check_sizes,
    check_whole,
    classes_of,
    deal,
    partition_of,
)
from jaxsplit.data.partition.counts import largest_remainder


def _shards_per_class(totals: np.ndarray, num_devices: int, labels_per_device: int) -> np.ndarray:
    """Cut K classes into N · s shards, as equal as can be, at most one per device and class.

    Args:
      totals: samples of each class, shape [K].
      num_devices: N.
      labels_per_device: s.

    Returns:
      Shards of each class, shape [K], at least 1 each; they sum to N · s.

    Raises:
      ValueError: it cannot be done.
    """
    num_classes, num_shards = len(totals), num_devices * labels_per_device
    most = np.minimum(totals, num_devices)
    if labels_per_device > num_classes:
        raise ValueError(
            f"labels_per_device={labels_per_device}: choose 1 to {num_classes}, the number of "
            "labels"
        )
    if num_shards < num_classes:
        raise ValueError(
            f"labels_per_device={labels_per_device}: {num_devices} devices hold {num_shards} of "
            f"{num_classes} labels; choose {-(-num_classes // num_devices)} or more, or at least "
            f"{-(-num_classes // labels_per_device)} devices"
        )
    if num_shards > most.sum():
        raise ValueError(
            f"labels_per_device={labels_per_device}: {num_devices} devices need {num_shards} "
            f"shards, and the samples make {most.sum()}; choose fewer labels or devices"
        )
    shards_of = np.ones(num_classes, np.int64)
    for _ in range(num_shards - num_classes):  # always cut the class whose shards are largest
        shards_of[np.argmax(np.where(shards_of < most, totals / shards_of, 0.0))] += 1
    return shards_of


def _holders(
    rng: np.random.Generator, shards_of: np.ndarray, num_devices: int, labels_per_device: int
) -> np.ndarray:
    """Deal shards to devices at random, none twice the same class.

    Device after device draws s classes, likely those of which most shards are left (the Gumbel
    trick draws without replacement). A class with as many shards left as there are devices must be
    taken by all of them; then the deal always comes out even.

    Args:
      rng: source of the draws.
      shards_of: shards of each class, shape [K], at most N each; they sum to N · s.
      num_devices: N.
      labels_per_device: s.

    Returns:
      Whether device n holds class k, shape [K, N] bool; columns sum to s, rows to `shards_of`.
    """
    left = shards_of.copy()
    holds = np.zeros((len(left), num_devices), bool)
    noise = rng.gumbel(size=(num_devices, len(left)))
    for place, device in enumerate(rng.permutation(num_devices)):
        with np.errstate(divide="ignore"):
            score = np.log(left) + noise[place]
        score[left == num_devices - place] = np.inf
        chosen = np.argsort(-score)[:labels_per_device]
        holds[chosen, device] = True
        left[chosen] -= 1
    return holds


@functools.cache
def shards(labels_per_device: int = 2, min_size: int = 1, bins: int | None = None) -> Partitioner:
    """Give each device samples of exactly s labels (the non-IID setting of FedAvg).

    Each label is cut into shards, N · s in all and as equal as the sizes of the labels allow; a
    device draws s shards of different labels. McMahan et al. cut the sorted data set into equal
    pieces, which may hold the end of one label and the start of the next, and may deal a device
    two of the same label: their devices hold about s labels, these exactly s.

    Args:
      labels_per_device: s >= 1.
      min_size: samples that each device must hold; that is checked, since samples moved from one
        device to another would bring further labels with them.
      bins: for real labels: cut them at their quantiles into so many classes.

    Returns:
      A `Partitioner` that uses each sample once.

    Raises:
      ValueError: an argument out of range; at the call of the partitioner: labels that do not fit
        on the devices, too few samples, a device below `min_size`, or real labels without `bins`.

    Example:
      >>> labels = np.arange(1000) % 10
      >>> indices, _ = shards(2)(0, labels, 20)
      >>> {len(set(labels[row].tolist())) for row in indices}
      {2}

    References:
      McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
      AISTATS 2017, §3.
    """
    check_whole("labels_per_device", labels_per_device)
    check_whole("min_size", min_size)
    if bins is not None:
        check_whole("bins", bins, 2)

    def partition(seed: int, labels: np.ndarray, num_devices: int) -> Partition:
        check_sizes(len(labels), num_devices, min_size)
        rng = np.random.default_rng(seed)
        classes = classes_of(labels, bins)
        totals = np.bincount(classes)
        shards_of = _shards_per_class(totals, num_devices, labels_per_device)
        holds = _holders(rng, shards_of, num_devices, labels_per_device)
        counts = largest_remainder(rng, totals, holds / shards_of[:, None])
        smallest = int(counts.sum(0).min())
        if smallest < min_size:
            raise ValueError(
                f"min_size={min_size}: the smallest device has {smallest} samples of its "
                f"{labels_per_device} labels; choose 1 to {smallest}, fewer devices or more labels"
            )
        return partition_of(deal(rng, classes, counts), num_devices)

    return partition
