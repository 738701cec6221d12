"""Many counts of the entries of a row in one pass over it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def count_each(tests: Sequence[jax.Array]) -> list[jax.Array]:
    """Return how many entries of the last axis are True, for each of two or more bool arrays."""
    return sum_each([test.astype(jnp.int32) for test in tests])


def sum_each(terms: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the sum over the last axis of each of two or more arrays.

    One reduction with several operands: XLA fuses it with what makes the operands, and reads the
    input once. On the CPU a reduction of one operand is not fused, it would write the operand to
    memory first. XLA drops what is not used: use two of the results at least.
    """
    zeros = [jnp.zeros((), term.dtype) for term in terms]
    axis = terms[0].ndim - 1
    return list(lax.reduce(list(terms), zeros, _add_each, (axis,)))


def _add_each(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
    return [p + q for p, q in zip(a, b, strict=True)]
