"""Energy by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.wireless import computation_energy, transmission_delay, transmission_energy


def test_transmission_energy_by_hand():
    # 10 dBm is 10 mW, 23 dBm is 199.526 mW.
    np.testing.assert_allclose(transmission_energy(10.0, jnp.array([0.0, 3.0])), [0, 0.03])
    np.testing.assert_allclose(transmission_energy(23.0, 2.0), 0.399052, rtol=1e-5)
    # 4 Mbit at 2 Mbit/s are 2 s on the air.
    air_s = transmission_delay(4e6, jnp.float32(1e6), jnp.float32(3e6))
    np.testing.assert_allclose(transmission_energy(10.0, air_s), 0.02, rtol=1e-5)


def test_computation_energy_by_hand():
    # 1e-28 · 5e9 cycles · (2e9)² = 2 J; half the clock takes a quarter of the energy.
    energy = computation_energy(1e-28, 5e9, jnp.array([2e9, 1e9]))
    np.testing.assert_allclose(energy, [2.0, 0.5], rtol=1e-5)
    # κf² stays clear of float32's range even where κ·C·f·f would not be ordered so.
    assert computation_energy(1e-31, 1e3, 1e6) > 0


def test_energy_is_linear_in_time_and_cycles():
    per_device = jax.vmap(transmission_energy, in_axes=(None, 0))(10.0, jnp.arange(1.0, 4.0))
    np.testing.assert_allclose(per_device, 0.01 * np.arange(1, 4), rtol=1e-6)
    assert jax.grad(lambda c: computation_energy(1e-28, c, 1e9))(7.0) == computation_energy(
        1e-28, 1.0, 1e9
    )
