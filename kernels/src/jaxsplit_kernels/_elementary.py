"""Elementary functions where a call to ``jnp.log1p`` would cancel, and the check of their input."""

from typing import Any

import jax
import jax.numpy as jnp


def real_floating(function: str, name: str, value: Any) -> jax.Array:
    """Return ``value`` as an array; raise a ValueError that names it unless it is real floating."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{function}: {name} must be real, got {value!r} of {array.dtype}; "
            f"pass {name}.real (only the real branches are computed)."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{function}: {name} must have a floating dtype, got {value!r} of {array.dtype}; "
            f"pass jnp.asarray({name}, jnp.float32)."
        )
    return array


def horner(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    """Evaluate a polynomial, constant term first."""
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def neg_log1m(d: jax.Array) -> jax.Array:
    r"""Return $-\log(1 - d)$ for $|d| < 0.35$ to about one ulp.

    XLA's float32 ``log1p`` errs by more, and costs more. With $r = d / (2 - d)$ the answer is
    $2\,\mathrm{artanh}\,r$, a short series whose corrections are small.
    """
    r = d / (2 - d)
    return 2 * (r + _artanh_tail(r))


def x_minus_log1p_near_0(x: jax.Array) -> jax.Array:
    r"""Return $x - \log(1 + x)$ for -0.36 < x < 0.45 with full relative accuracy, also at 0.

    Subtracting the two loses every digit near 0, where the answer is $x^2/2$. With
    $r = x / (2 + x)$ it is $x r - 2 (\mathrm{artanh}\,r - r)$: terms of size $x^2/2$, $x^3/12$.
    """
    r = x / (2 + x)
    return x * r - 2 * _artanh_tail(r)


def _artanh_tail(r: jax.Array) -> jax.Array:
    """Return artanh(r) - r for |r| < 0.22."""
    terms = 13 if r.dtype == jnp.float64 else 5
    square = r * r
    return r * square * horner(tuple(1 / (2 * k + 3) for k in range(terms)), square)
