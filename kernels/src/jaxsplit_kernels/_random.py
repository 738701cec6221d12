"""Random bits that are computed where they are used instead of being stored."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def key_words(key: Any) -> jax.Array:
    """Return two random uint32 from a key of any kind."""
    return jax.random.bits(key, (2,), jnp.uint32)


def counter_bits(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return one random uint32 per element: a hash of its position under a two-word key.

    Two rounds of a 32-bit finalizer (xor-shift and multiply, full avalanche), keyed before each.
    JAX's own generator has more rounds and stores its bits (benchmarks/compress.py compares).
    """
    position = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        position += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    return _mix(_mix(position ^ words[0]) ^ words[1])


def _mix(h: jax.Array) -> jax.Array:
    """Finalizer `lowbias32` of Wellons (2018), an almost unbiased permutation of 32 bits."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)
