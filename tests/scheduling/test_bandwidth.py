"""Minimum-delay allocation against SciPy, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_p1 as reference

from jaxsplit.scheduling import equal_bandwidth, min_delay_bandwidth, slowest_delay
from jaxsplit.wireless import shannon_rate

allocate = jax.jit(min_delay_bandwidth)
TOLERANCE = {jnp.float32: 5e-6, jnp.float64: 1e-12}


def random_problem(rng, size):
    """Channels over up to six decades, from a band-limited to a power-limited cell."""
    snr_hz = 10 ** (rng.uniform(4, 11) - rng.uniform(0, rng.choice([0.1, 3, 6]), size))
    return snr_hz, 10 ** rng.uniform(5, 9)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_delay_equals_scipy(dtype):
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == jnp.float64):
        for _ in range(60):
            snr_hz, total_hz = random_problem(rng, 8)
            mask = rng.random(8) < 0.6
            mask[rng.integers(8)] = True
            expected = reference.min_delay_brentq(snr_hz[mask], total_hz)
            band, delay = allocate(
                jnp.asarray(snr_hz, dtype), jnp.asarray(mask), jnp.asarray(total_hz, dtype)
            )
            assert band.dtype == delay.dtype == dtype
            np.testing.assert_allclose(delay, expected, rtol=TOLERANCE[dtype])
            np.testing.assert_allclose(band.sum(), total_hz, rtol=TOLERANCE[dtype])
            assert not np.any(np.asarray(band)[~mask])
            rates = np.asarray(shannon_rate(band, jnp.asarray(snr_hz, dtype)))[mask]
            np.testing.assert_allclose(rates, 1 / expected, rtol=20 * TOLERANCE[dtype])


def test_two_references_agree():
    """The paper's Lambert-W form and the bare rate equation give the same delay."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        snr_hz = 10 ** rng.uniform(7, 10, 5)
        total_hz = 10 ** rng.uniform(6, 8)
        np.testing.assert_allclose(
            reference.min_delay(snr_hz, total_hz)[0],
            reference.min_delay_brentq(snr_hz, total_hz),
            rtol=1e-8,
        )


def test_equal_channels_share_equally():
    band, delay = allocate(jnp.full(5, 1e8), jnp.ones(5, bool), jnp.float32(2e7))
    np.testing.assert_allclose(band, 4e6, rtol=1e-6)
    np.testing.assert_allclose(delay, 1 / (4e6 * np.log2(1 + 1e8 / 4e6)), rtol=1e-6)


def test_it_beats_the_equal_split():
    rng = np.random.default_rng(2)
    for _ in range(100):
        snr_hz, total_hz = random_problem(rng, 6)
        snr, mask = jnp.asarray(snr_hz, jnp.float32), jnp.ones(6, bool)
        _, delay = allocate(snr, mask, jnp.float32(total_hz))
        equal = equal_bandwidth(mask, jnp.float32(total_hz))
        assert delay <= slowest_delay(equal, snr, mask) * (1 + 1e-6)


def test_empty_set_gives_zeros():
    band, delay = allocate(jnp.full(4, 1e8), jnp.zeros(4, bool), jnp.float32(2e7))
    assert not np.any(band)
    assert delay == 0
    assert not np.any(equal_bandwidth(jnp.zeros(4, bool), jnp.float32(2e7)))


def test_channels_outside_the_set_do_not_matter():
    mask = jnp.array([True, True, False, False])
    base = allocate(jnp.array([1e8, 2e8, 1e7, 1e7]), mask, jnp.float32(2e7))
    for odd in (0.0, jnp.inf, jnp.nan, 1e-30):
        other = allocate(jnp.array([1e8, 2e8, odd, odd]), mask, jnp.float32(2e7))
        np.testing.assert_array_equal(base[0], other[0])
        assert base[1] == other[1]


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(3)
    snr = jnp.asarray(10 ** rng.uniform(7, 10, (9, 5)), jnp.float32)
    mask = jnp.asarray(rng.random((9, 5)) < 0.7)
    total = jnp.asarray(10 ** rng.uniform(6, 8, 9), jnp.float32)
    band, delay = jax.jit(jax.vmap(min_delay_bandwidth))(snr, mask, total)
    for i in range(9):
        one_band, one_delay = allocate(snr[i], mask[i], total[i])
        np.testing.assert_allclose(band[i], one_band, rtol=2e-6)
        np.testing.assert_allclose(delay[i], one_delay, rtol=2e-6)
