"""Stochastic quantization in plain NumPy float64, one row at a time, from the paper's rule."""

import numpy as np


def grid(low: float, high: float, levels: int) -> np.ndarray:
    """Return Q_e = low + e (high - low) / E, e = 0 .. E."""
    return low + np.arange(levels + 1) * (high - low) / levels


def stochastic_quantize(
    x: np.ndarray, mask: np.ndarray, levels: int, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes [n] and, for every entry, the probability that it was rounded up.

    All codes are 0 in a row of equal magnitudes. Else a kept magnitude between Q_e and Q_(e+1) goes
    up where ``uniform`` [n], from [0, 1), is less than (|x| - Q_e) / (Q_(e+1) - Q_e).
    """
    codes, rises = np.zeros(x.shape, int), np.zeros(x.shape)
    if not mask.any():
        return codes, rises
    magnitude = np.abs(np.asarray(x, np.float64))
    points = grid(magnitude[mask].min(), magnitude[mask].max(), levels)
    if points[0] == points[-1]:
        return codes, rises
    for i in np.flatnonzero(mask):
        e = min(int(np.searchsorted(points, magnitude[i], side="right")) - 1, levels - 1)
        rises[i] = (magnitude[i] - points[e]) / (points[e + 1] - points[e])
        codes[i] = e + (uniform[i] < rises[i])
    return codes, rises


def dequantize(
    codes: np.ndarray, sign: np.ndarray, mask: np.ndarray, low: float, high: float, levels: int
) -> np.ndarray:
    """Return sign Q_code where kept, else 0, for one row."""
    return np.where(mask, sign * grid(low, high, levels)[codes], 0.0)
