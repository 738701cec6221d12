"""Rows of real numbers, seen as bit patterns, and the check of what comes in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._elementary import real_floating

# Patterns of float32 magnitudes, as int32. They order magnitudes as their values do.
TINY_BITS = 0x00800000  # the least normal number
INF_BITS = 0x7F800000
NAN_BITS = 0x7FC00000


def rows(function: str, x: Any) -> jax.Array:
    """Return ``x`` as an array [..., n]; a ValueError unless it is real floating with n > 0."""
    array = real_floating(function, "x", x)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"{function}: x must have rows of at least one entry in its last axis, got shape "
            f"{array.shape}; pass an array [..., n] with n >= 1."
        )
    return array


def broadcast_rows(function: str, name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Broadcast ``array`` to ``shape``; a ValueError if it does not fit."""
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{function}: {name} must broadcast to shape {shape}, got shape {array.shape}; "
            f"reshape {name}."
        ) from None


def is_concrete(x: Any) -> bool:
    """Whether the values of ``x`` can be looked at now."""
    return not isinstance(x, jax.core.Tracer)


def is_within(x: Any, low: float, high: float) -> bool:
    """Whether all values are from low to high; of a traced ``x`` it cannot be known: True.

    Asks NumPy: under a trace, jnp would make a tracer of a Python number.
    """
    if not is_concrete(x):
        return True
    values = np.asarray(x)
    return bool(((values >= low) & (values <= high)).all())


def magnitude_bits(x: jax.Array) -> jax.Array:
    """Return the patterns of |x|, int32, or int64 for float64; any NaN is the greatest pattern."""
    if x.dtype == jnp.float64:
        bits = lax.bitcast_convert_type(x, jnp.int64) & jnp.int64(0x7FFFFFFFFFFFFFFF)
        return jnp.minimum(bits, jnp.int64(0x7FF0000000000001))
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32) & jnp.int32(0x7FFFFFFF)
    return jnp.minimum(bits, jnp.int32(INF_BITS + 1))
