"""Energy by hand."""

import jax.numpy as jnp
import numpy as np

from jaxsplit.costs import Processor, RadioLink, RoundLoad, device_energy, round_phases


def test_energy_by_hand():
    load = RoundLoad(
        local_steps=2.0,
        activation_bits=3e6,
        gradient_bits=9e6,
        distribution_bits=9e6,
        adapter_bits=4e6,
        device_forward_flop=1e12,
        device_backward_flop=2e12,
        server_flop=1e12,
    )
    clocks = jnp.array([1e9, 0.5e9])
    devices = Processor(clocks, 256, 4)
    link = RadioLink(30e6, 5.0, 5.0)
    phases = round_phases(load, devices, Processor(3e9, 2048, 4), link, jnp.array([1e6, 2e6]))
    energy = device_energy(phases, devices, power_dbm=20.0, capacitance=1e-28)
    # 2 · 3 + 4 Mbit up at 5 and 10 Mbit/s, 0.1 W.
    np.testing.assert_allclose(energy.transmission_j, [0.2, 0.1], rtol=1e-6)
    # 6e12 FLOP are 5.86e9 cycles of 1,024 FLOP; a cycle costs κf².
    cycles = 6e12 / 1024
    np.testing.assert_allclose(
        energy.computation_j, 1e-28 * cycles * np.array([1e18, 0.25e18]), rtol=1e-6
    )
    np.testing.assert_allclose(energy.total_j, energy.transmission_j + energy.computation_j)


def test_who_stays_away_spends_nothing():
    load = RoundLoad(local_steps=1.0, activation_bits=3e6, device_forward_flop=1e12)
    devices = Processor(jnp.array([1e9, 1e9]), 256, 4)
    phases = round_phases(
        load,
        devices,
        Processor(3e9, 2048, 4),
        RadioLink(30e6, 5.0, 5.0),
        1e6,
        jnp.array([True, False]),
    )
    energy = device_energy(phases, devices, 20.0, 1e-28)
    assert energy.total_j[0] > 0
    assert energy.total_j[1] == 0
