"""The accuracy surface: exact on cubics, honest about its errors, picky about its points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.planning import accuracy_at, fit_accuracy
from jaxsplit.planning.surface import turning_ratios

LEVELS = 2 ** np.arange(1, 9) - 1
RATIO = np.linspace(0.05, 1, 7)[:, None]


def cubic(rng):
    """A random third-order polynomial in (log2 ρ, log2(E + 1)), within [−1, 1]."""
    terms = {(i, j): rng.normal() for i in range(4) for j in range(4 - i)}

    def accuracy(ratio, levels):
        bits = np.log2(np.asarray(levels) + 1) / 8
        octaves = np.log2(ratio) / 4.33
        return sum(c * octaves**i * bits**j for (i, j), c in terms.items()) / 30

    return accuracy


@pytest.mark.parametrize(("dtype", "error"), [("float32", 3e-7), ("float64", 1e-13)])
def test_cubic_is_recovered(dtype, error):
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"):
        for _ in range(10):
            accuracy = cubic(rng)
            surface = fit_accuracy(RATIO, LEVELS, accuracy(RATIO, LEVELS), dtype)
            assert surface.coefficients.dtype == dtype
            ratio, levels = rng.uniform(0.05, 1, 50), rng.integers(1, 256, 50)
            np.testing.assert_allclose(
                accuracy_at(surface, jnp.asarray(ratio), jnp.asarray(levels)),
                accuracy(ratio, levels),
                atol=error,
            )
            assert surface.mean_squared_error < 1e-28
            assert surface.greatest_residual < 1e-14
            assert surface.leave_one_out_error < 1e-26


def test_errors_are_those_of_refits():
    rng = np.random.default_rng(1)
    ratio, levels = (axis.ravel() for axis in np.broadcast_arrays(RATIO[::2], LEVELS[::2]))
    accuracy = np.clip(cubic(rng)(ratio, levels) + 0.02 * rng.normal(size=ratio.size), -1, 1)
    surface = fit_accuracy(ratio, levels, accuracy)
    fitted = accuracy_at(surface, jnp.asarray(ratio, jnp.float32), jnp.asarray(levels))
    np.testing.assert_allclose(
        surface.mean_squared_error, np.mean((fitted - accuracy) ** 2), rtol=1e-4
    )
    np.testing.assert_allclose(
        surface.greatest_residual, np.abs(fitted - accuracy).max(), rtol=1e-4
    )

    errors = []
    for k in range(len(ratio)):
        u = np.stack(
            [
                np.log2(ratio) ** i * np.log2(levels + 1) ** j
                for i in range(4)
                for j in range(4 - i)
            ],
            -1,
        )
        kept = np.arange(len(ratio)) != k
        fit = np.linalg.lstsq(u[kept], accuracy[kept], rcond=None)[0]
        errors.append((u[k] @ fit - accuracy[k]) ** 2)
    np.testing.assert_allclose(surface.leave_one_out_error, np.mean(errors), rtol=1e-4)


def test_ten_points_leave_none_out():
    # The lattice of a triangle: 10 points that determine all 10 terms.
    i, j = np.array([(i, j) for i in range(4) for j in range(4 - i)]).T
    surface = fit_accuracy(2.0**-i, 2 ** (1 + j) - 1, 0.5 + 0.1 * (i * j))
    assert surface.mean_squared_error < 1e-20
    assert surface.leave_one_out_error == np.inf


@pytest.mark.parametrize(
    ("ratio", "levels", "accuracy", "message"),
    [
        (RATIO[:3], LEVELS, 0.5, "got 24 points with 3 ratios and 8 levels"),
        (RATIO, LEVELS[:3], 0.5, "got 21 points with 7 ratios and 3 levels"),
        (RATIO.ravel(), LEVELS[:7], 0.5, "got 7 points with 7 ratios and 7 levels"),
        (np.linspace(0.1, 1, 16), np.repeat(LEVELS, 2), 0.5, "terms apart"),
        (RATIO, LEVELS, 75.0, "accuracy must lie from -1 to 1, got 75"),
        (RATIO, LEVELS, np.nan, "got nan"),
        (RATIO, LEVELS - 1, 0.5, "levels must lie from 1 to 255, got 0"),
        (RATIO * 100, LEVELS, 0.5, "ratio must lie from 1e-06 to 1, got"),
        (RATIO * 0, LEVELS, 0.5, "ratio must lie from 1e-06 to 1, got 0"),
    ],
)
def test_too_little_is_refused(ratio, levels, accuracy, message):
    if message == "terms apart":  # all on one line in (log2 ρ, bits)
        ratio = (levels + 1) / 256 * np.ones_like(ratio)
    with pytest.raises(ValueError, match=message) as error:
        fit_accuracy(ratio, levels, accuracy)
    assert "\n" not in str(error.value)


def test_gradient_is_that_of_the_polynomial():
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        surface = fit_accuracy(RATIO, LEVELS, cubic(rng)(RATIO, LEVELS), "float64")
        slopes = jax.grad(accuracy_at, (1, 2))(surface, 0.4, 6.5)
        step = 1e-6
        for k, slope in enumerate(slopes):
            shift = np.eye(2)[k] * step
            above = accuracy_at(surface, 0.4 + shift[0], 6.5 + shift[1])
            below = accuracy_at(surface, 0.4 - shift[0], 6.5 - shift[1])
            np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6, atol=1e-9)


def test_accuracy_turns_where_its_slope_is_zero():
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        slope = jax.vmap(jax.grad(accuracy_at, 1), (None, 0, None))
        grid = jnp.linspace(0.05, 1, 2001)
        for _ in range(30):
            surface = fit_accuracy(RATIO, LEVELS, cubic(rng)(RATIO, LEVELS), "float64")
            turns = turning_ratios(surface, 7)
            real = turns[~np.isnan(turns)]
            assert np.all(np.abs(real * slope(surface, real, 7)) < 1e-9)  # over log ρ
            signs = np.sign(slope(surface, grid, 7))
            inside = np.sum((real > 0.05) & (real < 1))
            assert np.sum(signs[1:] != signs[:-1]) == inside


def test_a_straight_line_turns_nowhere():
    surface = fit_accuracy(RATIO, LEVELS, 0.5 + 0.0 * RATIO * LEVELS)
    flat = surface._replace(coefficients=jnp.zeros(10).at[0].set(0.5))
    assert np.all(np.isnan(turning_ratios(flat, 7)))
