"""How a set of devices shares the band."""

import math

import jax
import jax.numpy as jnp
from jaxsplit_kernels import bandwidth_for_rate

from jaxsplit.wireless.link import shannon_rate, transmission_delay

# Enough for rounding in float64 on channels spread over six decades, from a band-limited to a
# power-limited cell (tests/scheduling/test_bandwidth.py).
_NEWTON_STEPS = 6


def slowest_delay(bandwidth_hz: jax.Array, snr_hz: jax.Array, mask: jax.Array) -> jax.Array:
    """Delay per bit of the slowest device of a set, in s/bit (FedFT (7) with L = 1).

    Args:
      bandwidth_hz: shape [N].
      snr_hz: shape [N].
      mask: bool, shape [N].

    Returns:
      max over the set of 1/r_n, a scalar; 0 for an empty set, inf where a device has no band.

    Example:
      >>> import jax.numpy as jnp
      >>> float(slowest_delay(jnp.array([1e6]), jnp.array([3e6]), jnp.array([True]))) * 1e9
      499.99...
    """
    return jnp.max(jnp.where(mask, transmission_delay(1, bandwidth_hz, snr_hz), 0))


def equal_bandwidth(mask: jax.Array, total_hz: jax.Array) -> jax.Array:
    """The same share for each device of a set.

    Args:
      mask: bool, shape [N].
      total_hz: B in Hz.

    Returns:
      Hz, shape [N]: B/K in the set, 0 elsewhere.

    Example:
      >>> import jax.numpy as jnp
      >>> equal_bandwidth(jnp.array([True, False, True]), jnp.float32(6.0)).tolist()
      [3.0, 0.0, 3.0]
    """
    count = jnp.maximum(jnp.sum(mask), 1).astype(jnp.result_type(total_hz))
    return jnp.where(mask, total_hz / count, 0)


def min_delay_bandwidth(
    snr_hz: jax.Array, mask: jax.Array, total_hz: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""Bandwidth that lets a set of devices finish together, as early as possible.

    Problem P3 of FedFT (24): the common rate y solves $\sum_{n\in S} b_n(y) = B$, where
    $b_n(y)$ is Lemma 3 (`bandwidth_for_rate`). The paper bisects; here Newton runs on

    $$ H(y) = \frac{y}{\sum_{n \in S} b_n(y)} - \frac{y}{B}, $$

    which is close to a straight line at high SNR (the first term, the set's spectral
    efficiency, then hardly depends on y) and at low SNR (it then falls linearly), so that a
    fixed handful of steps from the equal split reaches rounding.

    Args:
      snr_hz: P·|h_n|²/N0 in Hz, shape [N], > 0 where `mask` is set.
      mask: the set S, bool, shape [N].
      total_hz: B in Hz, scalar.

    Returns:
      `(bandwidth_hz [N], delay_s_per_bit [])`; zeros for an empty set.

    Example:
      >>> import jax.numpy as jnp
      >>> snr = jnp.array([1e9, 1e8, 1e7])
      >>> b, delay = min_delay_bandwidth(snr, jnp.array([True, True, False]), jnp.float32(2e7))
      >>> [round(float(x) / 1e6, 2) for x in b], round(float(delay) * 1e9, 2)
      ([5.74, 14.26, 0.0], 23.36)
    """
    snr_hz = jnp.where(mask, snr_hz, 1)  # devices outside must not produce infinities
    empty = ~jnp.any(mask)

    def required(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Bandwidth of each device for a common rate, and its derivative."""
        required_hz, slope = jax.jvp(
            lambda rate: bandwidth_for_rate(jnp.broadcast_to(rate, snr_hz.shape), snr_hz),
            (rate,),
            (jnp.ones_like(rate),),
        )
        return jnp.where(mask, required_hz, 0), jnp.where(mask, slope, 0)

    # The root lies between the slowest device's rate on the equal split and on the whole band.
    count = jnp.maximum(jnp.sum(mask), 1).astype(jnp.result_type(total_hz))
    bands_hz = total_hz / jnp.where(jnp.arange(2) == 0, count, 1)
    rates = shannon_rate(bands_hz[:, None], snr_hz[None])
    # Just below s/ln2, the rate on infinite bandwidth, to which it may have rounded.
    rates = jnp.minimum(rates, (1 - 4 * jnp.finfo(rates.dtype).eps) / math.log(2) * snr_hz[None])
    low, high = jnp.where(empty, 1, jnp.min(jnp.where(mask[None], rates, jnp.inf), axis=-1))

    def newton_step(
        _: jax.Array, at: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The next rate, and what this one requires."""
        rate = at[0]
        required_hz, slopes = required(rate)
        used_hz, slope = jnp.where(empty, 1, jnp.sum(required_hz)), jnp.sum(slopes)
        efficiency = rate / used_hz
        excess = efficiency - rate / total_hz
        derivative = efficiency * (1 / rate - slope / used_hz) - 1 / total_hz
        return jnp.clip(rate - excess / derivative, low, high), required_hz, slopes

    # The last time round is for the bandwidths at the rate that the steps before have found.
    start = low, jnp.zeros_like(snr_hz), jnp.zeros_like(snr_hz)
    _, bandwidth_hz, slopes = jax.lax.fori_loop(0, _NEWTON_STEPS + 1, newton_step, start)
    # A weak device's bandwidth changes much faster than the rate, so that the last digit of the
    # rate may stand for a sizeable piece of the band. Going on to first order shares that piece
    # as a rate with more digits would; what then is left is rounding.
    left_hz = total_hz - jnp.sum(bandwidth_hz)
    bandwidth_hz = bandwidth_hz + left_hz * (slopes / jnp.where(empty, 1, jnp.sum(slopes)))
    bandwidth_hz = bandwidth_hz * (total_hz / jnp.where(empty, 1, jnp.sum(bandwidth_hz)))
    return bandwidth_hz, slowest_delay(bandwidth_hz, snr_hz, mask)
