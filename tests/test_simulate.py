"""The clock of a learning run: phases of the exchange, and the energy that it takes."""

import dataclasses

import numpy as np
import pytest

import jaxsplit
from jaxsplit.data import Dataset
from jaxsplit.scheduling import aaba
from jaxsplit.wireless import rayleigh

NETWORK = jaxsplit.Network(6, rayleigh(), aaba())


@pytest.fixture
def run(scheme, world):
    data = Dataset(*(np.asarray(a) for a in (world.inputs, world.labels) * 2))

    def run(network=NETWORK, **numbers):
        params = network.default_params()._replace(**numbers)
        return jaxsplit.run(
            [0], network, scheme, world.backbone, data, num_rounds=6, evaluate_every=6,
            network_params=params,
        ).squeeze()  # fmt: skip

    return run


def test_a_half_duplex_round_sends_and_receives_in_turn(run):
    """Rates by hand on AABA's equal split, with a server that is 20 dB stronger."""
    result = run(server_power_dbm=30.0)
    mask = result.scheduled.values
    share_hz = 20e6 / mask.sum(axis=1, keepdims=True)
    up_s, down_s = result.uplink_s.values, result.downlink_s.values
    assert not up_s[~mask].any()
    assert not down_s[~mask].any()
    up_rate = result.attrs["up_bits"] / np.where(mask, up_s, 1)
    snr_hz = share_hz * (2 ** (up_rate / share_hz) - 1)
    down_rate = share_hz * np.log2(1 + 100 * snr_hz / share_hz)
    expected = result.attrs["down_bits"] / down_rate
    np.testing.assert_allclose(down_s[mask], expected[mask], rtol=1e-3)
    np.testing.assert_allclose(result.delay_s, (up_s + down_s).max(axis=1), rtol=1e-6)
    energy = result.transmission_energy_j.values
    np.testing.assert_allclose(energy, 0.01 * up_s, rtol=1e-4)  # 10 mW while it sends


def test_full_duplex_takes_the_longer_direction(run):
    half, full = run(), run(dataclasses.replace(NETWORK, duplex="full"))
    np.testing.assert_array_equal(half.uplink_s, full.uplink_s)
    longer = np.maximum(full.uplink_s, full.downlink_s).max("device")
    np.testing.assert_allclose(full.delay_s, longer, rtol=1e-6)
    assert (full.delay_s < half.delay_s).all()
    np.testing.assert_array_equal(half.loss, full.loss)  # the clock alone differs


def test_one_rate_for_both_directions_by_default(run):
    """As in the paper: the whole payload at the uplink's rate."""
    result = run()
    payload = result.attrs["up_bits"] + result.attrs["down_bits"]
    np.testing.assert_allclose(result.delay_s, result.delay * payload, rtol=1e-5)


def test_an_unknown_duplex_is_refused():
    with pytest.raises(
        ValueError, match=r"duplex='both' is unknown: choose one of \('half', 'full'\)"
    ):
        jaxsplit.Network(6, rayleigh(), aaba(), duplex="both")
