"""Who is scheduled when the number is fixed, and how evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.network import Network, run_network
from jaxsplit.scheduling import (
    Observation,
    jain_index,
    proportional_fair,
    random_k,
    round_robin,
)
from jaxsplit.wireless import FixedSnrParams, fixed_snr, rayleigh

DEVICES = 10


def run(scheduler, rounds, model=None, **params):
    network = Network(DEVICES, model or rayleigh(), scheduler)
    numbers = network.default_params()._replace(**params)
    simulate = jax.jit(lambda key: run_network(key, network, numbers, rounds)[1])
    return simulate(jax.random.key(0))


def test_random_devices_are_uniform_and_independent_of_the_past():
    mask = np.asarray(run(random_k(3), 3000).mask)
    assert np.all(mask.sum(axis=1) == 3)
    p = 3 / DEVICES
    error = np.sqrt(p * (1 - p) / 3000)
    assert np.abs(mask.mean(axis=0) - p).max() < 4.5 * error
    again = np.mean(mask[1:] & mask[:-1], axis=0)
    assert np.abs(again - p**2).max() < 4.5 * np.sqrt(p**2 / 3000)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_round_robin_takes_turns(k):
    mask = np.asarray(run(round_robin(k), 3 * DEVICES).mask)
    turns = np.arange(3 * DEVICES * k).reshape(-1, k) % DEVICES
    for t, devices in enumerate(turns):
        assert set(np.flatnonzero(mask[t])) == set(devices)
    np.testing.assert_array_equal(mask.sum(axis=0), 3 * k)
    assert float(jain_index(jnp.asarray(mask.sum(axis=0), jnp.float32))) == 1


def test_proportional_fair_equals_a_plain_loop():
    info = run(proportional_fair(3), 60)
    average = np.zeros(DEVICES)
    for t in range(60):
        snr = np.asarray(info.snr_hz[t], np.float64)
        possible = 20e6 / 3 * np.log2(1 + snr * 3 / 20e6)
        order = sorted(
            range(DEVICES),
            key=lambda n: -(possible[n] / max(average[n], 1e-12 * possible.max())),
        )
        assert set(np.flatnonzero(info.mask[t])) == set(order[:3])
        average *= 0.99
        average[order[:3]] += 0.01 / float(info.delay[t])


def test_proportional_fair_shares_evenly_but_prefers_good_moments():
    """Channels 30 dB apart get equal time; under fading, each at its better moments."""
    spread = FixedSnrParams(snr_db=np.linspace(0, 30, DEVICES))
    steady = run(proportional_fair(1), 2000, fixed_snr(), channel=spread)
    assert jain_index(steady.mask.sum(0).astype(jnp.float32)) > 0.99

    fair, turns = run(proportional_fair(1), 2000), run(round_robin(1), 2000)
    assert jain_index(fair.mask.sum(0).astype(jnp.float32)) > 0.95
    relative = np.asarray(fair.snr_hz) / np.asarray(fair.snr_hz).mean(axis=0)
    chosen = relative[np.asarray(fair.mask)].mean()
    assert chosen > 1.5 > relative[np.asarray(turns.mask)].mean()


def test_jain_index_of_known_shares():
    shares = jnp.array([[1.0] * 4, [1.0, 1.0, 0.0, 0.0], [0.0] * 4, [1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(jain_index(shares), [1, 0.5, 1, 100 / 120], rtol=1e-6)


@pytest.mark.parametrize("factory", [random_k, round_robin, proportional_fair])
def test_impossible_sizes_are_named(factory):
    with pytest.raises(ValueError, match="k=0 devices per round: choose at least 1"):
        factory(0)
    scheduler = factory(4)
    seen = Observation(jnp.ones(3), *(jnp.float32(1),) * 3, jnp.int32(0))
    params = jax.tree.map(jnp.float32, scheduler.params)
    with pytest.raises(ValueError, match="k=4 is more than there are devices: choose 1 to 3"):
        scheduler.step(jax.random.key(0), scheduler.init(3, params), seen, params)
