"""Algorithm 2 against exhaustive search, and what must hold of every plan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planning.systems import RATIOS, random_arguments, random_problem, stacked

from jaxsplit.planning import accuracy_at, beta_at, exhaustive, fit_accuracy, plan, plan_problem
from jaxsplit.planning.example import example_problem

NUM_SYSTEMS = 60
GRID = 96  # of ρ, with the knots of β among its points
SEARCHES = ("augmented_lagrangian", "exact")


def of(plans, k):
    return jax.tree.map(lambda x: x[k], plans)


def ladders():
    """One system with ever more band, and one with ever less accuracy asked for."""
    rng = np.random.default_rng(3)
    problem = random_problem(rng, accuracy_min=0.5)
    factors = np.float32([1, 1.5, 2, 4])
    wider = [
        problem._replace(total_hz=problem.total_hz * x, cap_hz=problem.cap_hz * 8) for x in factors
    ]
    laxer = [problem._replace(accuracy_min=jnp.float32(x)) for x in np.linspace(0.65, 0.3, 8)]
    return wider, laxer


@pytest.fixture(scope="module")
def problems():
    rng = np.random.default_rng(0)
    return [random_problem(rng) for _ in range(NUM_SYSTEMS)]


@pytest.fixture(scope="module", params=SEARCHES)
def all_plans(problems, request):
    """Plans of the random systems and of both ladders, solved as one batch."""
    planned = jax.jit(jax.vmap(lambda problem: plan(problem, search=request.param)))
    wider, laxer = ladders()
    return jax.device_get(planned(stacked([*problems, *wider, *laxer])))


@pytest.fixture(scope="module")
def plans(all_plans):
    return of(all_plans, slice(NUM_SYSTEMS))


@pytest.fixture(scope="module")
def references(problems):
    return [exhaustive(problem, GRID) for problem in problems]


def test_plan_is_that_of_exhaustive_search(problems, plans, references):
    """Never slower than the best grid point; faster by what one cell of ρ changes at most."""
    compared = 0
    for k, (problem, best) in enumerate(zip(problems, references, strict=True)):
        found = of(plans, k)
        if not best.feasible:
            continue
        assert found.feasible
        compared += 1
        assert found.delay_s <= best.delay_s * (1 + 1e-5)
        # The nearest point of the grid that is allowed, at the plan's own cut and E.
        c = np.flatnonzero(np.asarray(problem.cuts) == found.cut)[0]
        e = np.flatnonzero(best.every_levels == found.levels)[0]
        near = best.allowed[c, e] & (
            np.abs(best.ratios - found.ratio) <= best.ratios[1] - best.ratios[0] + 1e-6
        )
        if near.any():
            cell = np.max(np.abs(np.diff(best.delays_s[c, e])))
            assert best.delay_s - found.delay_s <= cell * (1 + 1e-5) + 1e-5 * best.delay_s
    assert compared >= 50


def test_feasible_plans_keep_all_constraints(problems, plans):
    """Recomputed in NumPy."""
    for k, problem in enumerate(problems):
        found = of(plans, k)
        if not found.feasible:
            continue
        row = np.flatnonzero(np.asarray(problem.cuts) == found.cut)[0]
        accuracy = accuracy_at(problem.surface, found.ratio, found.levels)
        assert accuracy >= problem.accuracy_min - problem.tolerance - 1e-6
        assert np.all(problem.memory_bytes[row] <= problem.memory_limit_bytes)
        assert problem.ratio_range[0] <= found.ratio <= problem.ratio_range[1]
        assert problem.levels_range[0] <= found.levels <= problem.levels_range[1]
        assert np.all(found.bandwidth_hz <= problem.cap_hz * (1 + 1e-6))
        np.testing.assert_allclose(found.bandwidth_hz.sum(), problem.total_hz, rtol=1e-5)
        beta = beta_at(problem.beta, found.ratio, found.levels)
        work = beta * problem.coded_work[row] + problem.plain_work[row]
        np.testing.assert_allclose(
            found.delay_s, np.max(problem.fixed_s[row] + work / found.bandwidth_hz), rtol=1e-5
        )
        assert found.per_cut.delay_s[row] == found.delay_s
        assert np.all(found.per_cut.delay_s[found.per_cut.feasible] >= found.delay_s)


def test_infeasible_systems_are_reported(problems, plans, references):
    """What exhaustive search finds nothing for is infeasible, or fits between its points."""
    for k, best in enumerate(references):
        found = of(plans, k)
        if best.feasible or found.feasible:
            continue
        accurate = found.per_cut.accuracy_met.any()
        fits = found.per_cut.memory_met.any()
        assert not (accurate and fits and found.per_cut.caps_met.all())


@pytest.fixture(scope="module")
def equal_plans(problems):
    solve = jax.jit(jax.vmap(partial(plan, bandwidth="equal", search="exact")))
    return jax.device_get(solve(stacked(problems)))


def test_equal_split_is_never_better(plans, equal_plans):
    both = equal_plans.feasible & plans.feasible
    assert both.sum() >= 50
    assert np.all(equal_plans.delay_s[both] >= plans.delay_s[both] * (1 - 1e-5))
    assert np.any(equal_plans.delay_s[both] > plans.delay_s[both] * 1.05)


def test_equal_split_equals_its_exhaustive_search():
    problem = example_problem()
    best = exhaustive(problem, 951, bandwidth="equal")
    found = plan(problem, bandwidth="equal", search="exact")
    assert (int(found.cut), int(found.levels)) == (best.cut, best.levels)
    assert found.delay_s == pytest.approx(best.delay_s, rel=1e-3)
    np.testing.assert_allclose(found.bandwidth_hz, 5e6)


def test_more_band_and_less_accuracy_are_never_slower(all_plans):
    for part in (slice(NUM_SYSTEMS, NUM_SYSTEMS + 4), slice(NUM_SYSTEMS + 4, None)):
        found = of(all_plans, part)
        # Of those that are feasible; what asks for less stays so.
        assert np.all(np.diff(found.feasible.astype(int)) >= 0)
        delays_s = found.delay_s[found.feasible]
        assert len(delays_s) >= 4
        assert np.all(np.diff(delays_s) <= 1e-5 * delays_s[:-1])
        assert delays_s[-1] < 0.95 * delays_s[0]


def test_every_cut_has_its_least_delay(problems, plans, references):
    """Those without memory, too: the table says what more memory would bring."""
    for k, (problem, best) in enumerate(zip(problems, references, strict=True)):
        levels, ratios = jnp.asarray(best.every_levels), jnp.asarray(best.ratios)
        accuracy = jax.vmap(lambda e, of=problem, on=ratios: accuracy_at(of.surface, on, e))(levels)
        accurate = np.asarray(accuracy) >= problem.accuracy_min - problem.tolerance
        least_s = np.where(accurate, best.delays_s, np.inf).min((1, 2))
        assert np.all(of(plans, k).per_cut.delay_s <= least_s * (1 + 1e-5))


def test_multiplier_of_a_binding_constraint_is_positive():
    assert plan(example_problem()).multiplier > 0
    free = plan(example_problem(accuracy_min=0.1))
    assert free.multiplier == 0
    assert not free.binding.accuracy.binds
    assert free.binding.ratio_low.binds
    assert free.binding.levels_low.binds


def test_few_integers_are_searched_to_the_end():
    """Where E is small, the nearest integer of the continuous E need not be the best."""
    problem = example_problem()
    for least in np.linspace(0.60, 0.74, 8):
        tighter = problem._replace(accuracy_min=jnp.float32(least))
        best = exhaustive(tighter, 951)
        found = plan(tighter)
        assert found.delay_s <= best.delay_s * (1 + 1e-5)


def test_unreachable_accuracy():
    found = plan(example_problem(accuracy_min=0.8))
    assert not found.feasible
    assert not found.per_cut.accuracy_met.any()
    assert found.per_cut.memory_met.tolist() == [True, True, False]
    assert found.binding.accuracy.slack < 0
    assert found.accuracy == found.binding.reachable_accuracy
    grid = accuracy_at(
        example_problem().surface,
        jnp.linspace(0.05, 1, 951)[:, None] * jnp.ones((1, 63)),
        jnp.ones((951, 1), jnp.int32) * jnp.arange(1, 64)[None],
    )
    assert found.accuracy == pytest.approx(float(grid.max()), abs=1e-6)


def test_memory_forbids_every_cut():
    found = plan(example_problem()._replace(memory_limit_bytes=np.full(4, 0.5e9, np.float32)))
    assert not found.feasible
    assert not found.per_cut.memory_met.any()
    assert found.per_cut.accuracy_met.all()
    assert found.cut == 1  # the least excess


def test_memory_forbids_a_faster_cut():
    found = plan(example_problem())
    assert found.cut == 2
    assert found.binding.memory.binds.any(axis=1).tolist() == [False, False, True]
    free = plan(example_problem()._replace(memory_limit_bytes=np.full(4, 9e9, np.float32)))
    assert free.cut == 3
    assert free.delay_s < found.delay_s
    assert not free.binding.memory.binds.any()


def test_caps_that_cannot_fill_the_band():
    found = plan(example_problem()._replace(cap_hz=np.full(4, 1e6, np.float32)))
    assert not found.feasible
    assert not found.per_cut.caps_met.any()
    assert np.isfinite(found.delay_s)  # on what the caps allow
    np.testing.assert_allclose(found.binding.band.slack, -16e6)


def test_caps_that_just_fill_the_band():
    found = plan(example_problem()._replace(cap_hz=np.full(4, 5e6, np.float32)))
    assert found.feasible
    assert found.binding.caps.binds.all()


def test_one_trace_for_all_numbers():
    first, second = example_problem(0.7), example_problem(0.65)
    plan(first, search="exact")
    before = plan._cache_size()
    plan(second, search="exact")
    plan(second._replace(total_hz=jnp.float32(1e7), levels_range=jnp.array([2, 9])), search="exact")
    assert plan._cache_size() == before


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="bandwidth='fair' is unknown; give min_max or equal"):
        plan(example_problem(), bandwidth="fair")
    with pytest.raises(ValueError, match="search='newton' is unknown"):
        plan(example_problem(), search="newton")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed_s": np.ones((3, 5))}, r"coded_work must have shape \[3, 5\]"),
        ({"cuts": [1, 3, 2]}, "cuts must ascend"),
        ({"total_hz": 0.0}, "total_hz must be above 0, got 0"),
        ({"coded_work": np.full((3, 4), np.nan)}, "coded_work must be 0 or more, got nan"),
        ({"ratio_range": (0.01, 1)}, "ratio_range must ascend within the measured 0.05 to 1"),
        ({"ratio_range": (0.5, 0.4)}, "got 0.5 to 0.4"),
        ({"levels_range": (1, 255)}, "levels_range must ascend within the measured 1 to 63"),
        ({"accuracy_min": 75.0}, "accuracy_min must lie from -1 to 1, got 75"),
    ],
)
def test_wrong_numbers_are_refused(changes, message):
    arguments = random_arguments(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message) as error:
        plan_problem(**arguments | changes)
    assert "\n" not in str(error.value)


def test_bounds_hold():
    arguments = random_arguments(np.random.default_rng(0))
    surface = fit_accuracy(
        RATIOS[:, None], 2 ** np.arange(1, 7) - 1, 0.7 + 0.1 * RATIOS[:, None] * np.ones(6)
    )
    changes = {
        "surface": surface,
        "accuracy_min": 0.75,
        "ratio_range": (0.3, 0.9),
        "levels_range": (5, 20),
    }
    found = plan(plan_problem(**arguments | changes), search="exact")
    assert 5 <= found.levels <= 20
    assert 0.3 <= found.ratio <= 0.9
