"""Geometry, path loss, fading and links against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxsplit_kernels import bandwidth_for_rate

from jaxsplit.wireless import (
    exponential_power,
    power_law_gain,
    rayleigh,
    shannon_rate,
    snr_density,
    transmission_delay,
    uniform_disc,
)


def test_disc_is_uniform_in_area_around_its_centre():
    centre = jnp.array([30.0, -40.0])
    position = np.asarray(uniform_disc(jax.random.key(0), 100_000, jnp.float32(50.0), centre))
    offset = position - np.asarray(centre)
    radius = np.linalg.norm(offset, axis=-1)
    assert radius.max() <= 50 * (1 + 1e-6)
    # (ρ/R)² is uniform: mean 1/2, variance 1/12; four standard errors.
    assert abs(np.mean((radius / 50) ** 2) - 0.5) < 4 * np.sqrt(1 / 12 / 1e5)
    assert abs(np.var((radius / 50) ** 2) - 1 / 12) < 0.002
    np.testing.assert_allclose(offset.mean(axis=0), 0, atol=4 * 25 / np.sqrt(1e5))


def test_path_loss_by_hand():
    distance = jnp.array([0.01, 1.0, 10.0, 100.0])
    gain = power_law_gain(distance, -30.0, 1.0, 3.0)
    np.testing.assert_allclose(gain, [1e-3, 1e-3, 1e-6, 1e-9], rtol=1e-5)  # d < d0 counts as d0
    np.testing.assert_allclose(
        power_law_gain(jnp.float32(200.0), -40.0, 2.0, 2.5), 1e-4 * 100.0**-2.5, rtol=1e-5
    )


def test_rayleigh_power_is_exponential():
    channel = rayleigh()
    state = channel.init(jax.random.key(0), 3, channel.params)
    gains = jax.vmap(lambda key: channel.sample(key, state, channel.params)[1])(
        jax.random.split(jax.random.key(1), 200_000)
    )
    fading = np.asarray(gains) / np.asarray(state.mean_gain)
    np.testing.assert_allclose(fading.mean(axis=0), 1, atol=4 / np.sqrt(2e5))
    np.testing.assert_allclose(fading.var(axis=0), 1, atol=4 * np.sqrt(8 / 2e5))
    np.testing.assert_allclose((fading > 3).mean(axis=0), np.exp(-3), atol=0.003)


def test_cell_edge_snr_by_hand():
    """10 dBm over -174 dBm/Hz at -90 dB: 94 dB(Hz)."""
    np.testing.assert_allclose(snr_density(jnp.float32(1e-9), 10.0, -174.0), 10**9.4, rtol=1e-5)


def test_rate_by_hand_and_at_its_limits():
    snr = jnp.float32(3e6)
    np.testing.assert_allclose(shannon_rate(jnp.float32(1e6), snr), 2e6, rtol=1e-6)
    assert shannon_rate(jnp.float32(0.0), snr) == 0
    assert np.isfinite(jax.grad(shannon_rate)(jnp.float32(0.0), snr))  # no NaN from 0/0
    np.testing.assert_allclose(shannon_rate(jnp.float32(1e16), snr), 3e6 / np.log(2), rtol=1e-5)
    rates = shannon_rate(jnp.logspace(3, 10, 200), snr)
    assert np.all(np.diff(rates) > 0)


def test_rate_and_lemma_3_are_inverse():
    band = jnp.logspace(4, 8, 50)
    rate = shannon_rate(band, jnp.float32(3e6))
    np.testing.assert_allclose(bandwidth_for_rate(rate, jnp.float32(3e6)), band, rtol=2e-4)


def test_delay_is_bits_over_rate():
    delay = transmission_delay(4e6, jnp.array([1e6, 0.0]), jnp.float32(3e6))
    np.testing.assert_allclose(delay[0], 2.0, rtol=1e-6)
    assert delay[1] == np.inf


@pytest.mark.parametrize("name", ["radius_m", "path_loss_exponent"])
def test_channel_numbers_matter(name):
    channel = rayleigh()
    base = channel.init(jax.random.key(0), 50, channel.params)
    worse = channel.params._replace(**{name: 1.3 * getattr(channel.params, name)})
    assert np.all(channel.init(jax.random.key(0), 50, worse).mean_gain <= base.mean_gain)


def test_rayleigh_power_is_never_zero():
    """A draw of 0, once in 8 million, would be a device that waits for ever; the others stay."""
    draw = jax.jit(
        lambda key: (
            exponential_power(key, (2_000_000,)),
            jax.random.exponential(key, (2_000_000,)),
        )
    )
    zeros = 0
    for seed in range(20):
        power, raw = (np.asarray(x) for x in draw(jax.random.key(seed)))
        zeros += np.sum(raw == 0)
        assert power.min() > 0
        np.testing.assert_array_equal(power[raw > 0], raw[raw > 0])
        assert np.all(power[raw == 0] == 2.0**-24)
    assert zeros > 0  # the case occurs
