"""Bandwidth that a target rate needs on an FDMA link with fixed transmit power."""

import math

import jax
import jax.numpy as jnp
import numpy as np

_LN2_REST = {4: math.log(2) - float(np.float32(math.log(2))), 8: 2.3190468138462996e-17}
_LOG_LN2 = math.log(math.log(2))
_NEWTON_STEPS = {4: 3, 8: 4}  # by item size: from 8 % to rounding


def _clear_low_bits(x: jax.Array, count: int) -> jax.Array:
    """`x` without its last `count` bits; no compiler re-associates or fuses across the mask."""
    unsigned = jnp.uint32 if x.dtype.itemsize == 4 else jnp.uint64
    mask = np.array(2 ** (8 * x.dtype.itemsize) - 2**count, unsigned)
    return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, unsigned) & mask, x.dtype)


def _minus_log_c(rate: jax.Array, snr: jax.Array) -> jax.Array:
    """-ln(c) for c = rate·ln2/snr; not positive where c >= 1.

    Near c = 1 the difference snr - rate·ln2 carries all the information. It is formed without
    rounding: rate·ln2 = product + error, where the error is the sum of exact products of halves
    (Dekker 1971).
    """
    dtype = rate.dtype
    half = 12 if dtype.itemsize == 4 else 27  # bits of the lower half of a significand
    ln2 = np.array(math.log(2), dtype)
    rest = np.array(_LN2_REST[dtype.itemsize], dtype)  # ln 2 = ln2 + rest
    ln2_high = np.array(np.floor(math.log(2) * 2.0**half) / 2.0**half, dtype)
    ln2_low = ln2 - ln2_high
    rate_high = _clear_low_bits(rate, half)
    rate_low = rate - rate_high
    product = _clear_low_bits(rate * ln2, 2)  # a fused multiply-add would skip its rounding
    error = rate_high * ln2_high - product
    error = ((error + rate_high * ln2_low) + rate_low * ln2_high) + rate_low * ln2_low
    deficit = ((snr - product) - (error + rate * rest)) / snr
    close = deficit < 0.5
    far_log_c = jnp.log(jnp.where(close, 1, rate / snr)) + np.array(_LOG_LN2, dtype)
    return jnp.where(close, -jnp.log1p(-jnp.where(close, deficit, 0)), -far_log_c)


def _h(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """h(v) = ln(expm1(v)/v) and h'(v), v > 0, both with small relative error."""
    x2 = jnp.where(v < 1, v, 0) ** 2
    # v/2 + ln(sinh(v/2)/(v/2)): the second term is small, so its error does not matter.
    sinhc_minus_1 = 1.0
    for divisor in (624, 440, 288, 168, 80):
        sinhc_minus_1 = 1 + x2 / divisor * sinhc_minus_1
    sinhc_minus_1 = x2 / 24 * sinhc_minus_1
    small = v / 2 + jnp.log1p(sinhc_minus_1)
    small_slope = 0.5 + v / 12 * (1 - x2 / 60 * (1 - x2 / 42))
    big_v = jnp.where(v < 1, 1, v)
    gap = -jnp.expm1(-big_v)
    return (
        jnp.where(v < 1, small, big_v + jnp.log(gap / big_v)),
        jnp.where(v < 1, small_slope, 1 / gap - 1 / big_v),
    )


def _solve(rate: jax.Array, snr: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`(b, v)` with v = ln(1 + snr/b), for feasible positive rates."""
    target = _minus_log_c(rate, snr)
    small = 24 * target / (6 + jnp.sqrt(36 + 24 * target))  # from h ≈ v/2 + v²/24
    big_target = jnp.maximum(target, 4)
    big = big_target + jnp.log(big_target + jnp.log(big_target))
    v = jnp.where(target < 4, small, big)
    for _ in range(_NEWTON_STEPS[rate.dtype.itemsize]):
        value, slope = _h(v)
        v = v - (value - target) / slope
    # Not snr/expm1(v), which overflows for large v and multiplies its error by v.
    return rate * np.array(math.log(2), rate.dtype) / v, v


@jax.custom_jvp
def _bandwidth(rate: jax.Array, snr: jax.Array) -> jax.Array:
    return _with_slope_variable(rate, snr)[0]


def _with_slope_variable(rate: jax.Array, snr: jax.Array) -> tuple[jax.Array, jax.Array]:
    feasible = (rate > 0) & _is_feasible(rate, snr)
    band, v = _solve(jnp.where(feasible, rate, 1), jnp.where(feasible, snr, 2))
    band = jnp.where(feasible, band, jnp.inf)
    band = jnp.where(rate == 0, 0, band)
    bad = ~(rate >= 0) | ~(snr >= 0)  # negative or NaN
    return jnp.where(bad, jnp.nan, band), jnp.where(feasible, v, jnp.inf)


def _is_feasible(rate: jax.Array, snr: jax.Array) -> jax.Array:
    return (snr > 0) & (_minus_log_c(rate, jnp.where(snr > 0, snr, 1)) > 0)


@_bandwidth.defjvp
def _bandwidth_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    rate, snr = primals
    band = _bandwidth(rate, snr)
    # From the identity rate = b·log2(1 + s/b), written in b so that it differentiates again.
    usable = (band > 0) & jnp.isfinite(band)
    safe_band = jnp.where(usable, band, 1)
    v = jnp.log1p(jnp.where(usable, snr, 1) / safe_band)
    v2 = jnp.where(v < 0.5, v, 0)
    small = v2**2 / 2 * (1 - v2 / 3 * (1 - v2 / 4 * (1 - v2 / 5 * (1 - v2 / 6 * (1 - v2 / 7)))))
    gain = jnp.where(v < 0.5, small, v + jnp.expm1(-jnp.where(v < 0.5, 1, v)))
    d_rate, d_snr = tangents
    tangent = (math.log(2) * d_rate - jnp.exp(-v) * d_snr) / gain
    return band, jnp.where(usable, tangent, 0)


@jax.jit
def bandwidth_for_rate(rate: jax.Array, snr_hz: jax.Array) -> jax.Array:
    r"""Bandwidth at which a link with fixed transmit power carries a target rate.

    Solves $b\,\log_2(1 + s/b) = y$ for b. Lemma 3 of FedFT (25) states the solution as
    $b = -y\ln 2 / (c + W_{-1}(-c\,e^{-c}))$ with $c = y \ln 2 / s$, which loses every digit as
    $c \to 1$ and underflows as $c \to 0$. The same solution is computed here from
    $v = \ln(1 + s/b)$: $\ln(\mathrm{expm1}(v)/v) = -\ln c$, then $b = y \ln 2 / v$.

    Args:
      rate: target rate y in bit/s, any shape, real floating.
      snr_hz: received power over noise density $s = P|h|^2/N_0$ in Hz, broadcast against `rate`.

    Returns:
      b in Hz, in the broadcast shape: 0 for rate 0, inf where no bandwidth suffices
      ($y \ge s/\ln 2$), NaN for negative or NaN input. The derivative is taken as 0 where b is
      0 or inf.

    Raises:
      TypeError: an argument is not real floating.

    Example:
      >>> import jax.numpy as jnp
      >>> bandwidth_for_rate(jnp.array([0.0, 2e6, 9e6]), jnp.float32(3e6)).tolist()
      [0.0, 1000000.0, inf]

    Reference:
      Z. Wang et al., "Federated fine-tuning for pre-trained foundation models over wireless
      networks", arXiv:2407.02924, Lemma 3.
    """
    rate, snr_hz = jnp.asarray(rate), jnp.asarray(snr_hz)
    for name, value in (("rate", rate), ("snr_hz", snr_hz)):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"{name} has dtype {value.dtype}: convert it to a real floating dtype")
    dtype = jnp.result_type(rate, snr_hz)
    wide = dtype if dtype.itemsize >= 4 else jnp.float32
    rate, snr_hz = jnp.broadcast_arrays(rate.astype(wide), snr_hz.astype(wide))
    return _bandwidth(rate, snr_hz).astype(dtype)
