"""Named inputs of the bandwidth tests and benchmarks."""

from typing import Any

import numpy as np


def feasible(dtype: Any, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rates and SNRs with c = rate ln2 / snr from 1e-30 to 1 - 1e-6, dense near both ends."""
    rng = np.random.default_rng(seed)
    n = count // 2
    c = np.concatenate([10.0 ** rng.uniform(-30, -0.01, n), 1 - 10.0 ** rng.uniform(-6, -0.3, n)])
    snr_hz = (10.0 ** rng.uniform(2, 12, c.size)).astype(dtype)
    rate = (c * snr_hz.astype(np.float64) / np.log(2)).astype(dtype)
    rounded = rate.astype(np.float64) * np.log(2) / snr_hz.astype(np.float64)
    keep = (rounded >= 1e-30) & (rounded <= 1 - 1e-6)
    return rate[keep], snr_hz[keep]


# rate (bit/s), snr_hz (Hz), bandwidth (Hz)
EDGES: tuple[tuple[float, float, float], ...] = (
    (0.0, 1e6, 0.0),
    (0.0, 0.0, 0.0),
    (1e6, 1e5, float("inf")),
    (1e6, 0.0, float("inf")),
    (float("inf"), 1e6, float("inf")),
    (1e6, float("inf"), 0.0),
    (-1.0, 1e6, float("nan")),
    (1.0, -1e6, float("nan")),
    (float("nan"), 1e6, float("nan")),
    (1.0, float("nan"), float("nan")),
)
