"""Accuracy as a function of the compression, fitted to measurements."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Exponents (i, j) of u^i v^j: all terms up to the third order, 10 of them.
_EXPONENTS = tuple((i, j) for i in range(4) for j in range(4 - i))
_LEAST_DISTINCT = 4  # values on an axis that a third-order term needs


class AccuracySurface(NamedTuple):
    """A third-order polynomial A(ρ, E) and how well it fits (SFT, Fig. 3)."""

    coefficients: jax.Array  # of u^i v^j in the order of i, then j; shape [10]
    ratio_range: jax.Array  # least and greatest measured ρ, where u = −1, 1; shape [2]
    bits_range: jax.Array  # least and greatest measured log2(E + 1), where v = −1, 1; shape [2]
    mean_squared_error: jax.Array  # of the fit at the M measured points; parts of 1, squared
    greatest_residual: jax.Array  # max |fit − measured|, parts of 1
    leave_one_out_error: jax.Array  # mean squared error at a point that the fit has not seen
    measured_ratio: jax.Array  # ρ, shape [M]
    measured_levels: jax.Array  # E, shape [M]
    measured_accuracy: jax.Array  # parts of 1, shape [M]


def bits_of_levels(levels: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """Bits of a level index: log2(E + 1), the second axis of both fits.

    Args:
      levels: E, integers or floats of any shape.
      dtype: of the result.

    Returns:
      The same shape.

    Example:
      >>> import jax.numpy as jnp
      >>> bits_of_levels(jnp.array([1, 7, 255])).tolist()
      [1.0, 3.0, 8.0]
    """
    return jnp.log2(jnp.asarray(levels).astype(dtype) + 1)


def fit_accuracy(
    ratio: np.ndarray, levels: np.ndarray, accuracy: np.ndarray, dtype: str = "float32"
) -> AccuracySurface:
    r"""Fit the accuracy over the compression by least squares (SFT, Section IV-C and Fig. 3).

    $$ A(\rho, E) = \sum_{i + j \le 3} \theta_{ij} u^i v^j, $$

    where u and v are log2 ρ and log2(E + 1), each scaled to [−1, 1] over the measured range: powers
    of the bare values would leave the normal equations close to singular. In ρ itself, as the paper
    has it, a cubic that follows the steep loss at small ρ swings between the measured ratios.

    Args:
      ratio: measured ρ, the part of the entries that is kept, above 0.
      levels: measured E; the three shapes broadcast against each other.
      accuracy: measured, parts of 1 and not percent.
      dtype: of the coefficients; the fit itself is in float64.

    Returns:
      The surface with its errors. The leave-one-out error is that of all M refits without one
      point, by $e_m / (1 - h_m)$ with the leverages $h_m$; it is inf where a point cannot be left
      out, as with only 10.

    Raises:
      ValueError: fewer than 10 points, fewer than 4 values on an axis, points on which the 10
        terms cannot be told apart, or a number out of range.

    Example:
      >>> import numpy as np
      >>> ratio, levels = np.linspace(0.1, 1, 5)[:, None], 2 ** np.arange(1, 6) - 1
      >>> surface = fit_accuracy(ratio, levels, 0.8 - 0.3 * (1 - ratio) ** 3 - 0.1 / levels)
      >>> print(f"{surface.mean_squared_error:.1e} {surface.leave_one_out_error:.1e}")
      2.4e-06 5.9e-06
    """
    ratio, levels, accuracy = (
        np.ravel(values)
        for values in np.broadcast_arrays(
            *(np.asarray(values, np.float64) for values in (ratio, levels, accuracy))
        )
    )
    _check_measured(ratio, levels, accuracy)
    bits = np.log2(levels + 1)
    ranges = [np.array([values.min(), values.max()]) for values in (ratio, bits)]
    u, v = (
        2 * (values - low) / (high - low) - 1
        for values, (low, high) in ((np.log2(ratio), np.log2(ranges[0])), (bits, ranges[1]))
    )
    terms = np.stack([u**i * v**j for i, j in _EXPONENTS], -1)
    basis, singular, _ = np.linalg.svd(terms, full_matrices=False)
    rank = int(np.sum(singular > 1e-10 * singular[0]))
    if rank < len(_EXPONENTS):
        raise ValueError(
            f"fit_accuracy: {len(ratio)} points tell only {rank} of the {len(_EXPONENTS)} terms "
            "apart; measure a full grid of at least 4 ratios and 4 levels"
        )
    coefficients = np.linalg.lstsq(terms, accuracy, rcond=None)[0]
    residual = terms @ coefficients - accuracy
    seen = 1 - np.sum(basis**2, -1)  # 1 − leverage; 0 where the fit must pass through the point
    left_out = np.divide(residual, seen, out=np.full_like(residual, np.inf), where=seen > 1e-9)
    return AccuracySurface(
        *(
            jnp.asarray(values, dtype)
            for values in (
                coefficients,
                *ranges,
                np.mean(residual**2),
                np.max(np.abs(residual)),
                np.mean(left_out**2),
                ratio,
                levels,
                accuracy,
            )
        )
    )


def accuracy_at(surface: AccuracySurface, ratio: jax.Array, levels: jax.Array) -> jax.Array:
    """A(ρ, E) of a fitted surface, with a gradient in both.

    Args:
      surface: of `fit_accuracy`; outside the measured range a cubic is a guess.
      ratio: ρ, a scalar or of the shape of `levels`.
      levels: E, integers, or floats between them; a scalar or of the shape of `ratio`.

    Returns:
      Parts of 1, not clipped, of the common shape.

    Example:
      >>> import numpy as np
      >>> ratio, levels = np.linspace(0.1, 1, 5)[:, None], 2 ** np.arange(1, 6) - 1
      >>> surface = fit_accuracy(ratio, levels, 0.8 + 0.05 * np.log2(ratio) + 0 * levels)
      >>> print(f"{accuracy_at(surface, 0.25, 7):.4f}")
      0.7000
    """
    dtype = surface.coefficients.dtype
    u = _scaled(jnp.log2(jnp.asarray(ratio, dtype)), jnp.log2(surface.ratio_range))
    v = _scaled(bits_of_levels(levels, dtype), surface.bits_range)
    c0, c1, c2, c3 = _cubic_in_u(surface, v)
    return c0 + u * (c1 + u * (c2 + u * c3))


def turning_ratios(surface: AccuracySurface, levels: jax.Array) -> jax.Array:
    """Where A(·, E) turns: between these ρ it only rises or only falls.

    Args:
      surface: of `fit_accuracy`.
      levels: E, a scalar.

    Returns:
      Two ρ in ascending order, shape [2]; nan for those that do not exist.

    Example:
      >>> import numpy as np
      >>> octaves, levels = np.arange(5)[:, None], 2 ** np.arange(1, 6) - 1
      >>> surface = fit_accuracy(2.0**-octaves, levels, (octaves - 2) ** 2 / 8 + 0 * levels)
      >>> [f"{ratio:.3f}" for ratio in turning_ratios(surface, 7) if 2**-4 < ratio < 1]
      ['0.250']
    """
    v = _scaled(bits_of_levels(levels, surface.coefficients.dtype), surface.bits_range)
    _, c1, c2, c3 = _cubic_in_u(surface, v)
    # The larger root first, the other by their product: their difference would cancel.
    discriminant = c2**2 - 3 * c3 * c1
    q = -(c2 + jnp.copysign(jnp.sqrt(jnp.maximum(discriminant, 0)), c2))
    roots = jnp.stack([_ratio_or_nan(q, 3 * c3), _ratio_or_nan(c1, q)])
    roots = jnp.where(discriminant >= 0, roots, jnp.nan)
    low, high = jnp.log2(surface.ratio_range)
    return jnp.sort(jnp.exp2(low + (roots + 1) / 2 * (high - low)))  # nan last


def _cubic_in_u(surface: AccuracySurface, v: jax.Array) -> list[jax.Array]:
    """Coefficients of 1, u, u², u³ at a given v."""
    terms = zip(_EXPONENTS, surface.coefficients, strict=True)
    powers = [jnp.zeros_like(v)] * 4
    for (i, j), coefficient in terms:
        powers[i] = powers[i] + coefficient * v**j
    return powers


def _scaled(values: jax.Array, ends: jax.Array) -> jax.Array:
    low, high = ends
    return 2 * (values - low) / (high - low) - 1


def _ratio_or_nan(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    safe = jnp.where(denominator == 0, 1, denominator)
    return jnp.where(denominator == 0, jnp.nan, numerator / safe)


def _check_measured(ratio: np.ndarray, levels: np.ndarray, accuracy: np.ndarray) -> None:
    """One line with the numbers for what cannot be fitted."""
    for name, values, low, high in (
        ("ratio", ratio, 1e-6, 1.0),
        ("levels", levels, 1.0, 255.0),
        ("accuracy", accuracy, -1.0, 1.0),
    ):
        wrong = values[~((values >= low) & (values <= high))]  # nan, too
        if len(wrong):
            raise ValueError(
                f"fit_accuracy: {name} must lie from {low:g} to {high:g}, got {wrong[0]:g}"
            )
    distinct = len(np.unique(ratio)), len(np.unique(levels))
    if len(ratio) < len(_EXPONENTS) or min(distinct) < _LEAST_DISTINCT:
        raise ValueError(
            f"fit_accuracy: a third-order surface needs {len(_EXPONENTS)} points or more with "
            f"{_LEAST_DISTINCT} or more ratios and levels, got {len(ratio)} points with "
            f"{distinct[0]} ratios and {distinct[1]} levels"
        )
