"""Bits that cross the link."""

import math
from typing import Any, NamedTuple

import jax


class Payload(NamedTuple):
    """What one scheduled device exchanges with the server in a round."""

    up_bits: int  # device → server
    down_bits: int  # server → device

    @property
    def total_bits(self) -> int:
        """L, both directions."""
        return self.up_bits + self.down_bits


def bits_of(tree: Any) -> int:
    """Size of a pytree of arrays on the link, in bit; a truth value is one bit.

    Args:
      tree: arrays, or their shapes and dtypes (`jax.eval_shape`).

    Returns:
      The exact number of bits, a Python integer.

    Example:
      >>> import jax.numpy as jnp
      >>> bits_of({"tokens": jnp.zeros((16, 17, 32))})
      278528
    """

    def bits_of_value(leaf: Any) -> int:
        return 1 if leaf.dtype == bool else 8 * leaf.dtype.itemsize

    return sum(bits_of_value(leaf) * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
