"""The exact length of the streams, in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._counting import count_each, sum_each
from ..quantize.kernel import Quantized, check_quantized
from . import layout

_WORD = 32  # entries of a word, one bit each
_GAP_BITS = 5  # of the longest gap between two entries of a word
_LEVELS_PER_PASS = 8


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
    is_low = np.arange(layout.MAX_LEVELS + 1) == 0
    counts = level_counts(codes, levels)
    counts = jnp.where(
        jnp.broadcast_to(is_low, counts.shape), (kept - above_low)[..., None], counts
    )
    quotients = gap_quotients(mask, dropped=2 * kept > length)
    return layout.stream_bits(length, kept, quotients, counts, levels)


def level_counts(codes: jax.Array, levels: jax.Array) -> jax.Array:
    """Return how often each code occurs, [..., 256], from passes for the levels in use alone."""
    half = _LEVELS_PER_PASS // 2  # the levels of each operand of the reduction
    steps = np.arange(half, dtype=np.uint8).reshape(half, *[1] * codes.ndim)

    def count(i: jax.Array, counts: jax.Array) -> jax.Array:
        level = (i * _LEVELS_PER_PASS).astype(jnp.uint8) + steps
        found = jnp.concatenate(count_each([codes[None] == level, codes[None] == level + half]))
        return lax.dynamic_update_slice_in_dim(counts, found, i * _LEVELS_PER_PASS, axis=0)

    counts = jnp.zeros((layout.MAX_LEVELS + 1, *codes.shape[:-1]), jnp.int32)
    passes = jnp.max(levels, initial=0) // _LEVELS_PER_PASS + 1
    return jnp.moveaxis(lax.fori_loop(0, passes, count, counts), 0, -1)


def gap_quotients(mask: jax.Array, dropped: jax.Array) -> jax.Array:
    """Return the sum of gap >> k over the gaps of each row, int32 [..., RICE_PARAMETERS].

    Gaps before each True of ``mask`` [..., n], or before each False where ``dropped`` [...]. The
    row is packed into words. Gaps inside a word and gaps that end at the first True of a word are
    summed apart: the former all at once on the bits, the latter one by one.
    """
    words = _packed(mask ^ dropped[..., None])
    longest = mask.shape[-1].bit_length()
    sums = _quotients_inside(words), _quotients_across(words, min(longest, layout.RICE_PARAMETERS))
    rows = [(0, 0)] * dropped.ndim
    inside, across = (jnp.pad(s, [*rows, (0, layout.RICE_PARAMETERS - s.shape[-1])]) for s in sums)
    return inside + across


def _packed(mask: jax.Array) -> jax.Array:
    """Pack 32 entries of the last axis into a uint32, the first lowest; False behind the end."""
    mask = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, -mask.shape[-1] % _WORD)])
    fours = mask.astype(jnp.uint8).reshape(*mask.shape[:-1], -1, _WORD // 4, 4)
    fours = lax.bitcast_convert_type(fours, jnp.uint32)  # an entry in each byte, 0 or 1
    fours = fours * jnp.uint32(0x01020408) >> 24 & 0xF  # in each bit
    fours = fours << (4 * lax.broadcasted_iota(jnp.uint32, fours.shape, fours.ndim - 1))
    low, high = sum_each([fours[..., :4], fours[..., 4:]])
    return low + high


def _quotients_inside(words: jax.Array) -> jax.Array:
    """Return the sum of gap >> k over the gaps between two True of a word, [..., _GAP_BITS]."""
    above_first, up_to_last = words ^ -words, jnp.uint32(0xFFFFFFFF) >> lax.clz(words)
    # The units of gap >> k, a bit each at the last of 2^k entries; first those of k = 0.
    units = [~words & above_first & up_to_last]
    while len(units) < _GAP_BITS:
        units.append(_every_second(units[-1], words))
    counts = sum_each([lax.population_count(unit).astype(jnp.int32) for unit in units])
    return jnp.stack(counts, axis=-1)


def _every_second(units: jax.Array, words: jax.Array) -> jax.Array:
    """Return the second, the fourth, … of the units in each gap."""
    is_odd = units  # whether the number of units up to here is odd, from the word's start
    for shift in (1, 2, 4, 8, 16):
        is_odd = is_odd ^ is_odd << shift
    # The same before the gap: from a True where the number is odd, a carry clears the gap behind.
    was_odd = ~(~words + ((is_odd & words) << 1))
    return units & ~(is_odd ^ was_odd)


def _quotients_across(words: jax.Array, parameters: int) -> jax.Array:
    """Return the sum of gap >> k over the gaps that end at the first True of a word, [..., k]."""
    row = words.ndim - 1
    start = _WORD * lax.broadcasted_iota(jnp.int32, words.shape, row)
    is_empty = words == 0
    first = start + lax.population_count((words & -words) - 1).astype(jnp.int32)
    last = jnp.where(is_empty, -1, start + (_WORD - 1) - lax.clz(words).astype(jnp.int32))

    def shifted(position: jax.Array, count: Any) -> jax.Array:
        """Move the positions that many words on."""
        size = position.shape[row]
        filled = jnp.pad(position, [(0, 0)] * row + [(size, 0)], constant_values=-1)
        return lax.dynamic_slice_in_dim(filled, size - count, size, row)

    # The last True in any word before, by doubling: a cumulative maximum takes XLA longer to
    # compile.
    before = lax.fori_loop(
        0,
        (words.shape[row] - 1).bit_length(),
        lambda i, before: jnp.maximum(before, shifted(before, 1 << i)),
        shifted(last, 1),
    )
    gap = jnp.where(is_empty, 0, first - before - 1)[None]
    # Half of the parameters in each operand.
    half = -(-parameters // 2)
    k = np.arange(half, dtype=np.int32).reshape(half, *[1] * words.ndim)
    sums = jnp.concatenate(sum_each([gap >> k, gap >> (k + half)]))
    return jnp.moveaxis(sums, 0, -1)
