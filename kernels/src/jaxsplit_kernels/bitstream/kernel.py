"""The exact length of the streams, in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._counting import count_each, sum_each
from ..quantize.kernel import Quantized, check_quantized
from . import layout

_BLOCK = 128  # entries of a block; blocks are scanned side by side
_GAP_BITS = _BLOCK.bit_length() - 1  # of the longest gap inside a block
_WORD = 32  # blocks of a word, one bit each
_LEVELS_PER_PASS = 16


def compressed_bits(q: Quantized) -> jax.Array:
    r"""Return the exact number of bits of the stream that `encode` writes for each row.

    Header, mask, signs, levels and CRC-32, each in the shorter of its codes: `layout` has the
    format. Computed from counts and sums alone, nothing is encoded (SFT, (9)).

    Args:
        q: quantized rows [..., n], n <= 2^26. Codes of entries that are not kept do not matter.

    Returns:
        int32 array [...], bits, a multiple of 8.

    Raises:
        ValueError: the fields of ``q`` do not fit each other, or rows are too long.

    Example:
        >>> import jax
        >>> from jaxsplit_kernels import compressed_bits, stochastic_quantize, topk_mask
        >>> x = jax.random.normal(jax.random.key(0), (2, 10_000))
        >>> q = stochastic_quantize(jax.random.key(1), x, topk_mask(x, 2000), levels=7)
        >>> bits = compressed_bits(q)
        >>> print(bits.shape, bits.dtype, (bits < 32 * 10_000 // 20).all())
        (2,) int32 True

    References:
        R. F. Rice, *Some practical universal noiseless coding techniques*, JPL 79-22, 1979.
    """
    check_quantized("compressed_bits", q)
    check_length("compressed_bits", q.codes.shape[-1])
    return stream_bits(jnp.where(q.mask, q.codes, 0), q.mask, q.levels)


def check_length(function: str, length: int) -> None:
    """Raise a ValueError if the bits of a row may exceed an int32."""
    if length > layout.MAX_ELEMENTS:
        raise ValueError(
            f"{function}: a row may have at most 2**26 entries, got {length}; "
            "split it into several rows."
        )


@jax.jit
def stream_bits(codes: jax.Array, mask: jax.Array, levels: jax.Array) -> jax.Array:
    """Return the bits of each row's stream; ``codes`` are 0 where ``mask`` is False."""
    length = codes.shape[-1]
    kept, above_low = count_each([mask, codes > 0])
    counts = level_counts(codes, levels).at[..., 0].set(kept - above_low)
    quotients = gap_quotients(mask, dropped=2 * kept > length)
    return layout.stream_bits(length, kept, quotients, counts, levels)


def level_counts(codes: jax.Array, levels: jax.Array) -> jax.Array:
    """Return how often each code occurs, [..., 256], from passes for the levels in use alone."""

    def count(i: jax.Array, counts: jax.Array) -> jax.Array:
        first = i * _LEVELS_PER_PASS
        tests = [codes == (first + j).astype(jnp.uint8) for j in range(_LEVELS_PER_PASS)]
        found = jnp.stack(count_each(tests), axis=-1)
        return lax.dynamic_update_slice_in_dim(counts, found, first, axis=-1)

    counts = jnp.zeros((*codes.shape[:-1], layout.MAX_LEVELS + 1), jnp.int32)
    passes = jnp.max(levels, initial=0) // _LEVELS_PER_PASS + 1
    return lax.fori_loop(0, passes, count, counts)


def gap_quotients(mask: jax.Array, dropped: jax.Array) -> jax.Array:
    """Return the sum of gap >> k over the gaps of each row, int32 [..., RICE_PARAMETERS].

    Gaps before each True of ``mask`` [..., n], or before each False where ``dropped`` [...]. Gaps
    between entries of one block of the row and gaps that cross the bounds of blocks are summed
    apart: the former by counters of a few bits, the latter one by one.
    """
    inner, first, last = _scan_blocks(_transposed_words(mask, dropped))
    across = _quotients_across(first, last)
    # Before the first True of a block and after the last, the counters ran as well.
    lead, trail = first, jnp.where(last >= 0, _BLOCK - 1 - last, 0)
    ends = jnp.stack(sum_each([(lead >> k) + (trail >> k) for k in range(_GAP_BITS)]), axis=-1)
    return across.at[..., :_GAP_BITS].add(inner - ends)


def _transposed_words(mask: jax.Array, dropped: jax.Array) -> jax.Array:
    """Pack entry o of 32 blocks of the mask, or of its complement, into a word.

    Returns uint32 [_BLOCK, ..., W]. The last word is filled up with entries that are not coded.
    """
    size = _BLOCK * _WORD
    length = mask.shape[-1]
    whole, missing = length // size * size, -length % size
    tail = jnp.pad(mask[..., whole:], [(0, 0)] * (mask.ndim - 1) + [(0, missing)])
    parts = [_packed(part) for part in (mask[..., :whole], tail) if part.shape[-1]]
    words = jnp.concatenate(parts, axis=-2)
    words = jnp.where(dropped[..., None, None], ~words, words)
    in_row = _packed(np.arange(words.shape[-2] * size) < length)
    return jnp.moveaxis(words & jnp.broadcast_to(in_row, words.shape), -1, 0)


def _packed(mask: Any) -> jax.Array:
    """Pack bool [..., 32 W _BLOCK] to uint32 [..., W, _BLOCK]."""
    blocks = jnp.reshape(mask, (*mask.shape[:-1], -1, _WORD, _BLOCK)).astype(jnp.uint32)
    block = lax.broadcasted_iota(jnp.uint32, blocks.shape, blocks.ndim - 2)
    return lax.reduce(blocks << block, jnp.uint32(0), lax.bitwise_or, (blocks.ndim - 2,))


def _scan_blocks(words: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scan all blocks at once, one entry a step.

    A counter per block counts the entries passed over and restarts after a True; its carries out of
    bit k - 1 are the units of gap >> k. A word holds one bit of the counters of 32 blocks, so that
    a step takes a few instructions a word.

    Returns:
        Sum of gap >> k for k < _GAP_BITS, ends of blocks included, int32 [..., _GAP_BITS]; index of
        the first and of the last True of each block, int32 [..., 32 W], _BLOCK and -1 without one.
    """
    zeros = jnp.zeros(words.shape[1:], jnp.uint32)
    shape = (*zeros.shape, _WORD)
    block = lax.broadcasted_iota(jnp.uint32, shape, zeros.ndim)

    def step(carry: tuple, entry: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
        counter, units, first, last = carry
        index, is_true = entry
        increment, raised, counted = ~is_true, [], []
        for k in range(_GAP_BITS):
            counted.append(units[k] + lax.population_count(increment).astype(jnp.int32))
            raised.append((counter[k] ^ increment) & ~is_true)
            increment = counter[k] & increment
        here = (is_true[..., None] >> block) & 1 == 1
        first = jnp.where(here, jnp.minimum(first, index), first)
        return (raised, counted, first, jnp.where(here, index, last)), None

    start = (
        [zeros] * _GAP_BITS,
        [zeros.astype(jnp.int32)] * _GAP_BITS,
        jnp.full(shape, _BLOCK, jnp.int32),
        jnp.full(shape, -1, jnp.int32),
    )
    (_, units, first, last), _ = lax.scan(step, start, (jnp.arange(_BLOCK, dtype=jnp.int32), words))
    inner = jnp.stack([unit.sum(-1, dtype=jnp.int32) for unit in units], axis=-1)
    rows = words.shape[1:-1]
    return inner, first.reshape(*rows, -1), last.reshape(*rows, -1)


def _quotients_across(first: jax.Array, last: jax.Array) -> jax.Array:
    """Return the sum of gap >> k over the gaps that end at the first True of a block."""
    start = _BLOCK * lax.broadcasted_iota(jnp.int32, last.shape, last.ndim - 1)
    last_so_far = lax.cummax(jnp.where(last >= 0, start + last, -1), axis=last.ndim - 1)
    before = jnp.concatenate([jnp.full_like(last[..., :1], -1), last_so_far[..., :-1]], axis=-1)
    gap = jnp.where(last >= 0, start + first - before - 1, 0)
    return jnp.stack(sum_each([gap >> k for k in range(layout.RICE_PARAMETERS)]), axis=-1)
