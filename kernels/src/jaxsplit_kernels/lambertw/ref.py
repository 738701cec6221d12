"""The real Lambert W function in plain NumPy float64: slow, readable; the kernel must equal it."""

import numpy as np

from .coefficients import ONE_PLUS_W0_SERIES

INV_E = 0.36787944117144233
INV_E_REST = -1.2428753672788363e-17  # 1/e = INV_E + INV_E_REST
ITERATIONS = 30


def lambertw(z: np.ndarray, branch: int = 0) -> np.ndarray:
    """Lambert W by Newton's method on log(z / w) = w, and by its series at the branch point.

    The float nearest to -1/e in the dtype of ``z`` counts as the branch point.
    """
    z = np.asarray(z)
    edge = float(np.asarray(-INV_E, z.dtype))
    z = z.astype(np.float64)
    d = np.e * ((np.minimum(z, 1) + INV_E) + INV_E_REST)  # only used near the branch point
    with np.errstate(all="ignore"):
        if branch == 0:
            start = np.where(z < 3, np.log1p(z) * 0.6 + 1e-300, np.log(z) - np.log(np.log(z)))
            start = np.where(z < -0.2, -1 + np.sqrt(2 * d), start)
        else:
            start = np.log(-z) - np.log(-np.log(-z))
            start = np.where(z < -0.2, -1 - np.sqrt(2 * d), start)
        w = start
        for _ in range(ITERATIONS):
            # log(z / w) without the underflow of z / w
            log_ratio = np.log(z / w) if branch == 0 else np.log(-z) - np.log(-w)
            w = w / (1 + w) * (1 + log_ratio)
        p = np.sqrt(2 * np.maximum(d, 0)) * (1 if branch == 0 else -1)
        series = -1 + p * np.polynomial.polynomial.polyval(p, ONE_PLUS_W0_SERIES)
        w = np.where(d < 0.0008, series, w)  # |p| < 0.04: the series is exact, the iteration not
    w = np.where(z == 0, 0.0 if branch == 0 else -np.inf, w)
    w = np.where(np.isposinf(z) & (branch == 0), np.inf, w)
    inside = (z >= edge) & ((branch == 0) | (z <= 0))
    return np.where(inside, w, np.nan)


def derivative(z: np.ndarray, branch: int = 0) -> np.ndarray:
    """W' = W / (z (1 + W)) = exp(-W) / (1 + W), 1 + W from the series near the branch point."""
    w = lambertw(z, branch)
    z = np.asarray(z, np.float64)
    d = np.e * ((np.minimum(z, 1) + INV_E) + INV_E_REST)
    p = np.sqrt(2 * np.maximum(d, 0)) * (1 if branch == 0 else -1)
    series = p * np.polynomial.polynomial.polyval(p, ONE_PLUS_W0_SERIES)
    one_plus_w = np.where(d < 0.0008, series, 1 + w)
    with np.errstate(all="ignore"):
        return np.where(np.abs(w) < 1, np.exp(-w) / one_plus_w, w / one_plus_w / z)
