"""β: through its knots, straight between them, measured by the compressor itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxsplit_kernels import compress
from scipy.interpolate import RegularGridInterpolator

from jaxsplit.planning import beta_at, fit_beta, measured_beta
from jaxsplit.planning.compression_ratio import _measure

RATIOS, LEVELS = np.array([0.05, 0.1, 0.4, 1.0]), np.array([1, 3, 10, 100, 255])


def test_it_is_bilinear_between_knots_and_flat_beyond():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.01, 1, (4, 5))
    table = fit_beta(RATIOS, LEVELS, values)
    reference = RegularGridInterpolator((RATIOS, np.log2(LEVELS + 1)), values)
    ratio, bits = rng.uniform(0, 1.2, 500), rng.uniform(0.5, 8.5, 500)
    clipped = np.stack([np.clip(ratio, 0.05, 1), np.clip(bits, 1, 8)], -1)
    found = beta_at(table, jnp.asarray(ratio, jnp.float32), jnp.asarray(2**bits - 1, jnp.float32))
    np.testing.assert_allclose(found, reference(clipped), rtol=2e-5)
    for i, j in np.ndindex(4, 5):
        assert beta_at(table, RATIOS[i], LEVELS[j]) == pytest.approx(values[i, j], rel=1e-5)


def test_it_has_a_gradient():
    table = fit_beta([0.1, 0.5], [1, 3], [[0.1, 0.1], [0.5, 0.5]])
    assert jax.grad(beta_at, 1)(table, 0.3, 2.0) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "levels", "beta", "message"),
    [
        ([0.1], [1, 3], [[0.1, 0.1]], "2 or more ratios and levels"),
        ([0.1, 0.2], [1, 3], [[0.1], [0.2]], r"of shape \[ratios, levels\]"),
        ([0.2, 0.1], [1, 3], np.ones((2, 2)), "ratios must ascend"),
        ([0.0, 0.1], [1, 3], np.ones((2, 2)), "ratios must ascend"),
        ([0.1, 0.2], [1, 256], np.ones((2, 2)), "levels must ascend"),
        ([0.1, 0.2], [1, 3.5], np.ones((2, 2)), "levels must ascend"),
        ([0.1, 0.2], [1, 3], [[0.1, 0.1], [0.0, 0.1]], "above 0, got 0"),
    ],
)
def test_wrong_knots_are_refused(ratio, levels, beta, message):
    with pytest.raises(ValueError, match=message) as error:
        fit_beta(ratio, levels, beta)
    assert "\n" not in str(error.value)


def test_measured_is_what_the_compressor_sends():
    x = jax.random.normal(jax.random.key(0), (3, 1000))
    key, ratios, levels = jax.random.key(1), [0.1, 0.5], [1, 7, 255]
    before = _measure._cache_size()
    beta = measured_beta(key, x, ratios, levels)
    for i, j in np.ndindex(beta.shape):
        bits = compress(key, x, ratios[i], levels[j])[1]
        np.testing.assert_allclose(beta[i, j], np.mean(bits) / 32_000, rtol=1e-6)
    measured_beta(key, x, [0.2, 0.3], [3, 5, 6])
    assert _measure._cache_size() == before + 1
    with pytest.raises(ValueError, match="shape"):
        measured_beta(key, x[0], ratios, levels)
