"""Named inputs of the Lambert W tests and benchmarks."""

from typing import Any

import numpy as np

INV_E = 0.36787944117144233


def domain(dtype: Any, branch: int, count: int, seed: int = 0) -> np.ndarray:
    """About ``count`` normal floats of a branch's domain, dense near -1/e, 0-, 0 and large z."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    low, high = np.log10(float(info.tiny)) + 0.01, np.log10(float(info.max)) - 0.01
    parts = 3 if branch == -1 else 6
    n = count // parts

    def decades(a: float, b: float) -> np.ndarray:
        return np.asarray(10.0 ** rng.uniform(a, b, n))

    z = [
        -INV_E + decades(np.log10(float(info.eps)) - 0.6, -0.45),
        -decades(low, -0.45),
        -INV_E * rng.uniform(0, 1, n),
    ]
    if branch == 0:
        z += [decades(low, 0), decades(-1, 3), decades(0, high)]
    values = np.concatenate(z).astype(dtype)
    inside = (values >= dtype(-INV_E)) & (np.abs(values) >= info.tiny)
    return np.asarray(values[inside])


def next_to_branch_point(dtype: Any, count: int) -> np.ndarray:
    """The ``count`` floats from the one nearest to -1/e upwards."""
    z = [dtype(-INV_E)]
    while len(z) < count:
        z.append(np.nextafter(z[-1], dtype(0)))
    return np.array(z, dtype)


# z, W: edges that every floating dtype shares; the branch point itself differs by dtype.
EDGES: dict[int, tuple[tuple[float, float], ...]] = {
    0: (
        (0.0, 0.0),
        (-0.0, -0.0),
        (float("inf"), float("inf")),
        (float("nan"), float("nan")),
        (-float("inf"), float("nan")),
        (-1.0, float("nan")),
    ),
    -1: (
        (-0.0, -float("inf")),
        (0.0, -float("inf")),
        (1.0, float("nan")),
        (float("inf"), float("nan")),
        (float("nan"), float("nan")),
        (-1.0, float("nan")),
    ),
}
