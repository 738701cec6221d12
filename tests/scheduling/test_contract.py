"""What holds for every scheduler, and what each baseline promises."""

import functools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit import scheduling
from jaxsplit.scheduling import (
    Observation,
    aaba,
    all_in,
    equal_bandwidth,
    greedy,
    lyapunov,
    min_delay_bandwidth,
    proportional_fair,
    random_k,
    round_robin,
    slowest_delay,
    virtual_queue,
)

SCHEDULERS = {
    "all_in": all_in(),
    "aaba": aaba(),
    "greedy": greedy(),
    "greedy_required": greedy("required"),
    "lyapunov_exact_count": lyapunov(),
    "lyapunov_exact_bound": lyapunov(objective="bound"),
    "lyapunov_first_descent": lyapunov("first_descent"),
    "random_k": random_k(4),
    "round_robin": round_robin(4),
    "proportional_fair": proportional_fair(4),
}
BY_CHANNEL = set(SCHEDULERS) - {"random_k", "round_robin", "proportional_fair"}


def observe(seed, budget=25e-9, queue=5 * 25e-9, num_devices=12):
    rng = np.random.default_rng(seed)
    snr_hz = 2.51e15 * (100 * np.sqrt(rng.random(num_devices))) ** -3.0
    snr_hz *= rng.exponential(size=num_devices)
    return Observation(
        snr_hz=jnp.asarray(snr_hz, jnp.float32),
        total_hz=jnp.float32(20e6),
        queue=jnp.float32(queue),
        delay_budget=jnp.float32(budget),
        round_index=jnp.int32(0),
    )


def step(scheduler):
    def apply(key, seen):
        params = jax.tree.map(jnp.float32, scheduler.params)
        state = scheduler.init(seen.snr_hz.shape[-1], params)
        return scheduler.step(key, state, seen, params)[1]

    return apply


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_are_consistent(name):
    scheduler = jax.jit(step(SCHEDULERS[name]))
    for seed in range(30):
        seen = observe(seed)
        schedule = scheduler(jax.random.key(0), seen)
        mask = np.asarray(schedule.mask)
        chex.assert_shape((schedule.mask, schedule.bandwidth), (12,))
        assert mask.dtype == bool
        assert mask.sum() >= 1
        snr = np.asarray(seen.snr_hz)
        if name in BY_CHANNEL and mask.any() and not mask.all():  # Theorem 2
            assert snr[mask].min() >= snr[~mask].max()
        assert np.all(np.asarray(schedule.bandwidth)[mask] > 0)
        assert not np.any(np.asarray(schedule.bandwidth)[~mask])
        assert schedule.bandwidth.sum() <= 20e6 * (1 + 1e-5)
        np.testing.assert_allclose(
            schedule.delay, slowest_delay(schedule.bandwidth, seen.snr_hz, schedule.mask), rtol=1e-5
        )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_jit_vmap_and_eager_agree(name):
    scheduler = step(SCHEDULERS[name])
    seen = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(observe(seed) for seed in range(4)))
    keys = jax.random.split(jax.random.key(0), 4)
    batched = jax.jit(jax.vmap(scheduler))(keys, seen)
    single = jax.jit(scheduler)
    for i in range(4):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], seen)
        expected = single(keys[i], one)
        assert batched.mask[i].tolist() == expected.mask.tolist()
        np.testing.assert_allclose(batched.bandwidth[i], expected.bandwidth, rtol=1e-5)
    eager = scheduler(keys[0], observe(0))
    assert eager.mask.tolist() == batched.mask[0].tolist()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_trace_for_all_numbers(name):
    chex.clear_trace_counter()
    scheduler = jax.jit(chex.assert_max_traces(step(SCHEDULERS[name]), n=1))
    for seed, budget in enumerate((5e-9, 25e-9, 1e-7)):
        scheduler(jax.random.key(seed), observe(seed, budget))


def test_factories_return_the_same_object():
    """Equal choices must not retrace: static arguments compare by identity of the functions."""
    assert lyapunov("exact", "bound") is lyapunov("exact", "bound")
    assert aaba() is aaba()
    assert greedy("required") is greedy("required")


def test_all_in_takes_everyone():
    assert jax.jit(step(all_in()))(jax.random.key(0), observe(0)).mask.all()


def test_aaba_is_the_largest_equal_split_that_fits():
    scheduler = jax.jit(step(aaba()))
    for seed in range(30):
        seen = observe(seed)
        schedule = scheduler(jax.random.key(0), seen)
        order = np.argsort(-np.asarray(seen.snr_hz))
        fits = []
        for count in range(1, 13):
            mask = np.zeros(12, bool)
            mask[order[:count]] = True
            band = equal_bandwidth(jnp.asarray(mask), seen.total_hz)
            fits.append(slowest_delay(band, seen.snr_hz, jnp.asarray(mask)) <= seen.delay_budget)
        assert schedule.mask.sum() == max(1, sum(bool(fit) for fit in fits))


def test_greedy_meets_the_budget_and_could_not_take_one_more():
    scheduler = jax.jit(step(greedy()))
    for seed in range(30):
        seen = observe(seed)
        schedule = scheduler(jax.random.key(0), seen)
        assert schedule.delay <= seen.delay_budget * (1 + 1e-5) or schedule.mask.sum() == 1
        if not schedule.mask.all():
            weaker = np.where(schedule.mask, -np.inf, seen.snr_hz)
            one_more = schedule.mask.at[int(np.argmax(weaker))].set(True)
            _, delay = min_delay_bandwidth(seen.snr_hz, one_more, seen.total_hz)
            assert delay > seen.delay_budget * (1 - 1e-5)


def test_greedy_required_uses_the_whole_budget():
    seen = observe(3)
    schedule = jax.jit(step(greedy("required")))(jax.random.key(0), seen)
    np.testing.assert_allclose(schedule.delay, seen.delay_budget, rtol=1e-5)
    assert schedule.bandwidth.sum() <= 20e6


@pytest.mark.parametrize("scheduler", [aaba(), greedy(), greedy("required")])
def test_someone_takes_part_even_when_nobody_fits(scheduler):
    schedule = jax.jit(step(scheduler))(jax.random.key(0), observe(0, budget=1e-12))
    assert schedule.mask.sum() == 1
    np.testing.assert_allclose(schedule.bandwidth.sum(), 20e6, rtol=1e-5)
    assert np.isfinite(schedule.delay)


@pytest.mark.parametrize("factory", [aaba, lambda n: greedy(min_devices=n)])
def test_min_devices_zero_allows_an_empty_round(factory):
    schedule = jax.jit(step(factory(0)))(jax.random.key(0), observe(0, budget=1e-12))
    assert not schedule.mask.any()
    assert schedule.delay == 0


def test_a_falling_v_schedules_fewer_later():
    scheduler = lyapunov()
    params = jax.tree.map(jnp.float32, scheduler.params._replace(v_decay=0.9))
    seen = observe(1)
    counts = [
        int(
            scheduler.step(jax.random.key(0), (), seen._replace(round_index=jnp.int32(t)), params)[
                1
            ].mask.sum()
        )
        for t in (0, 10, 60)
    ]
    assert counts[0] >= counts[1] >= counts[2]
    assert counts[0] > counts[2]


def test_scheduler_of_the_contributing_guide_works():
    """The example that newcomers copy runs as it stands and keeps the contract."""
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", guide, flags=re.S)
    names = {**vars(scheduling), "functools": functools, "jax": jax, "jnp": jnp}
    exec(snippet, names)
    scheduler = jax.jit(step(names["random_k"](3)))
    masks = [scheduler(jax.random.key(seed), observe(0)).mask for seed in range(20)]
    assert all(mask.sum() == 3 for mask in masks)
    assert np.all(np.sum(masks, axis=0) > 0)  # every device has its turn


def test_unknown_allocation_is_named():
    with pytest.raises(ValueError, match="allocation='all' is unknown"):
        greedy("all")


def test_virtual_queue_bounds_the_excess_of_any_path():
    rng = np.random.default_rng(0)
    delays = rng.exponential(1.2, 500)
    queue = initial = 3.0
    for delay in delays:
        queue = float(virtual_queue(queue, delay, 1.0))
        assert queue >= 0
    assert delays.mean() - 1.0 <= (queue - initial) / 500 + 1e-6
