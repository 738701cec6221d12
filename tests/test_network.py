"""Network-only runs: long-run delay, queue, pairing of channels, tracing."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.network import Network, as_arrays, run_network
from jaxsplit.scheduling import aaba, all_in, greedy, lyapunov
from jaxsplit.wireless import rayleigh

SCHEDULERS = {
    "all_in": all_in(),
    "aaba": aaba(),
    "greedy": greedy(),
    "count": lyapunov(),
    "count_first_descent": lyapunov("first_descent"),
    "bound": lyapunov(objective="bound"),
}
LYAPUNOV = ("count", "count_first_descent", "bound")


def network(name):
    return Network(20, rayleigh(), SCHEDULERS[name])


@functools.partial(jax.jit, static_argnames=("name", "num_rounds", "warmup_rounds"))
def simulate(keys, params, name, num_rounds, warmup_rounds=0):
    def one(key):
        return run_network(key, network(name), params, num_rounds, warmup_rounds)

    return jax.vmap(one)(keys)


def params_of(name, **changes):
    return as_arrays(network(name).default_params()._replace(**changes))


@functools.cache
def default_cell(name, warmup_rounds):
    """The runs that most tests look at: 20 channels, 200 rounds."""
    keys = jax.vmap(jax.random.key)(jnp.arange(20))
    return simulate(keys, params_of(name), name, 200, warmup_rounds)


@pytest.mark.parametrize("name", LYAPUNOV)
def test_long_run_delay_meets_the_budget(name):
    """Over 10,000 rounds from Q_0 = 0: Q_T/T <= 0.01 budgets and mean delay <= 1.01 budgets."""
    params = params_of(name)
    state, info = simulate(jax.random.split(jax.random.key(0), 1), params, name, 10_000)
    budget = float(params.delay_budget)
    delay = np.asarray(info.delay, np.float64)
    assert float(state.queue[0]) / 10_000 <= 0.01 * budget
    assert delay.mean() <= 1.01 * budget
    assert delay.mean() >= 0.9 * budget  # the budget binds


@pytest.mark.parametrize("name", SCHEDULERS)
def test_queue_bounds_the_excess_on_every_path(name):
    """mean τ − τ̄ <= (Q_T − Q_0)/T, whatever the scheduler does."""
    params = params_of(name)
    for warmup in (0, 300):
        state, info = default_cell(name, warmup)
        delay = np.asarray(info.delay, np.float64)
        excess = delay.mean(axis=1) - float(params.delay_budget)
        bound = (np.asarray(state.queue, np.float64) - np.asarray(info.queue[:, 0])) / 200
        assert np.all(excess <= bound + 1e-4 * delay.mean(axis=1))  # float32 sums
        assert np.all(np.asarray(info.queue) >= 0)
        if warmup == 0:
            assert not np.any(info.queue[:, 0])


@pytest.mark.parametrize("name", LYAPUNOV)
def test_a_warm_queue_keeps_the_budget_from_the_start(name):
    """Mean delay <= 1.03 budgets from T = 100 on after 300 network-only rounds."""
    params = params_of(name)
    _, info = default_cell(name, 300)
    delay = np.asarray(info.delay, np.float64) / float(params.delay_budget)
    running = np.cumsum(delay.mean(axis=0)) / np.arange(1, 201)
    assert running[99:].max() <= 1.03
    cold = np.asarray(default_cell(name, 0)[1].delay, np.float64)
    assert cold.mean() > delay.mean() * float(params.delay_budget)  # what the warm-up is for


def test_mean_devices_match_the_known_regime():
    """Mean K and mean 1/K of the default cell."""
    known = {"count": (6.7, 0.40), "bound": (6.8, 0.15), "greedy": (6.2, 0.16), "aaba": (5.5, 0.18)}
    for name, (mean_count, mean_inverse) in known.items():
        _, info = default_cell(name, 300)
        count = np.asarray(info.mask.sum(axis=-1), float)
        assert abs(count.mean() - mean_count) < 0.15 * mean_count
        assert abs((1 / count).mean() - mean_inverse) < 0.3 * mean_inverse


def test_schedulers_see_the_same_channels():
    seen = [default_cell(name, 300)[1].snr_hz for name in SCHEDULERS]
    for other in seen[1:]:
        np.testing.assert_array_equal(seen[0], other)


def test_fading_is_new_in_each_round_and_positions_are_not():
    keys = jax.random.split(jax.random.key(4), 1)
    _, info = simulate(keys, params_of("all_in"), "all_in", 2000)
    fading = np.asarray(info.snr_hz[0]) / np.asarray(info.snr_hz[0]).mean(axis=0)
    np.testing.assert_allclose(fading.std(axis=0), 1, atol=0.15)  # Exp(1)
    correlation = np.corrcoef(fading[1:, 0], fading[:-1, 0])[0, 1]
    assert abs(correlation) < 0.1


def test_a_run_is_reproducible_bit_for_bit():
    again = default_cell.__wrapped__("bound", 0)
    chex.assert_trees_all_equal(again, default_cell("bound", 0))


def test_vmap_over_seeds_equals_a_loop():
    _, batched = default_cell("bound", 0)
    for seed in range(3):
        keys = jax.random.key(seed)[None]
        _, single = simulate(keys, params_of("bound"), "bound", 200)
        np.testing.assert_array_equal(batched.mask[seed, :40], single.mask[0, :40])
        np.testing.assert_allclose(batched.delay[seed, :40], single.delay[0, :40], rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_trace_for_all_numbers_and_seeds(name):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, params):
        return run_network(key, network(name), params, 5)[1].delay

    for seed, changes in enumerate(
        ({}, {"delay_budget": 1e-8}, {"bandwidth_hz": 5e6, "power_dbm": 20.0})
    ):
        run(jax.random.key(seed), params_of(name, **changes))


def test_params_can_be_swept():
    """Numbers are vmapped like keys: a sweep over the budget is one program."""
    base = params_of("bound")
    budgets = jnp.array([1e-8, 2.5e-8, 6e-8])
    _, info = jax.jit(
        jax.vmap(
            lambda budget: run_network(
                jax.random.key(0), network("bound"), base._replace(delay_budget=budget), 200
            )
        )
    )(budgets)
    counts = np.asarray(info.mask.sum(axis=-1).mean(axis=-1))
    assert np.all(np.diff(counts) > 0.5)


def test_an_empty_network_is_refused():
    with pytest.raises(ValueError, match="num_devices=0"):
        Network(0, rayleigh(), all_in())
