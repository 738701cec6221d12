r"""Common rates of all prefixes of the sorted devices at once, as bounds that can be tightened.

The k strongest devices finish together at the rate $y_k$ that solves $C_k(y) = B$ with
$C_k(y) = \sum_{n \le k} b_n(y)$ (FedFT (24)). For one y, all the $C_k(y)$ are one cumulative sum
over the devices, and each is increasing and convex in y. So a few values of y bound the rates of
all prefixes: a chord of $C_k$ crosses B below $y_k$, a tangent above it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxsplit_kernels import bandwidth_for_rate

_BLOCK = 128  # devices that one matrix product sums up


class PrefixRates(NamedTuple):
    """What is known of the common rates $y_k$ of the k strongest devices, k = 1 … N."""

    low: jax.Array  # [N] bit/s, y_k is at least this
    high: jax.Array  # [N] bit/s, and at most this
    estimate: jax.Array  # [N] bit/s, between them


def bound_rates(snr_hz: jax.Array, total_hz: jax.Array) -> PrefixRates:
    r"""Bound the common rate of every prefix in closed form.

    Below by the weakest device's rate on the equal split; above by its rate on the whole band and
    by the mean rate of the split that maximises the sum, $b_n \propto s_n$:
    $\frac{B}{k} \log_2(1 + \frac1B \sum_{n \le k} s_n)$.

    Args:
      snr_hz: P·|h_n|²/N0 in Hz, shape [N], descending.
      total_hz: B in Hz.

    Returns:
      `PrefixRates`.

    Example:
      >>> rates = bound_rates(jnp.array([1e9, 1e8]), jnp.float32(2e7))
      >>> [f"{rate / 1e6:.0f}" for rate in rates.low], [f"{rate / 1e6:.0f}" for rate in rates.high]
      (['113', '35'], ['113', '52'])
    """
    share_hz = total_hz / jnp.arange(1, snr_hz.shape[-1] + 1, dtype=snr_hz.dtype)
    # One logarithm for all three rates, chosen by row: each costs XLA as much as all the rest here.
    row = jnp.arange(3)[:, None]
    bands_hz = jnp.where(row < 2, share_hz[None], total_hz)
    signals_hz = jnp.where(row == 1, jnp.cumsum(snr_hz)[None], snr_hz[None])
    snr = signals_hz / jnp.where(row == 0, share_hz[None], total_hz)
    low, of_sum, of_weakest = bands_hz * jnp.log1p(snr) / math.log(2)
    high = jnp.minimum(of_sum, of_weakest)
    return _rounded_out(low, high, jnp.sqrt(low * high))


def tighten_rates(
    rates: PrefixRates,
    snr_hz: jax.Array,
    total_hz: jax.Array,
    wanted: jax.Array,
    num_points: int,
) -> PrefixRates:
    """Evaluate the bandwidth of all prefixes at a few rates, and tighten what is known of each.

    The rates lie in pairs closely around the estimates of `wanted` prefixes: of all of them if they
    are few, so that their bounds then shrink quadratically; else of an even selection.

    Args:
      rates: from `bound_rates` or the step before.
      snr_hz: shape [N], descending.
      total_hz: B in Hz.
      wanted: bool, shape [N], the prefixes whose rates matter.
      num_points: evaluations, static, even, at least 4.

    Returns:
      `PrefixRates`, nowhere wider than before.

    Example:
      >>> snr, total = jnp.array([1e9, 1e8]), jnp.float32(2e7)
      >>> rates = bound_rates(snr, total)
      >>> for _ in range(3):
      ...     rates = tighten_rates(rates, snr, total, jnp.array([False, True]), num_points=4)
      >>> print(f"{rates.low[1] / 1e6:.3f} {rates.high[1] / 1e6:.3f}")
      42.805 42.805
    """
    points = _points(rates, wanted, num_points)
    used_hz, slopes = _required(points, snr_hz, total_hz)
    fits = used_hz <= total_hz
    points = jnp.broadcast_to(points[:, None], used_hz.shape)
    (left, left_hz, left_slope), (right, right_hz, right_slope) = _nearest(
        fits, points, used_hz, slopes
    )
    has_left, has_right = left > -jnp.inf, right < jnp.inf
    exact_right = has_right & (right_hz < _capped_hz(total_hz))
    spare_hz, excess_hz = total_hz - left_hz, right_hz - total_hz

    low = jnp.where(has_left, jnp.maximum(rates.low, left), rates.low)
    chord = left + (right - left) * (spare_hz / (excess_hz + spare_hz))
    low = jnp.where(has_left & exact_right, jnp.maximum(low, chord), low)
    high = jnp.where(has_right, jnp.minimum(rates.high, right), rates.high)
    high = jnp.where(has_left, jnp.minimum(high, left + spare_hz / left_slope), high)
    high = jnp.where(exact_right, jnp.minimum(high, right - excess_hz / right_slope), high)

    # Newton on the set's spectral efficiency, as in `min_delay_bandwidth`.
    is_left_nearer = has_left & (~exact_right | (spare_hz < excess_hz))
    near, near_hz, near_slope = (
        jnp.where(is_left_nearer, a, b)
        for a, b in ((left, right), (left_hz, right_hz), (left_slope, right_slope))
    )
    efficiency = near / near_hz
    derivative = efficiency * (1 / near - near_slope / near_hz) - 1 / total_hz
    newton = near - (efficiency - near / total_hz) / derivative
    estimate = jnp.where(has_left | exact_right, newton, jnp.sqrt(low * high))
    return _rounded_out(low, high, jnp.where(jnp.isfinite(estimate), estimate, low), rates)


def _points(rates: PrefixRates, wanted: jax.Array, num_points: int) -> jax.Array:
    """Rates [num_points] at which to evaluate: pairs around the estimates of wanted prefixes."""
    rank = jnp.cumsum(wanted.astype(jnp.int32))
    pairs = jnp.arange(num_points // 2, dtype=jnp.int32)
    last = jnp.maximum(rank[-1] - 1, 0)
    targets = 1 + jax.lax.div(pairs * last, jnp.full_like(pairs, num_points // 2 - 1))
    index = jnp.sum(rank[None, :] < targets[:, None], axis=1, dtype=jnp.int32)
    index = jnp.minimum(index, rank.shape[0] - 1)
    centre = rates.estimate[index]
    rounding = 16 * jnp.finfo(centre.dtype).eps * centre
    offset = jnp.maximum(0.1 * (rates.high - rates.low)[index], rounding)
    return jnp.concatenate([centre - offset, centre + offset])


def _required(
    points: jax.Array, snr_hz: jax.Array, total_hz: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Bandwidth of every prefix at every rate, [points, N], capped, and its slope."""
    shape = (points.shape[0], snr_hz.shape[0])
    rate = jnp.broadcast_to(points[:, None], shape)
    required_hz, slope = jax.jvp(
        lambda rate: bandwidth_for_rate(rate, jnp.broadcast_to(snr_hz, shape)),
        (rate,),
        (jnp.ones_like(rate),),
    )
    # An infinite bandwidth times a zero of the summing matrix would be NaN.
    is_small = required_hz < _capped_hz(total_hz)
    required_hz = jnp.where(is_small, required_hz, _capped_hz(total_hz))
    return prefix_sum(required_hz), prefix_sum(jnp.where(is_small, slope, 0))


def _capped_hz(total_hz: jax.Array) -> jax.Array:
    """Where a device needs more than this, a prefix's bandwidth is only known to be more."""
    return 2 * total_hz


def _nearest(
    fits: jax.Array, points: jax.Array, *tables: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The nearest point on either side of each prefix's rate, and the tables [points, N] there.

    Returns:
      `(left, right)`: the greatest point that fits, or -inf, and what the tables have at it; and
      the least one that does not, or inf.
    """
    zero, inf = jnp.zeros((), points.dtype), jnp.full((), jnp.inf, points.dtype)
    size = 1 + len(tables)

    # One reduction: to find the points and then to look them up would be many.
    def nearer(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        is_left, is_right = b[0] > a[0], b[size] < a[size]
        return [
            jax.lax.select(is_left if k < size else is_right, q, p)
            for k, (p, q) in enumerate(zip(a, b, strict=True))
        ]

    found = jax.lax.reduce(
        [jnp.where(fits, points, -inf), *tables, jnp.where(fits, inf, points), *tables],
        [-inf, *[zero] * len(tables), inf, *[zero] * len(tables)],
        nearer,
        (0,),
    )
    return found[:size], found[size:]


def _rounded_out(
    low: jax.Array, high: jax.Array, estimate: jax.Array, before: PrefixRates | None = None
) -> PrefixRates:
    """Widen the bounds by what rounding may have cost, but not beyond what was known before."""
    eps = 8 * jnp.finfo(low.dtype).eps
    low, high = low * (1 - eps), high * (1 + eps)
    if before is not None:
        low, high = jnp.maximum(low, before.low), jnp.minimum(high, before.high)
    high = jnp.maximum(high, low)
    return PrefixRates(low, high, jnp.clip(estimate, low, high))


def prefix_sum(x: jax.Array) -> jax.Array:
    """Cumulative sum over the last axis by products with a triangular matrix.

    Of blocks and, recursively, of their totals: every device is fast at such products, and rounding
    grows with the block and the number of levels, not with the length.
    """
    length = x.shape[-1]
    block = min(length, _BLOCK)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -length % block)])
    blocks = padded.reshape(*x.shape[:-1], -1, block)
    within = jnp.matmul(
        blocks, jnp.triu(jnp.ones((block, block), x.dtype)), precision=jax.lax.Precision.HIGHEST
    )
    if blocks.shape[-2] > 1:
        totals = within[..., -1]
        within = within + (prefix_sum(totals) - totals)[..., None]
    return within.reshape(padded.shape)[..., :length]
