"""The bandwidth for a rate in plain NumPy float64, by another method than the kernel's."""

import numpy as np

ITERATIONS = 60


def bandwidth_for_rate(rate: np.ndarray, snr_hz: np.ndarray) -> np.ndarray:
    """Return b = y ln2 / v, where log(expm1(v) / v) = -log(c) by Newton's method from the right.

    The function is convex and increasing and at least v / 2, so from v = -2 log(c) the steps fall
    monotonically onto the root.
    """
    y, s = np.broadcast_arrays(np.asarray(rate, np.float64), np.asarray(snr_hz, np.float64))
    with np.errstate(all="ignore"):
        d = (s - y * np.log(2)) / s
        target = np.where(d < 0.5, -np.log1p(-d), np.log(s) - np.log(y * np.log(2)))
        v = 2 * target
        for _ in range(ITERATIONS):
            residual = v + np.log(-np.expm1(-v) / v) - target
            v = v - residual / (-1 / np.expm1(-v) - 1 / v)
        b = np.where(d > 0, y * np.log(2) / v, np.inf)
    b = np.where(y == 0, 0.0, b)
    return np.where((y >= 0) & (s >= 0), b, np.nan)
