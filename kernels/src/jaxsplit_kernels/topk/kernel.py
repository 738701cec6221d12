"""The k greatest magnitudes of each row, by bisection on their bit patterns, in JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._counting import count_each, sum_each
from .._rows import broadcast_rows, is_within, magnitude_bits, rows

_BLOCK = 128  # entries of a row that are counted together to place ties


def topk_mask(x: Any, k: Any) -> jax.Array:
    r"""Mark the k greatest magnitudes of each row: exactly k, the first ones among equals.

    The bit pattern of a magnitude, read as an integer, orders as the magnitude does. The k-th
    greatest pattern is found digit by digit: each pass over the row counts what reaches three
    thresholds. 16 passes for a float32, none of which sorts or moves an entry (SFT, section IV-A).

    Args:
        x: real floating array [..., n].
        k: number of entries to keep, an integer from 0 to n, of a shape that broadcasts to
            ``x.shape[:-1]``. May be traced, then it is clipped to that range: a sweep over k is one
            trace.

    Returns:
        bool array of the shape of ``x``, k True in each row. NaN counts as the greatest magnitude,
        so that it is kept and seen. No gradient passes.

    Raises:
        ValueError: ``x`` is not real floating, empty or of rank 0; ``k`` is not an integer, is
            negative or greater than n, or does not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsplit_kernels import topk_mask
        >>> print(topk_mask(jnp.array([0.5, -4.0, 0.5, 2.0, -0.5]), 3))
        [ True  True False  True False]
        >>> x = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
        >>> print(topk_mask(x, jnp.array([1, 2])))
        [[False False  True]
         [ True  True False]]

    References:
        *Split fine-tuning for large language models in wireless networks*, arXiv:2501.09237.
    """
    x = rows("topk_mask", x)
    k = _checked_k(k, x.shape)
    return _topk_mask(lax.stop_gradient(x), k)


class Cut(NamedTuple):
    """Which patterns of a row are kept: all above the least, and the least up to an index.

    Attributes:
        least: pattern of the k-th greatest magnitude, [...]; greater than all where k = 0.
        end: ties with the least are kept at indices below it, int32 [...].
        greatest: pattern of the greatest magnitude, [...].
    """

    least: jax.Array
    end: jax.Array
    greatest: jax.Array

    def kept(self, bits: jax.Array) -> jax.Array:
        """Return the mask of the kept entries of the patterns [..., n]."""
        least, end = self.least[..., None], self.end[..., None]
        return (bits > least) | ((bits == least) & (_index(bits) < end))


def cut_of(x: jax.Array, k: jax.Array) -> Cut:
    """Find the k greatest magnitudes of the rows of ``x`` [..., n], 0 <= k <= n of shape [...]."""
    least, above = _kth_greatest(x, k)
    ties, greatest = _block_counts(x, least)
    return Cut(least, _end_of_ties(x, least, k - above, ties), greatest.max(-1))


@jax.jit
def _topk_mask(x: jax.Array, k: jax.Array) -> jax.Array:
    return cut_of(x, k).kept(magnitude_bits(x))


def _kth_greatest(x: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the greatest pattern that at least k of the row reach, and how many exceed it.

    Each pass over the row decides two bits of it.
    """
    dtype = magnitude_bits(x).dtype

    def narrow(found: tuple[jax.Array, jax.Array], steps: jax.Array) -> tuple[tuple, None]:
        # The patterns do not depend on the pass: without the barrier XLA would take them out of the
        # loop, and write and read an array where they cost two instructions.
        row, (least, above) = lax.optimization_barrier((x, found))
        points = [least + step for step in steps]
        counts = count_each([magnitude_bits(row) >= point[..., None] for point in points])
        for count, point in zip(counts, points, strict=True):
            is_reached = count >= k
            least = jnp.where(is_reached, point, least)
            above = jnp.where(is_reached, above, jnp.maximum(above, count))
        return (least, above), None

    # The sign bit is 0; of the other bits, odd in number, the last pass decides one.
    shifts = range(jnp.iinfo(dtype).bits - 3, 0, -2)
    steps = [[digit << shift for digit in (1, 2, 3)] for shift in shifts] + [[1, 1, 1]]
    start = jnp.zeros(k.shape, dtype), jnp.zeros_like(k)
    found, _ = lax.scan(narrow, start, jnp.array(steps, dtype))
    return found


def _block_counts(x: jax.Array, least: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return per block of a row: how many patterns equal the least, and the greatest pattern."""
    whole = x.shape[-1] // _BLOCK * _BLOCK
    parts = [x[..., :whole].reshape(*x.shape[:-1], -1, _BLOCK), x[..., None, whole:]]
    counts = [_counts_of_blocks(magnitude_bits(part), least) for part in parts if part.size]
    ties, greatest = (jnp.concatenate(c, axis=-1) for c in zip(*counts, strict=True))
    return ties, greatest


def _counts_of_blocks(bits: jax.Array, least: jax.Array) -> list[jax.Array]:
    operands = [(bits == least[..., None, None]).astype(jnp.int32), bits]
    counts = lax.reduce(
        operands,
        [jnp.int32(0), jnp.zeros((), bits.dtype)],
        lambda a, b: [a[0] + b[0], lax.max(a[1], b[1])],
        (bits.ndim - 1,),
    )
    # Both stay, used or not: alone, the ties would be written to memory first (`sum_each`).
    return lax.optimization_barrier(counts)


def _end_of_ties(x: jax.Array, least: jax.Array, quota: jax.Array, ties: jax.Array) -> jax.Array:
    """Return the index behind tie number ``quota`` of each row, given the ties of its blocks."""
    block, before = _block_of_tie(ties, quota)
    first = jnp.broadcast_to(block[..., None] * _BLOCK, (*block.shape, _BLOCK))
    index = first + _index(first)
    in_row = index < x.shape[-1]
    entries = jnp.take_along_axis(x, jnp.where(in_row, index, 0), axis=-1)
    is_tie = (magnitude_bits(entries) == least[..., None]) & in_row
    # A cumulative sum, exact in float32: as a product it compiles in a fraction of the time.
    rank = is_tie.astype(jnp.float32) @ np.triu(np.ones((_BLOCK, _BLOCK), np.float32))
    left = (quota - before).astype(jnp.float32)
    end = block * _BLOCK + (rank < left[..., None]).sum(-1, dtype=jnp.int32) + 1
    return jnp.where(quota > 0, end, 0)


def _block_of_tie(ties: jax.Array, quota: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the block with tie number ``quota`` of each row, and the ties in those before it.

    Two bits of the block's index a step; a cumulative sum takes XLA longer to compile.
    """
    digits = (ties.shape[-1].bit_length() + 1) // 2

    def go_on(found: tuple[jax.Array, jax.Array], step: jax.Array) -> tuple[tuple, None]:
        block, before = found
        ends = [block + digit * step for digit in (1, 2, 3)]
        sums = sum_each([jnp.where(_index(ties) < end[..., None], ties, 0) for end in ends])
        for total, end in zip(sums, ends, strict=True):
            is_short = total < quota
            block, before = jnp.where(is_short, end, block), jnp.where(is_short, total, before)
        return (block, before), None

    steps = jnp.array([4**digit for digit in reversed(range(digits))], jnp.int32)
    found, _ = lax.scan(go_on, (jnp.zeros_like(quota), jnp.zeros_like(quota)), steps)
    return found


def _index(bits: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(jnp.int32, bits.shape, bits.ndim - 1)


def _checked_k(k: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return k as int32 [...], clipped if traced."""
    array, length = jnp.asarray(k), shape[-1]
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"topk_mask: k must be an integer, got {k!r} of {array.dtype}; "
            "for a ratio r pass int(r * n + 0.5)."
        )
    if not is_within(k, 0, length):
        raise ValueError(
            f"topk_mask: k must be from 0 to the row length {length}, got {k!r}; "
            f"pass min(k, {length})."
        )
    return broadcast_rows(
        "topk_mask", "k", jnp.clip(array, 0, length).astype(jnp.int32), shape[:-1]
    )
