r"""The stream of one row: what is in it, in which order, and how many bits each part takes.

A stream is a whole number of bytes. Bits fill a byte from its highest on, numbers of a fixed width
stand with their highest bit first:

====================  =========================================================================
header                20 bytes, little-endian: magic, version, levels E, modes (1 byte each);
                      row length n, number kept K (uint32); low, high (float32)
counts                with ANS levels only: how often each level 0 .. E - 1 occurs, plus one, in
                      Elias' gamma code (as many zeros as follow its leading bit, then the number);
                      level E has the rest
signs                 1 bit per kept entry, 1 for negative
levels                of the kept entries; raw: as many bits each as E needs; or ANS
mask                  Golomb-Rice code of its gaps: first every remainder, gap mod 2^k in k bits,
                      then every quotient, gap // 2^k zeros and a one; or ANS: one symbol per entry,
                      0 dropped and 1 kept
padding               zeros, up to a whole byte
CRC-32                4 bytes, little-endian, of everything before it
====================  =========================================================================

Modes: bits 0 to 4 the Rice parameter k; bit 5 set where the gaps lead from one *dropped* entry to
the next (more than half of the entries are kept); bit 6 set for the ANS code of the levels; bit 7
set for that of the mask, and then bits 0 to 5 are 0. A gap is the number of entries passed over. k
is the cheapest (the smallest of equals); ANS is taken where it needs fewer bits.

An ANS section has the `ans_bits` lowest bits of the coder's state: its 32-bit words as one number,
the lowest bit first.

The functions here use integer arithmetic only and take their functions from the arrays that they
get, so that NumPy on the host and JAX under jit find the same number. All arrays are int32.
"""

import struct
from typing import Any

import numpy as np

from ..quantize.kernel import MAX_LEVELS as MAX_LEVELS

MAGIC, VERSION = 0x4A, 1
HEADER = struct.Struct("<BBBBIIff")
CRC = struct.Struct("<I")
DROPPED_GAPS, ANS_LEVELS, ANS_MASK = 0x20, 0x40, 0x80
RICE_MASK = 0x1F

MAX_ELEMENTS = 2**26  # of a row: its bits still fit an int32
RICE_PARAMETERS = 26  # 0 .. 25: a row has at most 2^26 entries

# An rANS coder with a 64-bit state, 32-bit words and 24-bit probabilities loses at most
# log2(1 + 2^-8) bits per symbol, plus 256 / 2^24 / ln 2 because every symbol keeps a probability.
_FRACTION = 12  # bits behind the point of a fixed-point logarithm
_ANS_LOSS = 25  # 0.0056 + 0.00002 bits, rounded up
_LOG2_ERROR = 3  # `_log2` is too small by less
_LOG2_MANTISSA = np.floor(np.log2(1 + np.arange(2**12) / 2**12) * 2**_FRACTION).astype(np.int32)


def stream_bits(length: int, kept: Any, quotients: Any, counts: Any, levels: Any) -> Any:
    """Bits of a stream, a multiple of 8.

    Args:
        length: entries of the row, n <= MAX_ELEMENTS.
        kept: K, int32 [...].
        quotients: sum over all gaps of gap // 2^k, int32 [..., RICE_PARAMETERS] (k).
        counts: how often each level occurs, int32 [..., MAX_LEVELS + 1].
        levels: E, int32 [...].
    """
    xp = counts.__array_namespace__()
    # Both ANS codes at once: the mask's two symbols in an array of as many as there are levels.
    symbol = _last_axis(kept, MAX_LEVELS + 1)
    dropped_or_kept = xp.where(symbol == 0, length - kept[..., None], kept[..., None])
    mask_counts = xp.where(symbol < 2, dropped_or_kept, 0)
    ans = _ans_bits(
        xp.stack([mask_counts, counts]),
        total=xp.stack([xp.full_like(kept, length), kept]),
        listed=xp.stack([xp.zeros_like(counts), _gamma_bits(counts, levels)]),
    )
    mask_bits = xp.minimum(gap_bits(length, kept, quotients).min(-1), ans[0])
    level_bits = xp.minimum(raw_level_bits(kept, levels), ans[1])
    return 8 * (HEADER.size + CRC.size + (level_bits + kept + mask_bits + 7) // 8)


def ans_mask_bits(length: int, kept: Any) -> Any:
    """Bits of the mask coded by ANS."""
    return ans_bits(kept.__array_namespace__().stack([length - kept, kept], -1))


def number_of_gaps(length: int, kept: Any) -> Any:
    """Entries whose gaps are coded: the kept or the dropped ones, whichever are fewer."""
    xp = kept.__array_namespace__()
    return xp.minimum(kept, length - kept)


def gap_bits(length: int, kept: Any, quotients: Any) -> Any:
    """Bits of the gaps for each Rice parameter, [..., RICE_PARAMETERS]."""
    return (
        number_of_gaps(length, kept)[..., None] * (1 + _last_axis(kept, RICE_PARAMETERS))
        + quotients
    )


def raw_level_bits(kept: Any, levels: Any) -> Any:
    """Bits of the levels in a code of fixed width."""
    return kept * bit_length(levels)


def ans_level_bits(counts: Any, levels: Any) -> Any:
    """Bits of the levels coded by ANS, with the table of counts."""
    return _ans_bits(counts, counts.sum(-1, dtype=np.int32), _gamma_bits(counts, levels))


def _gamma_bits(counts: Any, levels: Any) -> Any:
    """Bits of each entry in the table of counts [..., MAX_LEVELS + 1]; 0 where there is none."""
    is_listed = _last_axis(levels, MAX_LEVELS + 1) < levels[..., None]
    return counts.__array_namespace__().where(is_listed, 2 * bit_length(counts + 1) - 1, 0)


def ans_bits(counts: Any) -> Any:
    r"""Bits that are enough for the ANS code of symbols that occur ``counts`` [..., symbols] times.

    The coder starts empty and fills its first word at no known rate. From then on a symbol that
    occurs c times in K adds at most log2(K / c) bits and the loss. So its state ends below
    $2^{32 + \mathrm{info}}$, which has at most info + 33 bits.
    """
    return _ans_bits(counts, counts.sum(-1, dtype=np.int32), 0)


def _ans_bits(counts: Any, total: Any, listed: Any) -> Any:
    """`ans_bits` of counts with their sum, and the bits that each of them takes in a table."""
    cost = (_log2(total) + (_LOG2_ERROR + _ANS_LOSS))[..., None] - _log2(counts)
    cost = counts.__array_namespace__().where(counts > 0, cost, 0)
    # The sum of counts * cost in two parts, for it exceeds an int32.
    high, low = (counts >> 13) * cost, (counts & 0x1FFF) * cost
    whole = listed + high * 2 ** (13 - _FRACTION) + (low >> _FRACTION)
    rest = (low & (2**_FRACTION - 1)).sum(-1, dtype=np.int32) >> _FRACTION
    return whole.sum(-1, dtype=np.int32) + rest + 33


def bit_length(x: Any) -> Any:
    """Bits of the binary number x, x >= 0; 0 for 0."""
    # From the exponent as a float32. Without the second of its bits x cannot round up to the next
    # power of two.
    exponent = (x & ~(x >> 1)).astype(np.float32).view(np.int32) >> 23
    return x.__array_namespace__().maximum(exponent - 126, 0)


def _last_axis(x: Any, size: int) -> np.ndarray:
    """Return 0 .. size - 1 in an axis behind those of x."""
    return np.arange(size, dtype=np.int32).reshape((1,) * x.ndim + (size,))


def _log2(x: Any) -> Any:
    """Return 2^12 log2(x), rounded down, too small by less than _LOG2_ERROR; any number at 0."""
    xp = x.__array_namespace__()
    exponent = bit_length(x | 1) - 1
    mantissa = (x << (26 - exponent)) >> 14  # its 13 leading bits, the first of them 1
    return (exponent << _FRACTION) + xp.asarray(_LOG2_MANTISSA)[mantissa & 0xFFF]
