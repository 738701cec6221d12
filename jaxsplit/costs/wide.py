"""Exact sums of bits that do not fit into 32 of them: two words inside jit, int64 on the host."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_LOW_BITS = 16
_LOW = (1 << _LOW_BITS) - 1


def wide_sum(bits: jax.Array) -> jax.Array:
    """Exact sum over the last axis, as two words.

    Args:
      bits: int32 [..., M], not negative, M <= 32,768.

    Returns:
      int32 [..., 2], (high, low) with the value high · 2^16 + low, 0 <= low < 2^16.

    Example:
      >>> total = wide_sum(jnp.full((3,), 2_000_000_000, jnp.int32))
      >>> int(wide_value(total))
      6000000000
    """
    high = jnp.sum(bits >> _LOW_BITS, axis=-1, dtype=jnp.int32)
    low = jnp.sum(bits & _LOW, axis=-1, dtype=jnp.int32)
    return _carried(high, low)


def wide_add(a: jax.Array, b: jax.Array) -> jax.Array:
    """Exact sum of two numbers in two words, below 1.4e14.

    Args:
      a: int32 [..., 2], see `wide_sum`.
      b: likewise.

    Returns:
      int32 [..., 2].

    Example:
      >>> one = wide_sum(jnp.array([2**31 - 1], jnp.int32))
      >>> int(wide_value(wide_add(one, one)))
      4294967294
    """
    return _carried(a[..., 0] + b[..., 0], a[..., 1] + b[..., 1])


def wide_value(words: ArrayLike) -> np.ndarray:
    """The number itself, on the host.

    Args:
      words: [..., 2], see `wide_sum`.

    Returns:
      int64 [...].

    Example:
      >>> wide_value(np.array([[1, 2], [0, 7]]))
      array([65538,     7])
    """
    words = np.asarray(words, np.int64)
    return (words[..., 0] << _LOW_BITS) + words[..., 1]


def _carried(high: jax.Array, low: jax.Array) -> jax.Array:
    return jnp.stack([high + (low >> _LOW_BITS), low & _LOW], axis=-1)
