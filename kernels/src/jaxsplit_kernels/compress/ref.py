"""Compression of one row in plain NumPy: the paper's stages one after another."""

import math

import numpy as np

from ..bitstream import ref as bitstream
from ..quantize import ref as quantize
from ..topk import ref as topk


def compress(
    x: np.ndarray, ratio: float, levels: int, uniform: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the values that arrive, float64 [n], and the bits of the row's stream.

    ``uniform`` [n], from [0, 1), decides the rounding.
    """
    k = min(max(math.floor(ratio * x.size + 0.5), 1), x.size)
    mask = topk.topk_mask(x, k)
    codes, _ = quantize.stochastic_quantize(x, mask, levels, uniform)
    kept = np.abs(x[mask].astype(np.float64))
    sign = np.where(np.signbit(x), -1, 1)
    values = quantize.dequantize(codes, sign, mask, kept.min(), kept.max(), levels)
    return values, bitstream.stream_bits(codes.tolist(), mask.tolist(), levels)
