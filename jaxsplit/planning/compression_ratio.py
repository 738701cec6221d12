"""What compression saves: measured on activations, interpolated between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxsplit_kernels import compress

from jaxsplit.planning.surface import bits_of_levels


class CompressionRatio(NamedTuple):
    """β(ρ, E), compressed bits over raw bits, at the knots of a grid (SFT, Section IV-B)."""

    ratio: jax.Array  # ρ of the knots, ascending, shape [R]
    bits: jax.Array  # log2(E + 1) of the knots, ascending, shape [K]
    beta: jax.Array  # shape [R, K]


def fit_beta(
    ratio: np.ndarray, levels: np.ndarray, beta: np.ndarray, dtype: str = "float32"
) -> CompressionRatio:
    """Piecewise bilinear β(ρ, E) through measured ratios (SFT, Section IV-B).

    Args:
      ratio: ρ of the knots, ascending, shape [R], R >= 2.
      levels: E of the knots, ascending, shape [K], K >= 2.
      beta: compressed over raw bits, shape [R, K], as `measured_beta` returns them.
      dtype: of the result.

    Returns:
      The knots in (ρ, log2(E + 1)).

    Raises:
      ValueError: an axis with fewer than two knots or out of order, a number out of range, or
        another shape.

    Example:
      >>> table = fit_beta([0.1, 0.3], [1, 7], [[0.02, 0.03], [0.04, 0.07]])
      >>> print(f"{beta_at(table, 0.2, 3):.3f}")
      0.040
    """
    ratio, levels, beta = (np.asarray(values, np.float64) for values in (ratio, levels, beta))
    _check_knots("fit_beta", ratio, levels)
    if min(ratio.size, levels.size) < 2 or beta.shape != (ratio.size, levels.size):
        raise ValueError(
            f"fit_beta: give 2 or more ratios and levels, and β of shape [ratios, levels]; got "
            f"{ratio.size}, {levels.size} and {list(beta.shape)}"
        )
    wrong = beta[~((beta > 0) & np.isfinite(beta))]
    if len(wrong):
        raise ValueError(f"fit_beta: β must be finite and above 0, got {wrong[0]:g}")
    return CompressionRatio(
        *(jnp.asarray(values, dtype) for values in (ratio, np.log2(levels + 1), beta))
    )


def beta_at(table: CompressionRatio, ratio: jax.Array, levels: jax.Array) -> jax.Array:
    """β(ρ, E) between the knots; outside the grid that of its edge.

    Args:
      table: of `fit_beta`.
      ratio: ρ, a scalar or of the shape of `levels`.
      levels: E, integers, or floats between them; a scalar or of the shape of `ratio`.

    Returns:
      Compressed bits over raw bits, of the common shape.

    Example:
      >>> table = fit_beta([0.1, 0.3], [1, 7], [[0.02, 0.03], [0.04, 0.07]])
      >>> print(f"{beta_at(table, 0.9, 255):.3f}")
      0.070
    """
    dtype = table.beta.dtype
    i, along_ratio = _cell(jnp.asarray(ratio, dtype), table.ratio)
    j, along_bits = _cell(bits_of_levels(levels, dtype), table.bits)
    low = table.beta[i, j] * (1 - along_ratio) + table.beta[i + 1, j] * along_ratio
    high = table.beta[i, j + 1] * (1 - along_ratio) + table.beta[i + 1, j + 1] * along_ratio
    return low * (1 - along_bits) + high * along_bits


def measured_beta(
    key: jax.Array, x: jax.Array, ratios: np.ndarray, levels: np.ndarray
) -> jax.Array:
    """Measure β on activations: mean over samples of stream bits over raw bits (SFT (9), (10)).

    The whole grid is one trace; each of its points compresses the same samples.

    Args:
      key: the quantizer rounds at random.
      x: activations or gradients, one sample a row, shape [B, n], floating; its dtype decides
        the raw bits.
      ratios: ρ, ascending in (0, 1], shape [R].
      levels: E, ascending from 1 to 255, shape [K].

    Returns:
      β, float32, shape [R, K].

    Raises:
      ValueError: an axis out of order or out of range, or `x` of another rank.

    Example:
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (2, 5_000))
      >>> beta = measured_beta(jax.random.key(1), x, [0.1, 0.2], [1, 7])
      >>> print((1 / beta).round().tolist())
      [[46.0, 37.0], [28.0, 22.0]]
    """
    ratios, levels = np.asarray(ratios, np.float64), np.asarray(levels, np.float64)
    _check_knots("measured_beta", ratios, levels)
    if x.ndim != 2:
        raise ValueError(f"measured_beta: give x of shape [B, n], got {list(x.shape)}")
    grid = np.meshgrid(ratios.astype(np.float32), levels.astype(np.int32), indexing="ij")
    parts = _measure(key, x, *(jnp.asarray(axis.ravel()) for axis in grid))
    return parts.reshape(grid[0].shape)


@jax.jit
def _measure(key: jax.Array, x: jax.Array, ratios: jax.Array, levels: jax.Array) -> jax.Array:
    raw_bits = 8 * x.dtype.itemsize * x.shape[-1]

    def mean_part(choice: tuple[jax.Array, jax.Array]) -> jax.Array:
        _, bits = compress(key, x, *choice)
        return jnp.mean(bits.astype(jnp.float32) / raw_bits)

    # One grid point after another: all at once would hold R·K copies of the activations.
    return jax.lax.map(mean_part, (ratios, levels))


def _cell(values: jax.Array, knots: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index of the lower knot and the part of the way to the next, from 0 to 1."""
    index = jnp.searchsorted(knots, values, side="right", method="compare_all") - 1
    index = jnp.clip(index, 0, len(knots) - 2)
    part = (values - knots[index]) / (knots[index + 1] - knots[index])
    return index, jnp.clip(part, 0, 1)


def _check_knots(name: str, ratio: np.ndarray, levels: np.ndarray) -> None:
    """One line for an axis that is out of order or out of range."""
    for axis, values, allowed in (
        ("ratios", ratio, (ratio > 0) & (ratio <= 1)),
        ("levels", levels, (levels >= 1) & (levels <= 255) & (levels == np.floor(levels))),
    ):
        if values.ndim != 1 or not np.all(np.diff(values) > 0) or not np.all(allowed):
            raise ValueError(
                f"{name}: {axis} must ascend within "
                f"{'(0, 1]' if axis == 'ratios' else 'the integers from 1 to 255'}, "
                f"got {values.tolist()}"
            )
