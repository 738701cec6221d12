"""Whole numbers of samples: shares rounded so that they add up, and a least size kept."""

import bisect

import numpy as np

from jaxsplit.data.partition.base import place_in_row


def largest_remainder(
    rng: np.random.Generator, totals: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Divide whole numbers in given proportions (Hamilton's method).

    Each share is rounded down; what is left goes to the largest fractions, one each. Equal
    fractions are served in random order: in index order the first devices would gain in each row.

    Args:
      rng: breaks ties.
      totals: what is divided in each row, shape [K] int.
      shares: non-negative, each row sums to 1, shape [K, N].

    Returns:
      Counts, shape [K, N] int64; row k sums to `totals[k]` exactly.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> largest_remainder(rng, np.array([10]), np.array([[0.58, 0.11, 0.31]])).tolist()
      [[6, 1, 3]]
    """
    exact = shares * totals[:, None]
    counts = np.floor(exact).astype(np.int64)
    order = np.lexsort((rng.random(exact.shape), counts - exact))  # largest fraction first
    left = totals - counts.sum(1)
    extra = np.zeros_like(counts)
    np.put_along_axis(extra, order, np.arange(exact.shape[1]) < left[:, None], axis=1)
    return counts + extra


def raised_to(min_size: int, sizes: np.ndarray) -> np.ndarray:
    """Fill up those that hold too little from those that hold most.

    The sizes that one would reach by taking a sample from the largest device as often as another
    one lacks any, without that loop: the largest are cut down to a common level. No more is taken
    than lacks, and nobody falls below `min_size`.

    Args:
      min_size: at most the mean of `sizes`.
      sizes: shape [N] int.

    Returns:
      New sizes of the same sum, none below `min_size`, shape [N].

    Example:
      >>> raised_to(3, np.array([9, 0, 4, 8])).tolist()
      [7, 3, 4, 7]
    """
    lack = np.maximum(min_size - sizes, 0)

    def above(level: int) -> int:
        return int(np.maximum(sizes - level, 0).sum())

    # The highest level at which there is enough to take; `above` falls with the level.
    levels = range(min_size, int(sizes.max()) + 1)
    level = levels[bisect.bisect_right(levels, -int(lack.sum()), key=lambda at: -above(at)) - 1]
    taken = np.maximum(sizes - level, 0)
    too_much = int(taken.sum() - lack.sum())  # less than one for each of the cut
    taken[np.flatnonzero(taken)[:too_much]] -= 1
    return sizes + lack - taken


def move_to_minimum(
    rng: np.random.Generator, owner: np.ndarray, num_devices: int, min_size: int
) -> np.ndarray:
    """Move as few samples as possible so that each device holds `min_size`.

    Samples are taken at random from the largest devices (`raised_to`).

    Args:
      rng: decides which samples move.
      owner: device of each sample, shape [M].
      num_devices: N, with N · `min_size` <= M.
      min_size: samples that each device must hold.

    Returns:
      The new device of each sample, shape [M]; `owner` itself where no device lacks any.

    Example:
      >>> owner = move_to_minimum(np.random.default_rng(0), np.array([0, 0, 0, 0, 2]), 3, 1)
      >>> np.bincount(owner).tolist()
      [3, 1, 1]
    """
    sizes = np.bincount(owner, minlength=num_devices)
    if sizes.min() >= min_size:
        return owner
    wanted = raised_to(min_size, sizes)
    shuffled = rng.permutation(len(owner))
    by_owner = shuffled[np.argsort(owner[shuffled], kind="stable")]
    spare = by_owner[place_in_row(sizes) >= np.repeat(wanted, sizes)]
    owner = owner.copy()
    lack = np.maximum(wanted - sizes, 0)
    owner[rng.permutation(spare)] = np.repeat(np.arange(num_devices), lack)
    return owner
