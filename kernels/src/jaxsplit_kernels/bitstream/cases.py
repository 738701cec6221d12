"""Named rows of the codec's and the compression kernels' tests and benchmarks."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """Rows to compress.

    Attributes:
        shape: [..., n].
        ratio: the part of a row to keep, K = floor(ratio n + 1/2), from 1 to n; 0 keeps nothing.
        levels: E.
        dtype: of the rows.
        distribution: a name that `values` knows.
    """

    shape: tuple[int, ...]
    ratio: float
    levels: int
    dtype: str = "float32"
    distribution: str = "gaussian"

    @property
    def kept(self) -> int:
        """K."""
        n = self.shape[-1]
        return min(max(int(self.ratio * n + 0.5), 1), n) if self.ratio else 0


CASES: dict[str, Case] = {
    "vit": Case((197 * 768,), 0.2, 7),
    "vit_heavy_tails": Case((197 * 768,), 0.2, 7, "bfloat16", "heavy_tails"),
    "vit_mild": Case((197 * 768,), 0.9, 15, "float16", "laplace"),
    "batch": Case((4, 8, 1000), 0.2, 7),
    "rice_worst": Case((4096,), 0.382, 1, distribution="heavy_tails"),
    "n_1": Case((5, 1), 1.0, 7),
    "n_1_none_kept": Case((1,), 0.0, 7),
    "n_2": Case((3, 2), 0.5, 1),
    "all_kept": Case((2, 777), 1.0, 7),
    "all_kept_uniform": Case((4096,), 1.0, 255, distribution="uniform"),
    "one_kept": Case((4, 1000), 0.001, 7),
    "one_kept_of_many": Case((60_001,), 1e-9, 255),
    "none_kept": Case((2, 77), 0.0, 15),
    "half_kept": Case((2, 100), 0.5, 7),
    "just_over_half_kept": Case((2, 100), 0.51, 7),
    "one_dropped": Case((2, 129), 0.993, 3),
    "odd_length": Case((3, 1021), 0.3, 3, distribution="laplace"),
    "E_1": Case((2, 2000), 0.1, 1),
    "E_15": Case((2, 2000), 0.214, 15, "bfloat16"),
    "E_255": Case((2, 2000), 0.2, 255),
    "E_255_large": Case((40_000,), 0.618, 255, distribution="uniform"),
    "constant": Case((2, 500), 0.3, 7, distribution="constant"),
    "constant_large": Case((30_000,), 0.9, 255, distribution="constant"),
    "zeros": Case((2, 300), 0.2, 7, distribution="zeros"),
    "mostly_zeros": Case((2, 999), 0.2, 7, distribution="mostly_zeros"),
    "nan": Case((2, 300), 0.2, 7, distribution="nan"),
    "infinite": Case((2, 300), 0.6, 7, "bfloat16", "infinite"),
    "ties": Case((3, 640), 0.37, 15, distribution="ties"),
    "subnormal": Case((2, 400), 0.5, 7, distribution="subnormal"),
    "around_tiny": Case((2, 400), 0.9, 255, distribution="around_tiny"),
    "huge": Case((2, 400), 0.4, 15, distribution="huge"),
    "first_half_large": Case((5000,), 0.45, 7, distribution="first_half_large"),
}


def values(case: Case, seed: int = 0) -> np.ndarray:
    """Return the rows of a case."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(case.shape)
    match case.distribution:
        case "uniform":
            x = rng.uniform(-1, 1, case.shape)
        case "laplace":
            x = rng.laplace(size=case.shape)
        case "heavy_tails":
            x = rng.standard_t(1.5, case.shape)
        case "constant":
            x = np.copysign(0.7, x)
        case "zeros":
            x = np.copysign(0.0, x)
        case "mostly_zeros":
            x = np.where(rng.uniform(size=case.shape) < 0.9, 0.0, x)
        case "nan":
            x[..., 7] = np.nan
        case "infinite":
            x[..., -7] = -np.inf
        case "ties":
            x = np.round(2 * x) / 2
        case "subnormal":
            x = 1e-39 * x
        case "around_tiny":
            x = 2e-38 * x
        case "huge":
            x = 3e38 * np.tanh(x)
        case "first_half_large":
            x[..., : case.shape[-1] // 2] *= 100
        case name:
            assert name == "gaussian", name
    with np.errstate(over="ignore"):  # beyond float16 lies infinity
        return np.asarray(x.astype(jnp.dtype(case.dtype)))
