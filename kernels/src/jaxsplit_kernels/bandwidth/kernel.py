"""Bandwidth for a rate over an FDMA link, in JAX."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._elementary import horner, neg_log1m, real_floating, x_minus_log1p_near_0
from ..lambertw.kernel import computable, offset_below

_LN2 = math.log(2.0)


def bandwidth_for_rate(rate: Any, snr_hz: Any) -> jax.Array:
    r"""Bandwidth b that carries ``rate`` over a link, $b \log_2(1 + s / b) = y$.

    FedFT, Lemma 3, equation (25), with $y$ the rate, $s$ the ``snr_hz`` and $c = y \ln 2 / s$:

    $$b = -\frac{y \ln 2}{c + W_{-1}(-c\,e^{-c})}$$

    As printed it loses every digit as $c \to 1$ and underflows as $c \to 0$. The same solution,
    with $d = 1 - c$ from an error-free $s - y \ln 2$: $b = y \ln 2 / (d + v)$, where
    $v - \log(1 + v) = u = -\log c - d$ is the equation of
    :func:`jaxsplit_kernels.lambertwm1_negexp`.

    Differentiable to any order in both arguments: with $v = \ln(1 + s / b)$,
    $\partial b / \partial y = \ln 2 / (v - 1 + e^{-v})$ and
    $\partial b / \partial s = -e^{-v} / (v - 1 + e^{-v})$.

    Args:
        rate: target rate y in bit/s, real floating, broadcast against ``snr_hz``.
        snr_hz: P |h|^2 / N0 in Hz (received power over noise density), real floating.

    Returns:
        Bandwidth in Hz, with the broadcast shape and the dtype of the arguments: 0 at rate 0, inf
        where no bandwidth is enough (c >= 1), NaN where an argument is negative or NaN.

    Raises:
        ValueError: an argument is not real floating, or the shapes do not broadcast.

    Example:
        >>> import math
        >>> from jaxsplit_kernels import bandwidth_for_rate
        >>> b = bandwidth_for_rate(1e6, 3e6)
        >>> print(f"{b:.0f} Hz carry {float(b) * math.log2(1 + 3e6 / float(b)):.0f} bit/s")
        282672 Hz carry 1000000 bit/s
        >>> float(bandwidth_for_rate(1e6, 6e5))  # the rate stays below snr_hz / ln 2
        inf

    References:
        FedFT, arXiv:2407.02924, Lemma 3; R. M. Corless et al., *On the Lambert W function*, 1996.
    """
    rate = real_floating("bandwidth_for_rate", "rate", rate)
    snr_hz = real_floating("bandwidth_for_rate", "snr_hz", snr_hz)
    dtype = jnp.result_type(rate, snr_hz)
    rate, snr_hz = jnp.broadcast_arrays(rate, snr_hz)
    rate, snr_hz = computable(rate.astype(dtype)), computable(snr_hz.astype(dtype))
    return _bandwidth(rate, snr_hz).astype(dtype)


@jax.custom_jvp
@partial(jax.jit, inline=True)
def _bandwidth(y: jax.Array, s: jax.Array) -> jax.Array:
    d = _one_minus_c(y, s)
    near = d < 0.3
    # log(1 + s / b) = d + v, with u = -log(c) - d; near c = 1 both have to come from d.
    d_near = jnp.where(near, d, 0)
    neg_log_c = jnp.where(near, neg_log1m(d_near), _neg_log_c(y, s))
    u = jnp.where(near, x_minus_log1p_near_0(-d_near), neg_log_c - d)
    b = y * _LN2 / (d + offset_below(jnp.maximum(u, 0), bounded=True))
    b = jnp.where(d > 0, b, jnp.inf)
    b = jnp.where(y == 0, 0, b)
    return jnp.where((y >= 0) & (s >= 0), b, jnp.nan)


def _bandwidth_jvp(primals: Any, tangents: Any) -> Any:
    (y, s), (dy, ds) = primals, tangents
    b = _bandwidth(y, s)
    # log(1 + s / b); the stand-in keeps 0 / 0 at rate 0 out of the derivative of jnp.where.
    v = jnp.where(b == 0, jnp.inf, y * _LN2 / jnp.where(b == 0, 1, b))
    curvature = _exp_minus_linear(v)
    db = jnp.zeros_like(b)
    if not isinstance(dy, SymbolicZero):
        db = db + (_LN2 / curvature) * dy
    if not isinstance(ds, SymbolicZero):
        db = db - (jnp.exp(-v) / curvature) * ds
    return b, db


# What is not differentiated by costs nothing.
_bandwidth.defjvp(_bandwidth_jvp, symbolic_zeros=True)


def _one_minus_c(y: jax.Array, s: jax.Array) -> jax.Array:
    """Return d = (s - y ln 2) / s with the relative error of one division; negative: infeasible."""
    # ln 2 and y in pieces so short that the first three products and the differences of the chain
    # are exact near c = 1: nothing is left for a compiler to contract or reassociate. Dekker's
    # product would break under contraction to FMA.
    if y.dtype == jnp.float64:
        high, middle, low = 2907269 / 2**22, 4160796 / 2**44, 5.4979230187083711747e-14
        word, mask = jnp.int64, -(1 << 27)
    else:
        high, middle, low = 709 / 2**10, 801 / 2**20, 4.7493250390316723212e-7
        word, mask = jnp.int32, -(1 << 12)
    feasible = y < 2 * s
    y = jnp.where(feasible, y, 0)
    head = lax.bitcast_convert_type(lax.bitcast_convert_type(y, word) & mask, y.dtype)
    tail = y - head
    rest = s - head * high - tail * high - head * middle - (tail * middle + y * low)
    # s = inf: c = 0.
    return jnp.where(feasible, jnp.where(s < jnp.inf, rest / s, 1), -1)


def _neg_log_c(y: jax.Array, s: jax.Array) -> jax.Array:
    """Return log(s / (y ln 2)), also where the ratio leaves the range of the floats."""
    half = jnp.finfo(y.dtype).maxexp // 2
    tiny = y < s * 2.0**-half
    ratio = jnp.where(tiny, s * 2.0**-half, s) / (jnp.where(tiny, y * 2.0**half, y) * _LN2)
    return jnp.log(ratio) + jnp.where(tiny, 2 * half * _LN2, 0)


def _exp_minus_linear(v: jax.Array) -> jax.Array:
    """Return exp(-v) - 1 + v, v >= 0: v^2 / 2 near 0, where the sum as written would cancel."""
    terms = 18 if v.dtype == jnp.float64 else 10
    v_near = jnp.minimum(v, 1)
    near = (
        v_near
        * v_near
        * horner(tuple((-1) ** k / math.factorial(k + 2) for k in range(terms)), v_near)
    )
    return jnp.where(v < 1, near, v - 1 + jnp.exp(-v))
