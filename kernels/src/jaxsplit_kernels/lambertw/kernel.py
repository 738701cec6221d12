"""The real Lambert W function in JAX.

No loop depends on the data, so no element waits for another: float32 takes at most one Newton
step, float64 one step of at least third order. The methods, with d = e z + 1 and p = sqrt(2 d):

- branch -1, and bandwidth_for_rate: ``offset_below(u)``, v = -1 - W, a rational in sqrt(2 u);
- branch 0, z < 20: W = z times a rational in p; 1 + W from its series where p < 0.4;
- branch 0, z >= 20: W = log z minus a rational in log z.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._elementary import horner, neg_log1m, real_floating, x_minus_log1p_near_0
from . import coefficients as fit

# 1/e as float64 plus the rest.
_INV_E = 0.36787944117144233
_INV_E_REST = -1.2428753672788363e-17

_SERIES_P = 0.4  # below: 1 + W0 from the series at the branch point
_MIDDLE_Z = 20.0  # above: W0 from log z
_BELOW_S = 56.0  # the fits end here
_LARGE_X = 710.0


def lambertw(z: Any, branch: int = 0) -> jax.Array:
    r"""Real Lambert W function, principal branch or branch -1.

    $W(z)\,e^{W(z)} = z$ with $W_0 \ge -1$ for $z \ge -1/e$ and $W_{-1} \le -1$ for
    $-1/e \le z < 0$ (Corless et al. 1996, section 1).

    Differentiable to any order, forward and reverse: $W' = e^{-W} / (1 + W)$, where $1 + W$ comes
    from the series at the branch point and not from the rounded $W$.

    Args:
        z: real floating array of any shape, dimensionless. bfloat16 and float16 are computed in
            float32.
        branch: 0 or -1, a static Python integer.

    Returns:
        W(z), with the shape and dtype of ``z``. NaN outside the domain. The float nearest to -1/e
        counts as the branch point itself: W = -1 there, with an infinite derivative, and NaN at the
        next float below. W0(inf) = inf; W-1(0) = W-1(-0.0) = -inf. Subnormal ``z`` may be taken for
        zero, as XLA flushes it.

    Raises:
        ValueError: ``z`` is not real floating, or ``branch`` is neither 0 nor -1.

    Example:
        >>> import jax
        >>> from jaxsplit_kernels import lambertw
        >>> print(f"{lambertw(1.0):.6f}")  # the omega constant
        0.567143
        >>> print(f"{lambertw(-0.2, branch=-1):.6f}")
        -2.542641
        >>> print(f"{jax.grad(lambertw)(0.0):.1f}")
        1.0

    References:
        R. M. Corless, G. H. Gonnet, D. E. G. Hare, D. J. Jeffrey and D. E. Knuth, *On the Lambert W
        function*, Advances in Computational Mathematics 5, 329-359, 1996.
    """
    if not isinstance(branch, (int, np.integer)) or branch not in (0, -1):
        raise ValueError(
            f"lambertw: branch must be 0 or -1, got {branch!r}; the other branches are complex, "
            "use scipy.special.lambertw for them."
        )
    z = real_floating("lambertw", "z", z)
    edge = float(np.asarray(-_INV_E, z.dtype))
    w, _ = _lambertw(computable(z), int(branch), edge)
    return w.astype(z.dtype)


def lambertw_exp(x: Any) -> jax.Array:
    r"""Lambert W of an exponential, $W_0(e^x)$, without overflow (the Wright omega function).

    The solution of $w + \log w = x$; $w' = w / (1 + w)$. Corless and Jeffrey 2002, *The Wright
    omega function*.

    Args:
        x: real floating array of any shape, dimensionless.

    Returns:
        W0(e^x), with the shape and dtype of ``x``: inf at inf, 0 at -inf, NaN at NaN.

    Raises:
        ValueError: ``x`` is not real floating.

    Example:
        >>> from jaxsplit_kernels import lambertw_exp
        >>> print(f"{lambertw_exp(1000.0):.4f}")  # e^1000 overflows
        993.0992

    References:
        R. M. Corless and D. J. Jeffrey, *The Wright omega function*, AISC 2002.
    """
    x = real_floating("lambertw_exp", "x", x)
    return _lambertw_exp(computable(x)).astype(x.dtype)


def lambertwm1_negexp(u: Any) -> jax.Array:
    r"""Branch -1 of Lambert W counted from its branch point, $W_{-1}(-e^{-1-u})$ for $u \ge 0$.

    The solution $w \le -1$ of $-w - \log(-w) = 1 + u$. A float $z$ near $-1/e$ cannot hold a
    small $u$, on which $W_{-1}(z)$ depends, and it underflows for a large one; $u$ holds both.
    $w' = -w / (1 + w)$: $-\infty$ at $u = 0$, $-1$ at infinity. (Corless et al. 1996, section 4.)

    Args:
        u: real floating array of any shape, dimensionless, u >= 0.

    Returns:
        The solution, with the shape and dtype of ``u``: -1 at 0, -inf at inf, NaN for u < 0 or NaN.

    Raises:
        ValueError: ``u`` is not real floating.

    Example:
        >>> from jaxsplit_kernels import lambertwm1_negexp
        >>> print(f"{lambertwm1_negexp(1000.0):.3f}")  # -e^-1001 underflows
        -1007.916

    References:
        R. M. Corless et al., *On the Lambert W function*, 1996.
    """
    u = real_floating("lambertwm1_negexp", "u", u)
    return (-1 - _offset_below(computable(u))).astype(u.dtype)


def computable(x: jax.Array) -> jax.Array:
    """Half precision through float32; float32 and float64 as they are."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


# -- lambertw --------------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _lambertw(z: jax.Array, branch: int, edge: float) -> tuple[jax.Array, jax.Array]:
    """Return (W, 1 + W), each with its own relative accuracy; ``edge``: least z of the domain."""
    d = _above_branch_point(z)
    if branch == -1:
        v = jnp.where(
            (z >= edge) & (z <= 0), offset_below(_log_distance(z, d), bounded=True), jnp.nan
        )
        return -1 - v, -v
    w, one_plus_w = _principal(z, d)
    inside = z >= edge
    return jnp.where(inside, w, jnp.nan), jnp.where(inside, one_plus_w, jnp.nan)


@_lambertw.defjvp
def _lambertw_jvp(branch: int, edge: float, primals: Any, tangents: Any) -> Any:
    (z,), (dz,) = primals, tangents
    w, one_plus_w = _lambertw(z, branch, edge)
    # exp(-W) / (1 + W) near the branch point and 0, W / (z (1 + W)) far from both: each is 0/0 or
    # loses its digits where the other is good. The stand-ins keep the NaN of the form that is not
    # taken out of the derivative of jnp.where. z = +0.0 is a limit from below on branch -1.
    near = jnp.abs(w) < 2
    w_near, one_plus_w_near = jnp.where(near, w, 0), jnp.where(near, one_plus_w, 1)
    w_far, z_far = jnp.where(near, 1, w), jnp.where(near, 1, z if branch == 0 else -jnp.abs(z))
    slope = jnp.where(near, jnp.exp(-w_near) / one_plus_w_near, 1 / z_far / (1 + 1 / w_far))
    dw = slope * dz
    return (w, one_plus_w), (dw, dw)


def _above_branch_point(z: jax.Array) -> jax.Array:
    """Return d = e z + 1 with full relative accuracy, at least 0."""
    high = float(np.asarray(_INV_E, z.dtype))
    # z + high is exact near the branch point. Without the barrier XLA folds the two constants into
    # one, which loses every digit of d there.
    exact = lax.optimization_barrier(z + high)
    return jnp.maximum(math.e * (exact + ((_INV_E - high) + _INV_E_REST)), 0)


def _log_distance(z: jax.Array, d: jax.Array) -> jax.Array:
    """Return u = -1 - log(-z): from d near the branch point, where the difference cancels."""
    return jnp.where(d < 0.3, neg_log1m(d), -1 - jnp.log(-z))


def _principal(z: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (W0, 1 + W0)."""
    p = jnp.sqrt(2 * d)
    one_plus_w = p * horner(fit.ONE_PLUS_W0_SERIES, p)
    ratio = _middle_ratio(p)
    # One logarithm serves both ranges. For moderate z, log(z / W) comes from the ratio W / z, which
    # is known even where both vanish; a Newton step halves the rounding error of the rational.
    is_large = z >= _MIDDLE_Z
    log = jnp.log(jnp.where(is_large, z, ratio))
    middle, large = z * ratio, _large(log)
    if z.dtype == jnp.float64:
        w = jnp.where(is_large, large, middle)
        log_z_over_w = jnp.where(is_large, log - jnp.log(jnp.maximum(w, 1)), -log)
        w = jnp.where(jnp.isfinite(z), _log_step(w, log_z_over_w - w), w)
        one_plus_w = -_halley_step(-one_plus_w, neg_log1m(jnp.minimum(d, 0.3)))
    else:
        w = jnp.where(is_large, large, middle - middle * ((log + middle) / (1 + middle)))
    near = p < _SERIES_P
    return jnp.where(near, one_plus_w - 1, w), jnp.where(near, one_plus_w, 1 + w)


def _middle_ratio(p: jax.Array) -> jax.Array:
    """Return W0(z) / z for z <= 20.08, relative error 6e-9."""
    return horner(fit.MIDDLE_NUMERATOR, p) / horner(fit.MIDDLE_DENOMINATOR, p)


def _large(x: jax.Array) -> jax.Array:
    """Return W0(e^x), x >= 2.99: relative error 6e-8 up to x = 89, then less than 6e-4."""
    c = jnp.minimum(x, _LARGE_X)  # the rational at inf would be inf / inf
    return x - horner(fit.LARGE_NUMERATOR, c) / horner(fit.LARGE_DENOMINATOR, c)


def _log_step(w: jax.Array, residual: jax.Array) -> jax.Array:
    """Fourth-order step of Fritsch, Shafer and Crowley (1973); residual = log(z / w) - w."""
    newton = residual / (1 + w)
    q = 2 * (1 + w + 2 / 3 * residual)  # their q over 1 + w: w^2 would overflow
    return w * (1 + newton * (q - newton) / (q - 2 * newton))


# -- lambertwm1_negexp -----------------------------------------------------------------------------


def offset_below(u: jax.Array, bounded: bool = False) -> jax.Array:
    r"""Return v = -1 - W-1(-e^(-1-u)), the root v >= 0 of $v - \log(1 + v) = u$.

    Full relative accuracy, also as u -> 0, where v ~ sqrt(2 u). ``bounded``: u <= 1500 or u = inf.
    """
    s = jnp.sqrt(2 * u)
    c = jnp.minimum(s, _BELOW_S)
    # v = u + log(1 + v): the rational gives only the logarithm, the smaller part, so that its
    # rounding counts little. Both terms are positive: nothing cancels.
    log = c * (horner(fit.BELOW_NUMERATOR, c) / horner(fit.BELOW_DENOMINATOR, c))
    if not bounded:
        log = jnp.where(s > _BELOW_S, jnp.log(1 + u + log), log)  # one fixed-point step
    v = u + log
    if u.dtype == jnp.float64:
        v = _halley_step(v, u)
    return v


def _halley_step(v: jax.Array, u: jax.Array) -> jax.Array:
    """Third-order step for v - log(1 + v) = u, v > -0.36."""
    # At 0 and inf the step is 0/0 and inf - inf; below 1e-150 its v^2 underflows.
    regular = (u > 1e-40) & (u < jnp.inf)
    v_safe, u_safe = jnp.where(regular, v, 1), jnp.where(regular, u, 1)
    left = jnp.where(v_safe < 0.45, x_minus_log1p_near_0(v_safe), v_safe - jnp.log1p(v_safe))
    newton = (left - u_safe) * ((1 + v_safe) / v_safe)
    step = newton / (1 - newton / (2 * v_safe * (1 + v_safe)))
    return jnp.where(regular, v - step, jnp.where(u < 1, jnp.sign(v) * jnp.sqrt(2 * u), v))


@jax.custom_jvp
@partial(jax.jit, inline=True)
def _offset_below(u: jax.Array) -> jax.Array:
    return jnp.where(u >= 0, offset_below(jnp.maximum(u, 0)), jnp.nan)


@_offset_below.defjvp
def _offset_below_jvp(primals: Any, tangents: Any) -> Any:
    (u,), (du,) = primals, tangents
    v = _offset_below(u)
    return v, (1 + 1 / v) * du


# -- lambertw_exp ----------------------------------------------------------------------------------


@jax.custom_jvp
@partial(jax.jit, inline=True)
def _lambertw_exp(x: jax.Array) -> jax.Array:
    is_large = x >= 2.99
    z = jnp.exp(jnp.minimum(x, 3.0))  # no overflow in the lanes that _large takes
    ratio = _middle_ratio(jnp.sqrt(2 * _above_branch_point(z)))
    w = jnp.where(is_large, _large(x), z * ratio)
    # log(z / W) from W / z where x is moderate: x - log(W) would cancel.
    log_z_over_w = jnp.where(is_large, x, 0) - jnp.log(jnp.where(is_large, w, ratio))
    return jnp.where(jnp.abs(x) < jnp.inf, _log_step(w, log_z_over_w - w), w)


@_lambertw_exp.defjvp
def _lambertw_exp_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    w = _lambertw_exp(x)
    # w / (1 + w), with stand-ins where it is inf / inf or 1 / w is 1 / 0.
    small = w < 1
    slope = jnp.where(
        small,
        jnp.where(small, w, 0) / (1 + jnp.where(small, w, 0)),
        1 / (1 + 1 / jnp.where(small, 1, w)),
    )
    return w, slope * dx
