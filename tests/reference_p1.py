"""Problem P1 in plain NumPy and SciPy, float64: FedFT as printed, with bisection."""

import itertools

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw

LN2 = np.log(2)


def lemma3_bandwidth(rate: float, snr_hz: np.ndarray) -> np.ndarray:
    """b_n for a target rate, (25) as printed, with SciPy's Lambert-W."""
    c = rate * LN2 / snr_hz
    with np.errstate(all="ignore"):
        band = -rate * LN2 / (c + lambertw(-c * np.exp(-c), -1).real)
    return np.where(c < 1, band, np.inf)


def min_delay(snr_hz: np.ndarray, total_hz: float) -> tuple[float, np.ndarray]:
    """Delay per bit and bandwidth of a set (24): bisection on the common rate."""
    shannon = np.log2(1 + snr_hz * len(snr_hz) / total_hz) * total_hz / len(snr_hz)
    low, high = shannon.min(), np.min(snr_hz) / LN2 * (1 - 1e-15)
    for _ in range(200):
        rate = (low + high) / 2
        if lemma3_bandwidth(rate, snr_hz).sum() < total_hz:
            low = rate
        else:
            high = rate
    return 1 / low, lemma3_bandwidth(low, snr_hz)


def min_delay_brentq(snr_hz: np.ndarray, total_hz: float) -> float:
    """The same delay from the rate equation alone, without Lambert-W: SciPy's root finders."""

    def band_of(rate: float, snr: float) -> float:
        def excess(log_b: float) -> float:
            b = np.exp(log_b)
            return b * np.log1p(snr / b) / LN2 - rate

        return float(np.exp(brentq(excess, np.log(rate) - 40, np.log(total_hz) + 30, xtol=1e-14)))

    def excess(rate: float) -> float:
        return sum(band_of(rate, snr) for snr in snr_hz) - total_hz

    equal_hz = total_hz / len(snr_hz)
    low = float(np.min(equal_hz * np.log1p(snr_hz / equal_hz)) / LN2)
    high = float(np.min(total_hz * np.log1p(snr_hz / total_hz)) / LN2)
    if len(snr_hz) == 1:
        return 1 / high
    return 1 / brentq(excess, low * (1 - 1e-9), high, xtol=1e-300, rtol=1e-13)


def objective(
    count: int, delay: float, weight: float, queue: float, kind: str, total: int
) -> float:
    """(22), or its bound-aware version."""
    return weight * (count if kind == "count" else -total / count) - queue * delay


def brute_force(
    snr_hz: np.ndarray, total_hz: float, weight: float, queue: float, kind: str
) -> tuple[float, tuple[int, ...]]:
    """The best of all non-empty subsets."""
    best = (-np.inf, ())
    for count in range(1, len(snr_hz) + 1):
        for subset in itertools.combinations(range(len(snr_hz)), count):
            delay = min_delay_brentq(snr_hz[list(subset)], total_hz)
            value = objective(count, delay, weight, queue, kind, len(snr_hz))
            best = max(best, (value, subset))
    return best


def algorithm1(
    snr_hz: np.ndarray, total_hz: float, weight: float, queue: float, kind: str = "count"
) -> tuple[float, np.ndarray]:
    """Algorithm 1: add the next strongest device until the objective falls."""
    order = np.argsort(-snr_hz)
    best, chosen = -np.inf, order[:0]
    for count in range(1, len(snr_hz) + 1):
        delay, _ = min_delay(snr_hz[order[:count]], total_hz)
        value = objective(count, delay, weight, queue, kind, len(snr_hz))
        if value < best:
            break
        best, chosen = value, order[:count]
    return best, chosen
