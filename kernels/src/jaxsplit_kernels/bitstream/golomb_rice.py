"""Golomb-Rice code of the gaps of a row and codes of numbers, on arrays of bits (uint8, 0 or 1).

A gap g goes as its remainder g mod 2^k in k bits and its quotient g // 2^k in unary: that many
zeros and a one. All remainders stand before all quotients, so that both are found by array
operations: nothing here visits the gaps one by one.
"""

import numpy as np

from .layout import RICE_PARAMETERS


def gaps_of(positions: np.ndarray) -> np.ndarray:
    """Return the entries passed over before each of the increasing positions, uint32."""
    return (np.diff(positions, prepend=-1) - 1).astype(np.uint32)


def positions_of(gaps: np.ndarray) -> np.ndarray:
    """Return the positions that the gaps lead to, int64."""
    return np.cumsum(gaps.astype(np.int64) + 1) - 1


def quotient_sums(gaps: np.ndarray) -> np.ndarray:
    """Return the sum of gap // 2^k for every Rice parameter k, int32 [RICE_PARAMETERS]."""
    sums = np.zeros(RICE_PARAMETERS, np.int32)
    for k in range(RICE_PARAMETERS):
        sums[k] = gaps.sum()
        if sums[k] == 0:
            break
        gaps = gaps >> 1
    return sums


def write(gaps: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits of the remainders and those of the quotients."""
    ones = np.cumsum((gaps >> k) + 1) - 1
    quotients = np.zeros(ones[-1] + 1 if ones.size else 0, np.uint8)
    quotients[ones] = 1
    return write_fixed(gaps, k), quotients


def read(remainders: np.ndarray, ones: np.ndarray, k: int) -> np.ndarray:
    """Return the gaps, int64, from the remainders' bits and where the quotients' ones are."""
    gaps = np.diff(ones, prepend=-1) - 1
    gaps <<= k
    gaps |= read_fixed(remainders, k, ones.size)
    return gaps


def write_gamma(values: np.ndarray) -> np.ndarray:
    """Return Elias' gamma code of each value plus one."""
    digits = [f"{value + 1:b}" for value in values.tolist()]
    text = "".join("0" * (len(number) - 1) + number for number in digits)
    return np.frombuffer(text.encode(), np.uint8) - np.uint8(ord("0"))


def write_fixed(values: np.ndarray, width: int) -> np.ndarray:
    """Return the ``width`` low bits of each value, the highest first."""
    bits = np.empty((values.size, width), np.uint8)
    for j in range(width):
        bits[:, j] = values >> (width - 1 - j) & 1
    return bits.reshape(-1)


def read_fixed(bits: np.ndarray, width: int, count: int) -> np.ndarray:
    """Return ``count`` values of ``width`` bits each, uint32."""
    columns = bits.reshape(count, width)
    values = np.zeros(count, np.uint32)
    for j in range(width):
        values <<= 1
        values |= columns[:, j]
    return values
