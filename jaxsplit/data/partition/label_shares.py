"""Label skew of any degree: each label is shared out in proportions from a Dirichlet law."""

import functools
import math

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
from jaxsplit.data.partition.counts import largest_remainder, move_to_minimum


def dirichlet_shares(
    rng: np.random.Generator, alpha: float, num_rows: int, num_shares: int
) -> np.ndarray:
    r"""Draw from the symmetric Dirichlet distribution, at any positive concentration.

    Shares are normalised Gamma(α) variates. Below α ≈ 1e-2 all of them may underflow, and the
    quotient is 0/0. Hence they stay logarithms until the largest is known, by the identity

    .. math:: \log \Gamma_α = \log \Gamma_{α+1} + \tfrac{1}{α} \log U, \qquad U \sim U(0, 1),

    (Marsaglia and Tsang, 2000, §6), times min(α, 1), so that neither α → 0 nor α → ∞ overflows.

    Args:
      rng: source of the draws.
      alpha: α > 0.
      num_rows: K independent draws.
      num_shares: N shares in each.

    Returns:
      Shape [K, N]; each row sums to 1.

    Example:
      >>> shares = dirichlet_shares(np.random.default_rng(0), 1e-8, 3, 4)
      >>> shares.max(1).tolist()  # one device has it all
      [1.0, 1.0, 1.0]
    """
    size = (num_rows, num_shares)
    log_gamma = np.log(rng.standard_gamma(alpha + 1, size))
    log_uniform = -rng.standard_exponential(size)
    scaled = min(alpha, 1.0) * log_gamma + log_uniform / max(alpha, 1.0)
    with np.errstate(over="ignore"):  # to −inf, whose share is 0
        exponent = (scaled - scaled.max(1, keepdims=True)) / min(alpha, 1.0)
    weight = np.exp(exponent)
    return weight / weight.sum(1, keepdims=True)


@functools.cache
def dirichlet(alpha: float = 0.5, min_size: int = 1, bins: int | None = None) -> Partitioner:
    r"""Share out each label in proportions that are drawn from a Dirichlet distribution.

    For each label k, independently, :math:`(p_{k1}, …, p_{kN}) \sim \mathrm{Dir}(α, …, α)`, and
    device n receives the share :math:`p_{kn}` of the samples of k, so that sizes differ, too.
    Small α: few labels on each device; large α: every device resembles the whole.

    Proportions are drawn once. Devices that hold less than `min_size` are then filled up by random
    samples of the largest devices, of which as few are moved as possible. This ends always, also
    where drawing again until all devices are large enough would not.

    Args:
      alpha: concentration α > 0.
      min_size: samples that each device holds at least.
      bins: for real labels: cut them at their quantiles into so many classes.

    Returns:
      A `Partitioner` that uses each sample once.

    Raises:
      ValueError: `alpha`, `min_size` or `bins` out of range; at the call of the partitioner:
        N · `min_size` > M, or real labels without `bins`.

    Example:
      >>> labels = np.arange(1000) % 10
      >>> dirichlet(alpha=0.1, min_size=20)(0, labels, 5).sizes.min() >= 20
      np.True_

    References:
      Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", ICML 2019;
      Li et al., "Federated learning on non-IID data silos", ICDE 2022.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha={alpha}: choose a finite number above 0, say 0.5")
    check_whole("min_size", min_size)
    if bins is not None:
        check_whole("bins", bins, 2)

    def partition(seed: int, labels: np.ndarray, num_devices: int) -> Partition:
        check_sizes(len(labels), num_devices, min_size)
        rng = np.random.default_rng(seed)
        classes = classes_of(labels, bins)
        totals = np.bincount(classes)
        shares = dirichlet_shares(rng, alpha, len(totals), num_devices)
        owner = deal(rng, classes, largest_remainder(rng, totals, shares))
        return partition_of(move_to_minimum(rng, owner, num_devices, min_size), num_devices)

    return partition
