"""Bits that cross the link."""

import math
from typing import Any, NamedTuple

import jax


class Payload(NamedTuple):
    """What scheduled devices exchange with the server in a round, in bit.

    Integers for one device, or arrays of integers, such as [T, N].
    """

    activation_bits: Any = 0  # up, with padding masks
    gradient_bits: Any = 0  # down, of the activations
    feature_bits: Any = 0  # features down to a head on the device, and as many for gradients up
    weight_bits: Any = 0  # down, what a device trains together with others
    upload_bits: Any = 0  # up, its change, or its gradient: as many, or fewer by a codec

    @property
    def up_bits(self) -> Any:
        """Device → server."""
        return self.activation_bits + self.feature_bits + self.upload_bits

    @property
    def down_bits(self) -> Any:
        """Server → device."""
        return self.gradient_bits + self.feature_bits + self.weight_bits

    @property
    def total_bits(self) -> Any:
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
