"""Real Lambert W: branches 0 and -1 for every float dtype."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# W = -1 + p - p²/3 + 11/72 p³ - … around the branch point, p = ±sqrt(2(1 + e z)), from the
# recurrence of Corless et al. (1996), (4.23)-(4.24). The terms shrink like (p/√2)^k.
_SERIES_TERMS = 28
# Below this |p| the series is used: Fritsch's step divides its rounding error by 1 + W.
_SERIES_LIMIT = {4: 0.8, 8: 0.38}  # by item size
_FRITSCH_STEPS = {4: 2, 8: 3}
# 1/e = inv_e + rest, where inv_e is the nearest float of the item size.
_INV_E_REST = {4: math.exp(-1) - float(np.float32(math.exp(-1))), 8: -1.2428753672788363e-17}


def _branch_point_series() -> np.ndarray:
    """Coefficients of W + 1 in powers of p, without the constant, highest power first."""
    mu, alpha = [-1.0, 1.0], [2.0, -1.0]
    for k in range(2, _SERIES_TERMS + 1):
        alpha.append(sum(mu[j] * mu[k + 1 - j] for j in range(2, k)))
        last = (k - 1) / (k + 1) * (mu[k - 2] / 2 + alpha[k - 2] / 4)
        mu.append(last - alpha[k] / 2 - mu[k - 1] / (k + 1))
    return np.array(mu[:0:-1])


_SERIES = _branch_point_series()


def _initial_guess(z: jax.Array, branch: int) -> jax.Array:
    """Within ten per cent of W wherever the series is not used."""
    if branch == 0:  # Winitzki's approximation
        log1z = jnp.log1p(z)
        return log1z * (1 - jnp.log1p(log1z) / (2 + log1z))
    log_z = jnp.log(-z)
    log_log = jnp.log(-log_z)
    return log_z - log_log + log_log / log_z


def _fritsch_step(w: jax.Array, z: jax.Array, branch: int) -> jax.Array:
    """One fourth-order step (Fritsch, Shafer and Crowley 1973).

    Written on logarithms: w·e^w would overflow, and its difference from z cancels. On branch -1
    z/w may be subnormal, which CPUs flush to zero.
    """
    log_ratio = jnp.log(z / w) if branch == 0 else jnp.log(-z) - jnp.log(-w)
    residual = log_ratio - w
    one_plus_w = 1 + w
    q = 2 * one_plus_w * (one_plus_w + residual * (2 / 3))
    return w * (1 + residual / one_plus_w * (q - residual) / (q - 2 * residual))


def _evaluate(z: jax.Array, branch: int) -> tuple[jax.Array, jax.Array]:
    """`(W, 1 + W)`, the latter with all its digits near the branch point."""
    dtype = z.dtype
    inv_e, rest = np.array(math.exp(-1), dtype), _INV_E_REST[dtype.itemsize]
    # z + 1/e in two pieces: the first sum is exact near the branch point, and scaling the pieces
    # apart keeps XLA from folding inv_e + rest, which would lose `rest`.
    above = z + inv_e
    p = jnp.sqrt(jnp.maximum(2 * math.e * above + 2 * math.e * rest, 0))
    p = p if branch == 0 else -p
    near = jnp.abs(p) < _SERIES_LIMIT[dtype.itemsize]
    near_one_plus_w = p * jnp.polyval(jnp.asarray(_SERIES, dtype), jnp.where(near, p, 0))

    # Elsewhere, on arguments that cannot produce NaN in the branch that is thrown away.
    ordinary = (above >= 0) & ~near & jnp.isfinite(z) & (z != 0)
    ordinary &= (z < 0) if branch == -1 else True
    safe_z = jnp.where(ordinary, z, 1.0 if branch == 0 else -0.2)
    w = _initial_guess(safe_z, branch)
    for _ in range(_FRITSCH_STEPS[dtype.itemsize]):
        w = _fritsch_step(w, safe_z, branch)

    w = jnp.where(near, near_one_plus_w - 1, w)
    if branch == 0:
        w = jnp.where(z == 0, z, jnp.where(z == jnp.inf, jnp.inf, w))
        valid = above >= 0
    else:
        w = jnp.where(z == 0, -jnp.inf, w)
        valid = (above >= 0) & (z <= 0)
    one_plus_w = jnp.where(near, near_one_plus_w, 1 + w)
    return jnp.where(valid, w, jnp.nan), jnp.where(valid, one_plus_w, jnp.nan)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _one_plus_w(z: jax.Array, branch: int) -> jax.Array:
    return _evaluate(z, branch)[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _w(z: jax.Array, branch: int) -> jax.Array:
    return _evaluate(z, branch)[0]


def _slope(branch: int, z: jax.Array) -> jax.Array:
    """W'(z) = e^(-W)/(1 + W), through 1 + W so that it is right, and differentiable, near -1/e."""
    one_plus_w = _one_plus_w(z, branch)
    return jnp.exp(1 - one_plus_w) / one_plus_w


def _jvp(branch: int, primals: tuple, tangents: tuple, *, plus_one: bool) -> tuple:
    (z,), (dz,) = primals, tangents
    value = _one_plus_w(z, branch) if plus_one else _w(z, branch)
    return value, _slope(branch, z) * dz


_one_plus_w.defjvp(functools.partial(_jvp, plus_one=True))
_w.defjvp(functools.partial(_jvp, plus_one=False))


@functools.partial(jax.jit, static_argnames="branch")
def lambertw(z: jax.Array, branch: int = 0) -> jax.Array:
    r"""Real Lambert W function, the inverse of $W \mapsto W e^W$.

    $W(z)\,e^{W(z)} = z$ (Corless et al. 1996, (1.5)); branch 0 is the solution $W \ge -1$ for
    $z \ge -1/e$, branch -1 the solution $W \le -1$ for $-1/e \le z < 0$. Near the branch point
    the value comes from a series, elsewhere from a fixed number of
    fourth-order steps: every element costs
    the same.

    Args:
      z: any shape, real floating dtype; float16 and bfloat16 are computed in float32.
      branch: 0 or -1, static.

    Returns:
      W(z), shape and dtype of `z`. NaN outside the domain. By convention -1 at the float
      nearest to -1/e, which lies just outside. $W_0(\infty) = \infty$,
      $W_{-1}(\pm 0) = -\infty$. The derivative at -1/e is ±inf.

    Raises:
      ValueError: `branch` is neither 0 nor -1.
      TypeError: `z` is not real floating.

    Example:
      >>> import jax.numpy as jnp
      >>> w = lambertw(jnp.array([-0.2, -0.3, -0.4]), branch=-1)
      >>> [round(float(x), 4) for x in w]
      [-2.5426, -1.7813, nan]

    Reference:
      R. M. Corless, G. H. Gonnet, D. E. G. Hare, D. J. Jeffrey, D. E. Knuth, "On the Lambert W
      function", Advances in Computational Mathematics 5, 1996.
    """
    if branch not in (0, -1):
        raise ValueError(f"branch={branch!r}: the real branches are 0 and -1")
    z = jnp.asarray(z)
    if not jnp.issubdtype(z.dtype, jnp.floating):
        raise TypeError(f"z has dtype {z.dtype}: convert it to a real floating dtype first")
    wide = z.dtype if z.dtype.itemsize >= 4 else jnp.float32
    return _w(z.astype(wide), branch).astype(z.dtype)
