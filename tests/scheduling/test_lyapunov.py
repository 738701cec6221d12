"""P1 against brute force over all subsets and against the paper's Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_p1 as reference

from jaxsplit.scheduling import LyapunovParams, Observation, lyapunov, solve_p1

jitted = jax.jit(solve_p1, static_argnames=("rule", "objective", "min_devices"))


def random_problem(rng, size):
    """Channels of FedFT's cell with weights that make every set size likely."""
    distance = 100 * np.sqrt(rng.random(size))
    snr_hz = 2.51e15 * distance**-3.0 * rng.exponential(size=size)
    queue = 25e-9 * 10 ** rng.uniform(-1, 1.5)
    return snr_hz, 20e6, 25e-9**2, queue


def solve(problem, dtype=jnp.float64, **options):
    return jitted(*(jnp.asarray(value, dtype) for value in problem), **options)


@pytest.mark.parametrize("objective", ["count", "bound"])
def test_exact_equals_brute_force(objective):
    rng = np.random.default_rng(0)
    sizes = []
    with jax.enable_x64(True):
        for _ in range(100):  # 200 over the two objectives
            problem = random_problem(rng, int(rng.integers(1, 7)))
            value, subset = reference.brute_force(*problem, objective)
            schedule = solve(problem, rule="exact", objective=objective)
            scale = abs(value) + problem[3] * float(schedule.delay)
            assert abs(float(schedule.value) - value) <= 1e-9 * scale
            assert tuple(np.flatnonzero(schedule.mask)) == subset
            sizes.append(len(subset))
    assert len(set(sizes)) >= 4  # the cases are not all of one kind


def test_exact_equals_brute_force_for_eight_devices():
    rng = np.random.default_rng(8)
    with jax.enable_x64(True):
        for _ in range(4):
            problem = random_problem(rng, 8)
            value, subset = reference.brute_force(*problem, "count")
            schedule = solve(problem)
            assert tuple(np.flatnonzero(schedule.mask)) == subset
            np.testing.assert_allclose(schedule.value, value, rtol=1e-9)


def test_float32_finds_as_good_a_set():
    """Where float32 picks another set, its objective is the same to float32's rounding."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        problem = random_problem(rng, 12)
        with jax.enable_x64(True):
            exact = solve(problem)
        single = solve(problem, jnp.float32)
        scale = problem[2] * 12 + problem[3] * float(exact.delay)
        assert abs(float(single.value) - float(exact.value)) <= 1e-5 * scale


@pytest.mark.parametrize("objective", ["count", "bound"])
def test_first_descent_equals_algorithm_1(objective):
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        for _ in range(100):
            problem = random_problem(rng, 12)
            value, chosen = reference.algorithm1(*problem, objective)
            schedule = solve(problem, rule="first_descent", objective=objective)
            assert set(np.flatnonzero(schedule.mask)) == set(chosen)
            np.testing.assert_allclose(schedule.value, value, rtol=1e-8)


def test_the_rules_differ_on_equal_channels():
    """Theorem 2 claims that Algorithm 1 is optimal; with equal channels it need not be.

    τ_K is then concave in K: the objective falls at K = 2 and rises again later.
    """
    problem = (np.full(40, 2e7), 20e6, 25e-9**2, 25e-9 * 2.4)
    with jax.enable_x64(True):
        delays = [reference.min_delay(problem[0][:k], problem[1])[0] for k in range(1, 41)]
        assert np.all(np.diff(delays, 2) < 0)
        descent, exact = (solve(problem, rule=rule) for rule in ("first_descent", "exact"))
        assert descent.mask.sum() < exact.mask.sum()
        assert descent.value < exact.value
        value, chosen = reference.algorithm1(*problem)
        assert len(chosen) == descent.mask.sum()
        np.testing.assert_allclose(descent.value, value, rtol=1e-9)


def test_the_order_of_devices_does_not_matter():
    rng = np.random.default_rng(3)
    snr_hz, *rest = random_problem(rng, 10)
    permutation = rng.permutation(10)
    with jax.enable_x64(True):
        base, permuted = solve((snr_hz, *rest)), solve((snr_hz[permutation], *rest))
    assert np.asarray(base.mask)[permutation].tolist() == permuted.mask.tolist()
    np.testing.assert_allclose(np.asarray(base.bandwidth)[permutation], permuted.bandwidth)
    assert base.delay == permuted.delay


def test_an_empty_queue_schedules_everyone_and_a_full_one_the_minimum():
    rng = np.random.default_rng(4)
    snr_hz, total_hz, weight, _ = random_problem(rng, 9)
    for objective in ("count", "bound"):
        assert solve((snr_hz, total_hz, weight, 0.0), jnp.float32, objective=objective).mask.all()
        full = (snr_hz, total_hz, weight, 1.0)
        for least in (1, 3):
            schedule = solve(full, jnp.float32, objective=objective, min_devices=least)
            strongest = np.argsort(-snr_hz)[:least]
            assert set(np.flatnonzero(schedule.mask)) == set(strongest)
    nobody = solve((snr_hz, total_hz, weight, 1.0), jnp.float32, min_devices=0)
    assert not nobody.mask.any()
    assert nobody.delay == 0


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(5)
    problems = [random_problem(rng, 7) for _ in range(6)]
    stacked = tuple(
        jnp.asarray(np.array(column), jnp.float32) for column in zip(*problems, strict=True)
    )
    batched = jax.jit(jax.vmap(solve_p1))(*stacked)
    for i, problem in enumerate(problems):
        single = solve(problem, jnp.float32)
        assert batched.mask[i].tolist() == single.mask.tolist()
        np.testing.assert_allclose(batched.bandwidth[i], single.bandwidth, rtol=1e-5)
        np.testing.assert_allclose(batched.delay[i], single.delay, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "best"}, "rule='best' is unknown: choose one of"),
        ({"objective": "mean"}, "objective='mean' is unknown: choose one of"),
        ({"min_devices": 5}, "min_devices=5 is impossible: choose 0 to 4"),
        ({"min_devices": -1}, "min_devices=-1 is impossible: choose 0 to 4"),
    ],
)
def test_wrong_choices_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        solve_p1(jnp.ones(4), jnp.float32(1), jnp.float32(1), jnp.float32(1), **options)
    if "min_devices" not in options:
        with pytest.raises(ValueError, match=message):
            lyapunov(**options)


def test_rounds_can_weigh_as_theorem_1_does():
    """V_t = v·τ̄²·c^(T−1−t): round T − 1 weighs 1, what comes after it too, earlier ones less."""
    scheduler, rng = lyapunov(objective="bound"), np.random.default_rng(5)
    snr_hz = jnp.asarray(rng.exponential(5e8, 12), jnp.float32)

    def value(params, index):
        seen = Observation(
            snr_hz, jnp.float32(20e6), jnp.float32(3e-8), jnp.float32(25e-9), jnp.int32(index)
        )
        return scheduler.step(jax.random.key(0), (), seen, params)[1]

    weighted = LyapunovParams(v=2.0, contraction=0.9, horizon_rounds=30)
    for index in (0, 7, 29, 30, 50):
        plain = LyapunovParams(v=2.0 * 0.9 ** max(29 - index, 0))
        same, other = value(plain, index), value(weighted, index)
        np.testing.assert_array_equal(same.mask, other.mask)
        np.testing.assert_allclose(same.value, other.value, rtol=1e-5)
    counts = [int(value(weighted, index).mask.sum()) for index in (0, 15, 29)]
    assert counts[0] < counts[1] < counts[2]
