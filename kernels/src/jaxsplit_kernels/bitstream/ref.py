"""Streams bit by bit, in plain Python: what `layout` counts and `codec` writes by array operations.

Slow; whole numbers only, whose size Python does not limit. One row at a time.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """What a stream says, before dequantization; codes and signs are 0 where not kept."""

    codes: list[int]
    sign: list[int]
    mask: list[bool]
    low: float
    high: float
    levels: int


def stream_bits(codes: Sequence[int], mask: Sequence[bool], levels: int) -> int:
    """Return the bits of a row's stream, counted one section after another."""
    n, kept_codes = len(mask), [int(c) for c, m in zip(codes, mask, strict=True) if m]
    kept = len(kept_codes)
    signs = sum(1 for _ in kept_codes)

    raw = sum(_width(levels) for _ in kept_codes)
    counts = [kept_codes.count(e) for e in range(levels + 1)]
    table = sum(2 * _width(c + 1) - 1 for c in counts[:-1])
    level_bits = min(raw, table + ans_bits(counts))

    coded = [bool(m) == (2 * kept <= n) for m in mask]
    gap_bits = min(
        sum(gap // 2**k + 1 + k for gap in _gaps(coded)) for k in range(_width(2**26 - 1))
    )
    mask_bits = min(gap_bits, ans_bits([n - kept, kept]))

    bits = 20 * 8 + level_bits + signs + mask_bits
    while bits % 8:
        bits += 1
    return bits + 4 * 8


def ans_bits(counts: Sequence[int]) -> int:
    """Return the bits of an ANS code: 33 and those of an upper bound of its content.

    A symbol that occurs c times in K counts log2(K) - log2(c) + 28 / 4096 bits, where log2 is
    rounded down to a multiple of 1 / 4096 after its argument is cut to 13 binary digits.
    """
    kept = sum(counts)
    total = 0
    for c in counts:
        if c:
            total += c * (_log2(kept) - _log2(c) + 28)
    return total // 4096 + 33


@cache
def _log2(x: int) -> int:
    """Return 4096 log2(x), x cut to 13 digits, rounded down: 2^r <= x^4096 counts the digits."""
    digits = x.bit_length()
    leading = x >> digits - 13 if digits > 13 else x << 13 - digits
    return (leading**4096).bit_length() - 1 + 4096 * (digits - 13)


def read(stream: bytes) -> Row:
    """Return what a valid stream says; it asserts what the format promises."""
    magic, version, levels, modes, n, kept, low, high = struct.unpack("<BBBBIIff", stream[:20])
    assert (magic, version) == (0x4A, 1)
    assert struct.unpack("<I", stream[-4:]) == (zlib.crc32(stream[:-4]),)
    bits = [byte >> 7 - j & 1 for byte in stream[20:-4] for j in range(8)]
    at = 0

    def number(width: int) -> int:
        nonlocal at
        value = 0
        for _ in range(width):
            value = 2 * value + bits[at]
            at += 1
        return value

    def gamma() -> int:
        zeros = 0
        while number(1) == 0:
            zeros += 1
        return 2**zeros + number(zeros) - 1

    def ans_symbols(counts: list[int]) -> list[int]:
        nonlocal at
        size = ans_bits(counts)
        state = sum(bits[at + j] << j for j in range(size))
        at += size
        return _ans_symbols(state, counts)

    rice, dropped_gaps, ans_levels, ans_mask = (
        modes % 32, modes // 32 % 2, modes // 64 % 2, modes // 128,
    )  # fmt: skip
    counts = [gamma() for _ in range(levels)] if ans_levels else []
    negative = [number(1) for _ in range(kept)]
    if ans_levels:
        codes = ans_symbols([*counts, kept - sum(counts)])
    else:
        codes = [number(_width(levels)) for _ in range(kept)]

    if ans_mask:
        mask = [symbol == 1 for symbol in ans_symbols([n - kept, kept])]
    else:
        remainders = [number(rice) for _ in range(kept if not dropped_gaps else n - kept)]
        coded, position = [False] * n, -1
        for remainder in remainders:
            quotient = 0
            while number(1) == 0:
                quotient += 1
            position += 2**rice * quotient + remainder + 1
            coded[position] = True
        mask = [c != bool(dropped_gaps) for c in coded]
    assert len(bits) - at < 8
    assert not any(bits[at:])

    row = Row([0] * n, [0] * n, mask, low, high, levels)
    order = iter(zip(codes, negative, strict=True))
    for i in range(n):
        if mask[i]:
            row.codes[i], sign = next(order)
            row.sign[i] = -1 if sign else 1
    assert next(order, None) is None
    return row


def _gaps(coded: Sequence[bool]) -> list[int]:
    """Return how many entries are passed over before each coded one."""
    gaps, passed = [], 0
    for c in coded:
        if c:
            gaps.append(passed)
            passed = 0
        else:
            passed += 1
    return gaps


def _width(x: int) -> int:
    """Return the binary digits of x; 0 has none."""
    width = 0
    while 2**width <= x:
        width += 1
    return width


def _ans_symbols(state: int, counts: list[int]) -> list[int]:
    constriction: Any = import_module("constriction")  # it has no types
    words = []
    while state:
        words.append(state % 2**32)
        state //= 2**32
    coder = constriction.stream.stack.AnsCoder(np.array(words, np.uint32))
    model = constriction.stream.model.Categorical(np.array(counts, float), perfect=False)
    symbols = [int(symbol) for symbol in coder.decode(model, sum(counts))]
    assert coder.is_empty()
    return symbols
