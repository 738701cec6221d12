"""Min-max allocation against bisection and SciPy, and its invariants; the random split."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxsplit.scheduling import min_max_bandwidth, random_bandwidth
from jaxsplit.scheduling.min_max import _root

TOLERANCE = {jnp.float32: 1e-6, jnp.float64: 4e-15}
DTYPES = list(TOLERANCE)
METHODS = ("exact", "sqp")
NUM_DEVICES = 8
NUM_PROBLEMS = 1000  # in all batches, so that they share compiled programs


# -- problems and references -----------------------------------------------------------------------


def random_problem(rng, has_caps, decades=0.5, num_devices=NUM_DEVICES):
    """Fixed times, work, band and caps; the work within 2·`decades` decades."""
    fixed_s = rng.uniform(0, 10, num_devices)
    work = 10 ** (6 + rng.uniform(-decades, decades, num_devices))
    total_hz = work.sum() / 10 ** rng.uniform(-1, 2)
    cap_hz = np.full(num_devices, np.inf)
    if has_caps:
        cap_hz = total_hz * rng.dirichlet(np.full(num_devices, 5.0)) * rng.choice([1.02, 1.3, 3.0])
    return fixed_s, work, total_hz, cap_hz


def hard_problem(rng):
    """As users would not ask: work over many decades or none, fixed times that dwarf the rest."""
    decades = rng.choice([0.3, 1, 3, 8])
    fixed_s = 10 ** rng.uniform(-decades, decades, NUM_DEVICES) * rng.choice([0.0, 1.0, 1e3])
    if rng.random() < 0.2:
        fixed_s[:] = fixed_s[0]
    work = 10 ** rng.uniform(-decades, decades, NUM_DEVICES) * 10 ** rng.choice([3.0, 6.0, 9.0])
    work *= rng.random(NUM_DEVICES) < rng.choice([0.5, 1])
    total_hz = 10 ** rng.uniform(4, 9)
    cap_hz = np.full(NUM_DEVICES, np.inf)
    if rng.random() < 0.7:
        shares = rng.dirichlet(np.ones(NUM_DEVICES))
        cap_hz = total_hz * shares * rng.choice([1.0001, 1.3, 2, 10])
    return fixed_s, work, total_hz, cap_hz


def stacked(problems, dtype=np.float64):
    return tuple(np.asarray(column, dtype) for column in zip(*problems, strict=True))


def bisection(fixed_s, work, total_hz, cap_hz):
    """(27) in NumPy: the common time to finish of those below their caps, then the maximum."""
    cap_hz = np.minimum(cap_hz, total_hz)

    def band(time_s):
        with np.errstate(divide="ignore", invalid="ignore"):
            needed_hz = np.where(time_s > fixed_s, work / (time_s - fixed_s), np.inf)
        return np.where(work > 0, np.minimum(needed_hz, cap_hz), 0)

    early, late = 0.0, fixed_s.max() + work.sum() / total_hz
    for _ in range(90):
        time_s = (early + late) / 2
        if band(time_s).sum() > total_hz:
            early = time_s
        else:
            late = time_s
    band_hz = band(late)
    return np.max(fixed_s + np.where(work > 0, work / np.where(work > 0, band_hz, 1), 0))


def least_delay(fixed_s, work, total_hz, cap_hz):
    """The same delay from feasibility: caps allow t, and so does the band as if there were none."""
    is_working = work > 0
    alone = np.where(is_working, work / np.minimum(cap_hz, total_hz), 0)
    early, late = np.max(fixed_s + alone), np.max(fixed_s) + work.sum() / total_hz

    def used(time_s):
        with np.errstate(divide="ignore"):
            return np.sum(work[is_working] / (time_s - fixed_s[is_working]))

    if not is_working.any() or used(early) <= total_hz * (1 + 1e-15):
        return early
    for _ in range(90):
        time_s = (early + late) / 2
        if used(time_s) > total_hz:
            early = time_s
        else:
            late = time_s
    return late


def slsqp(fixed_s, work, total_hz, cap_hz):
    """SciPy on (b / B, t / t_0), from caps in proportion; the delay of its split."""
    cap = np.minimum(cap_hz / total_hz, 1)
    start = cap / cap.sum()
    scale_s = np.max(fixed_s + work / total_hz / start)
    fixed, alone = fixed_s / scale_s, work / total_hz / scale_s
    ones = np.append(np.ones_like(start), 0)
    best = minimize(
        lambda x: x[-1],
        np.append(start, 1.0),
        jac=lambda x: np.append(np.zeros_like(start), 1.0),
        bounds=[*((1e-9, c) for c in cap), (0, None)],
        constraints=[
            {"type": "eq", "fun": lambda x: x[:-1].sum() - 1, "jac": lambda x: ones},
            {
                "type": "ineq",
                "fun": lambda x: x[-1] - fixed - alone / x[:-1],
                "jac": lambda x: np.c_[np.diag(alone / x[:-1] ** 2), np.ones_like(fixed)],
            },
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    share = best.x[:-1] / best.x[:-1].sum()
    return scale_s * np.max(fixed + alone / share)


@partial(jax.jit, static_argnames="method")
def _allocate(fixed_s, work, total_hz, cap_hz, method):
    solve = partial(min_max_bandwidth, method=method)
    return jax.vmap(solve)(fixed_s, work, total_hz, cap_hz)


def allocate(fixed_s, work, total_hz, cap_hz, method="exact"):
    """A batch of problems, as NumPy arrays of the dtype of `work`."""
    with jax.enable_x64(work.dtype == np.float64):
        return jax.tree.map(np.asarray, _allocate(fixed_s, work, total_hz, cap_hz, method))


# -- the optimum -----------------------------------------------------------------------------------


def test_delay_equals_bisection_and_scipy():
    rng = np.random.default_rng(0)
    problems = [random_problem(rng, has_caps=i % 2 == 0) for i in range(NUM_PROBLEMS)]
    delay = allocate(*stacked(problems)).delay_s
    np.testing.assert_allclose(delay, [bisection(*p) for p in problems], rtol=1e-13)
    np.testing.assert_allclose(delay, [least_delay(*p) for p in problems], rtol=1e-13)
    np.testing.assert_allclose(delay, [slsqp(*p) for p in problems], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_hard_problems_to_rounding(dtype):
    rng = np.random.default_rng(1)
    arrays = stacked([hard_problem(rng) for _ in range(NUM_PROBLEMS)], dtype)
    exact_inputs = [np.asarray(x, np.float64) for x in arrays]
    band, delay = allocate(*arrays)
    assert band.dtype == delay.dtype == dtype
    expected = [least_delay(*p) for p in zip(*exact_inputs, strict=True)]
    np.testing.assert_allclose(delay, expected, rtol=TOLERANCE[dtype])
    sum_hz = band.sum(1, dtype=np.float64)
    np.testing.assert_allclose(sum_hz, exact_inputs[2], rtol=TOLERANCE[dtype])
    assert np.all((band >= 0) & (band <= arrays[3]))
    assert np.all(band[arrays[1] > 0] > 0)


def test_sqp_reaches_the_exact_delay():
    rng = np.random.default_rng(2)
    arrays = stacked([random_problem(rng, has_caps=i % 2 == 0) for i in range(NUM_PROBLEMS)])
    exact, sqp = (allocate(*arrays, method=method) for method in METHODS)
    np.testing.assert_allclose(sqp.delay_s, exact.delay_s, rtol=1e-6)
    np.testing.assert_allclose(sqp.bandwidth_hz.sum(1), arrays[2], rtol=1e-14)
    assert np.all(sqp.bandwidth_hz <= arrays[3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sqp_on_hard_problems_loses_its_floor_at_most(dtype):
    rng = np.random.default_rng(3)
    arrays = stacked([hard_problem(rng) for _ in range(NUM_PROBLEMS)], dtype)
    exact, sqp = (allocate(*arrays, method=method).delay_s for method in METHODS)
    assert np.all(sqp >= exact * (1 - TOLERANCE[dtype]))
    assert np.all(sqp <= exact * 1.0011)


def test_no_random_split_is_better():
    rng = np.random.default_rng(4)
    with jax.enable_x64():
        for i in range(50):
            fixed_s, work, total_hz, cap_hz = random_problem(rng, has_caps=i % 2 == 0)
            split = min_max_bandwidth(fixed_s, work, total_hz, cap_hz)
            cap_hz = np.minimum(cap_hz, total_hz)
            # Half from anywhere, half close to the best.
            far_hz = total_hz * rng.dirichlet(np.ones(NUM_DEVICES), 200)
            near_hz = np.asarray(split.bandwidth_hz) + 1e-3 * (far_hz - total_hz / NUM_DEVICES)
            band_hz = np.clip(np.concatenate([far_hz, near_hz]), 1e-9 * cap_hz, cap_hz)
            room_hz = cap_hz - band_hz
            left_hz = total_hz - band_hz.sum(1, keepdims=True)
            band_hz += np.maximum(left_hz, 0) * room_hz / room_hz.sum(1, keepdims=True)
            band_hz *= total_hz / np.maximum(band_hz.sum(1, keepdims=True), total_hz)
            delay_s = np.max(fixed_s + work / band_hz, axis=1)
            assert np.all(delay_s >= split.delay_s * (1 - 1e-12))


@pytest.mark.parametrize("dtype", DTYPES)
def test_root_over_thirty_decades(dtype):
    """The steps suffice however little of the work is the device's that starts last."""
    rng = np.random.default_rng(9)
    decades = rng.uniform(0, 30, (4000, 1))
    offset_s, alone_s = 10 ** (rng.uniform(-0.5, 0.5, (2, 4000, NUM_DEVICES)) * decades)
    offset_s[:, 0] = 0
    alone_s[:500, 0] = 1e-15 * offset_s[:500, 1:].min(1)  # next to nothing
    offset_s, alone_s, target = (x.astype(dtype) for x in (offset_s, alone_s, rng.random(4000)))
    with jax.enable_x64(dtype == jnp.float64):
        root = jax.jit(jax.vmap(lambda d, u, c: _root(d, u, c, jnp.full((), jnp.inf, dtype))))
        time_s = np.asarray(root(offset_s, alone_s, target))[:, None].astype(np.float64)
    share = np.sum(alone_s.astype(np.float64) / (offset_s.astype(np.float64) + time_s), axis=1)
    np.testing.assert_allclose(share, target, rtol=8 * np.finfo(dtype).eps)


# -- special cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("fixed_s", "work", "total_hz", "cap_hz", "band_hz", "delay_s"),
    [
        ([2.0], [6.0], 3.0, None, [3.0], 4.0),  # one device
        ([1.0] * 4, [2.0] * 4, 8.0, None, [2.0] * 4, 2.0),  # all equal
        ([1.0] * 4, [2.0] * 4, 8.0, 2.0, [2.0] * 4, 2.0),  # caps leave no choice
        ([0.0, 0.0], [1.0, 3.0], 4.0, None, [1.0, 3.0], 1.0),
        ([0.0, 0.0, 0.0], [9.0, 1.0, 3.0], 5.0, [1.0, 9.0, 9.0], [1.0, 1.0, 3.0], 9.0),
        ([7.0, 0.0, 0.0], [0.0, 1.0, 1.0], 1.0, None, [0.0, 0.5, 0.5], 7.0),  # one without work
        ([0.0, 5.0, 0.0], [1.0, 0.0, 0.0], 4.0, [1.0, 2.0, 4.0], [1.0, 1.0, 2.0], 5.0),
        ([1.0, 2.0], [0.0, 0.0], 4.0, None, [2.0, 2.0], 2.0),  # nobody has work
    ],
)
def test_by_hand(method, fixed_s, work, total_hz, cap_hz, band_hz, delay_s):
    if cap_hz is not None:
        cap_hz = jnp.asarray(cap_hz)
    split = min_max_bandwidth(jnp.array(fixed_s), jnp.array(work), total_hz, cap_hz, method)
    np.testing.assert_allclose(split.delay_s, delay_s, rtol=1e-6)
    np.testing.assert_allclose(np.sum(split.bandwidth_hz), total_hz, rtol=1e-6)
    assert split.is_feasible
    if method == "exact" or cap_hz is None:  # else the best split is not unique
        np.testing.assert_allclose(split.bandwidth_hz, band_hz, rtol=1e-5)


def test_devices_below_their_caps_finish_together():
    split = min_max_bandwidth(jnp.arange(4.0), jnp.full(4, 6.0), 10.0, jnp.array([1.0, 9, 9, 9]))
    band_hz, delay_s = np.asarray(split.bandwidth_hz), float(split.delay_s)
    finish_s = np.arange(4.0) + 6 / band_hz
    assert band_hz[0] == 1
    np.testing.assert_allclose(finish_s[1:], finish_s[1], rtol=1e-6)
    assert finish_s[1] < finish_s[0] == delay_s == 6


@pytest.mark.parametrize("method", METHODS)
def test_infeasible_caps_are_flagged(method):
    fixed_s, work = jnp.zeros(3), jnp.array([1.0, 1.0, 0.0])
    solve = partial(min_max_bandwidth, method=method)
    for cap_hz in (jnp.full(3, 0.99), jnp.array([0.0, 5.0, 5.0]), jnp.zeros(3)):
        split = solve(fixed_s, work, jnp.float32(3.0), cap_hz)
        assert not split.is_feasible
        assert split.delay_s == jnp.inf
        assert not np.any(split.bandwidth_hz)
    # A third of the band three times is the band, whatever the rounding; no work needs no cap.
    for cap_hz in (jnp.full(3, 1.0), jnp.array([1.0, 2.0, 0.0]), jnp.full(3, jnp.inf)):
        assert solve(fixed_s, work, jnp.float32(3.0), cap_hz).is_feasible


@pytest.mark.parametrize("num_devices", [3, 49])
def test_caps_of_an_equal_split_suffice(num_devices):
    total_hz = jnp.float32(3e7)
    ones = jnp.ones(num_devices)
    split = min_max_bandwidth(ones, ones, total_hz, total_hz / num_devices)
    np.testing.assert_allclose(split.bandwidth_hz, 3e7 / num_devices, rtol=1e-6)


# -- invariants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_order_and_units_do_not_matter(method):
    rng = np.random.default_rng(5)
    arrays = stacked([random_problem(rng, has_caps=i % 2 == 0) for i in range(NUM_PROBLEMS)])
    fixed_s, work, total_hz, cap_hz = arrays
    band, delay = allocate(*arrays, method=method)
    shuffle = rng.permutation(NUM_DEVICES)
    other = allocate(fixed_s[:, shuffle], work[:, shuffle], total_hz, cap_hz[:, shuffle], method)
    np.testing.assert_allclose(other.delay_s, delay, rtol=1e-9)
    milli = allocate(1e3 * fixed_s, work, 1e-3 * total_hz, 1e-3 * cap_hz, method)
    np.testing.assert_allclose(milli.delay_s, 1e3 * delay, rtol=1e-9)
    if method == "exact":  # SQP stops at any of the best splits
        np.testing.assert_allclose(other.bandwidth_hz, band[:, shuffle], rtol=1e-9)
        np.testing.assert_allclose(milli.bandwidth_hz, 1e-3 * band, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_jit_vmap_and_a_loop_agree(method):
    rng = np.random.default_rng(6)
    arrays = stacked(
        [random_problem(rng, has_caps=i % 2 == 0) for i in range(NUM_PROBLEMS)], np.float32
    )
    band, delay = allocate(*arrays, method=method)
    solve = partial(min_max_bandwidth, method=method)
    jitted = jax.jit(solve)
    for i, problem in enumerate(zip(*(x[:9] for x in arrays), strict=True)):
        for split in (solve(*problem), jitted(*problem)):
            np.testing.assert_allclose(split.delay_s, delay[i], rtol=1e-6)
            np.testing.assert_allclose(split.bandwidth_hz, band[i], rtol=1e-4)


def test_derivative_of_the_delay():
    rng = np.random.default_rng(7)

    def delay_s(*problem):
        return min_max_bandwidth(*problem).delay_s

    with jax.enable_x64():
        delay_and_slopes = jax.jit(jax.value_and_grad(delay_s, argnums=(0, 1, 2, 3)))
        for i in range(40):
            has_caps = i % 2 == 0
            problem = tuple(jnp.asarray(x) for x in random_problem(rng, has_caps))
            _, slopes = delay_and_slopes(*problem)
            direction = [x * rng.uniform(-1, 1, x.shape) for x in problem]
            if not has_caps:  # inf stays inf
                assert not np.any(slopes[3])
                direction[3] = jnp.zeros_like(problem[3])
            slope = sum(jnp.sum(s * d) for s, d in zip(slopes, direction, strict=True))
            step = 1e-6
            ends = [
                delay_and_slopes(
                    *(x + sign * step * d for x, d in zip(problem, direction, strict=True))
                )[0]
                for sign in (-1, 1)
            ]
            np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-5)


def test_one_trace_per_shape():
    traces = []

    @jax.jit
    def solve(fixed_s, work, total_hz, cap_hz):
        traces.append(fixed_s.shape)
        return min_max_bandwidth(fixed_s, work, total_hz, cap_hz)

    rng = np.random.default_rng(8)
    for num_devices in (2, 3, 2, 3, 2):
        problem = random_problem(rng, has_caps=True, num_devices=num_devices)
        solve(*(jnp.asarray(x, jnp.float32) for x in problem))
    assert traces == [(2,), (3,)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"work": np.array([1.0, -2.0])}, r"^work=-2: it must be finite and >= 0$"),
        ({"work": np.array([1.0, np.nan])}, r"^work=nan: it must be finite and >= 0$"),
        ({"fixed_s": np.array([np.inf, 0.0])}, r"^fixed_s=inf: it must be finite and >= 0$"),
        ({"total_hz": 0.0}, r"^total_hz=0: it must be finite and > 0$"),
        ({"cap_hz": np.array([-1.0, 9.0])}, r"^cap_hz=-1: it must be >= 0$"),
        ({"method": "simplex"}, r"^method='simplex' is unknown: choose one of \('exact', 'sqp'\)$"),
        ({"work": np.ones(3)}, r"^fixed_s has shape \(2,\) and work \(3,\): give one value per"),
        (
            {"fixed_s": np.float32(0)},
            r"^fixed_s has shape \(\) and work \(2,\): give one value per",
        ),
        ({"cap_hz": np.ones(3)}, r"^total_hz has shape \(\) and cap_hz \(3,\): give a scalar band"),
        ({"total_hz": np.ones(2)}, r"^total_hz has shape \(2,\) and cap_hz \(\): give a scalar"),
    ],
)
def test_bad_input(changes, message):
    good = {"fixed_s": np.zeros(2), "work": np.ones(2), "total_hz": 1.0}
    with pytest.raises(ValueError, match=message):
        min_max_bandwidth(**good | changes)


# -- the random split ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_split_is_uniform_on_the_simplex(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        mask = jnp.array([True, False, True, True, True])
        keys = jax.random.split(jax.random.key(0), 20_000)
        total_hz = dtype(5e6)
        split = jax.jit(jax.vmap(lambda key: random_bandwidth(key, mask, total_hz)))
        band_hz = np.asarray(split(keys))
    assert band_hz.dtype == dtype
    np.testing.assert_allclose(band_hz.sum(1), 5e6, rtol=1e-6)
    assert np.all((band_hz > 0) == np.asarray(mask))
    share = band_hz[:, np.asarray(mask)] / 5e6
    # Dirichlet(1) over four: mean 1/4, variance 3/80, P(share > x) = (1 - x)^3.
    np.testing.assert_allclose(share.mean(0), 1 / 4, atol=5 * np.sqrt(3 / 80 / 20_000))
    np.testing.assert_allclose(share.var(0), 3 / 80, rtol=0.05)
    np.testing.assert_allclose((share > 0.5).mean(0), 1 / 8, atol=0.012)


def test_random_split_of_nobody_is_zero():
    band_hz = random_bandwidth(jax.random.key(0), jnp.zeros(3, bool), jnp.float32(1e6))
    assert not np.any(band_hz)
