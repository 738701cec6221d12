"""FedFT Fig. 6: running time of the scheduler over the delay budget.

The paper times Algorithm 1 and sees its mean time grow with the budget, as more sets are tried,
and its greatest time be largest at the tightest budget, as the queue's swings schedule "either a
small or large number" of devices. Here Algorithm 1, written from the paper in NumPy with
bisection, is timed on the problems that its own runs meet, beside `solve_p1`, whose number of
steps is fixed. As times are noisy, the verdicts rest on counts: sets tried, and evaluations of
Lemma 3 (bisection steps times devices).
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.special import lambertw

from jaxsplit.network import Network, NetworkInfo, run_network
from jaxsplit.results import Interval, mean_interval
from jaxsplit.scheduling import lyapunov, solve_p1
from jaxsplit.wireless import rayleigh

from .claims import OURS, above, all_of, because, signed
from .figure import Agrees, Claim, Finding, NetworkFigure, Progress, Siblings

BUDGETS_NS = (5, 10, 15, 25, 40, 60, 100, 200)
TOTAL_HZ = 20e6
LN2 = np.log(2)
WARM = 300  # rounds that fill the queue
CALLS = 300  # of solve_p1, one by one
BLUE, LIGHT_BLUE, ORANGE, GREEN = "#0072b2", "#56b4e9", "#d55e00", "#009e73"


@dataclass(frozen=True, kw_only=True)
class SchedulerScale:
    """How much is simulated and timed."""

    default_seeds: int
    """Runs of each case and budget unless told otherwise."""
    rounds: int
    """Rounds of a run, after those that warm up the queue."""
    timed_seeds: int
    """Runs of which every round is timed."""
    repeats: int
    """Times that a problem is solved; the least time counts."""
    batch_calls: int
    """Times that a batch of all problems is solved; likewise."""


class Case(NamedTuple):
    """A regime in which the schedulers run."""

    num_devices: int
    objective: Literal["count", "bound"]
    warmup_rounds: int

    def __str__(self) -> str:
        """In words."""
        start = "warm queue" if self.warmup_rounds else "Q_0 = 0"
        return f"N = {self.num_devices}, {self.objective}, {start}"


OBJECTIVES: tuple[Literal["count", "bound"], ...] = ("count", "bound")
CASES = tuple(Case(n, o, w) for n in (20, 100) for o in OBJECTIVES for w in (WARM, 0))
TIMED = tuple(case for case in CASES if case.objective == "count" and case.warmup_rounds)


# -- Algorithm 1 as the paper has it ---------------------------------------------------------------


def required_hz(rate: float, snr_hz: np.ndarray) -> np.ndarray:
    """Lemma 3 (25), with SciPy's Lambert W."""
    c = rate * LN2 / snr_hz
    return -rate * LN2 / (c + lambertw(-c * np.exp(-c), -1).real)


def bisected_delay(snr_hz: np.ndarray) -> tuple[float, int]:
    """Least delay per bit of a set (24), strongest first, and the bisection steps it took."""
    share_hz = TOTAL_HZ / len(snr_hz)
    low = share_hz * np.log2(1 + snr_hz[-1] / share_hz)  # on the equal split
    high = snr_hz[-1] / LN2 * (1 - 1e-12)  # on any bandwidth
    steps = 0
    while high - low > 1e-9 * low:
        rate = (low + high) / 2
        if required_hz(rate, snr_hz).sum() < TOTAL_HZ:
            low = rate
        else:
            high = rate
        steps += 1
    return 2 / (low + high), steps


class Solution(NamedTuple):
    """What Algorithm 1 chose, and what it cost."""

    num_scheduled: int  # K
    value: float
    tried: int  # sets
    evaluations: int  # of Lemma 3, one per device and bisection step


def algorithm1(snr_hz: np.ndarray, weight: float, queue: float, objective: str) -> Solution:
    """Algorithm 1: add the next strongest device until the objective falls."""
    num_devices = len(snr_hz)
    snr_hz = np.sort(snr_hz)[::-1]
    best, evaluations = -np.inf, 0
    for k in range(1, num_devices + 1):
        delay, steps = bisected_delay(snr_hz[:k])
        evaluations += steps * k
        reward = k if objective == "count" else -num_devices / k
        value = weight * reward - queue * delay
        if value < best:
            return Solution(k - 1, best, k, evaluations)
        best = value
    return Solution(num_devices, best, num_devices, evaluations)


# -- the problems that occur -----------------------------------------------------------------------


def simulate(case: Case, seeds: int, rounds: int, done: Callable[[int], None]) -> list[NetworkInfo]:
    """The rounds of all seeds, per budget, as NumPy arrays [seed, round, ...]."""
    scheduler = lyapunov("first_descent", case.objective)
    network = Network(case.num_devices, rayleigh(), scheduler)
    params = network.default_params()

    @jax.jit
    def run(keys: jax.Array, budget: jax.Array) -> NetworkInfo:
        numbers = params._replace(delay_budget=budget)
        one = functools.partial(
            run_network,
            network=network,
            params=numbers,
            num_rounds=rounds,
            warmup_rounds=case.warmup_rounds,
        )
        return jax.vmap(lambda key: one(key)[1])(keys)

    keys = jax.random.split(jax.random.key(0), seeds)
    runs = []
    for budget_ns in BUDGETS_NS:
        runs.append(jax.tree.map(np.asarray, run(keys, jnp.float32(1e-9 * budget_ns))))
        done(seeds * rounds)
    return runs


class Problem(NamedTuple):
    """P1 as a round met it, and what `solve_p1` chose in float32."""

    snr_hz: np.ndarray  # [N]
    weight: float
    queue: float
    mask: np.ndarray  # [N]
    is_ambiguous: bool


def problems_of(run: NetworkInfo, budget_ns: float, seeds: int) -> list[Problem]:
    """All rounds of the first seeds of a budget's runs."""
    weight = float(np.float32(1e-9 * budget_ns)) ** 2
    return [
        Problem(
            snr_hz=np.asarray(run.snr_hz[seed, index], float),
            weight=weight,
            queue=float(run.queue[seed, index]),
            mask=np.asarray(run.mask[seed, index]),
            is_ambiguous=bool(run.is_ambiguous[seed, index]),
        )
        for seed in range(seeds)
        for index in range(run.delay.shape[1])
    ]


# -- times -----------------------------------------------------------------------------------------


def time_algorithm1(
    case: Case, problems: list[list[Problem]], repeats: int, done: Callable[[int], None]
) -> xr.Dataset:
    """Time Algorithm 1 on whole runs, the budgets in turn, so that a busy moment hits all alike."""
    shape = len(problems), len(problems[0])
    seconds = np.full(shape, np.inf)
    solutions: dict[tuple[int, int], Solution] = {}
    for _ in range(repeats):
        for i in range(shape[1]):
            for b, of in enumerate(problems):
                start = time.perf_counter()
                solutions[b, i] = algorithm1(*of[i][:3], case.objective)
                seconds[b, i] = min(seconds[b, i], time.perf_counter() - start)
            done(len(problems))

    def each(read: Callable[[Problem, Solution], Any]) -> tuple[tuple[str, str], np.ndarray]:
        values = [read(problems[b][i], solutions[b, i]) for b, i in np.ndindex(shape)]
        return ("delay_budget", "problem"), np.reshape(values, shape)

    return xr.Dataset(
        {
            "algorithm1_s": (("delay_budget", "problem"), seconds),
            "sets_tried": each(lambda _, solution: solution.tried),
            "evaluations": each(lambda _, solution: solution.evaluations),
            "is_ambiguous": each(lambda problem, _: problem.is_ambiguous),
            "solved_differently": each(lambda *both: not is_same_set(*both)),
        }
    )


def is_same_set(problem: Problem, solution: Solution) -> bool:
    """Whether `solve_p1` chose the same set; it must, unless it reported that it could not tell."""
    strongest = np.argsort(-problem.snr_hz, kind="stable")[: solution.num_scheduled]
    return set(strongest) == set(np.flatnonzero(problem.mask))


def time_solve_p1(case: Case, runs: list[NetworkInfo], batch_calls: int) -> xr.Dataset:
    """Seconds per problem of the compiled `solve_p1`.

    One by one, the median over problems; and all in one call, the least of several calls.
    """

    def solve(snr_hz: jax.Array, weight: jax.Array, queue: jax.Array) -> Any:
        total_hz = jnp.float32(TOTAL_HZ)
        return solve_p1(snr_hz, total_hz, weight, queue, "first_descent", case.objective)

    single, batched = jax.jit(solve), jax.jit(jax.vmap(solve, in_axes=(0, None, 0)))
    problems = []
    for budget_ns, run in zip(BUDGETS_NS, runs, strict=True):
        snr_hz = jnp.asarray(run.snr_hz.reshape(-1, case.num_devices))
        weight = jnp.square(jnp.float32(1e-9 * budget_ns))
        problems.append((snr_hz, weight, jnp.asarray(run.queue.ravel())))
    alone = [
        [(snr_hz[i], weight, queue[i]) for i in range(min(CALLS, len(queue)))]
        for snr_hz, weight, queue in problems
    ]
    count = problems[0][0].shape[0]
    alone_s = np.median(in_turn(single, alone), axis=0)
    together_s = in_turn(batched, [batch_calls * [problem] for problem in problems]).min(axis=0)
    return xr.Dataset(
        {
            "solve_p1_single_s": ("delay_budget", alone_s),
            "solve_p1_batch_s": ("delay_budget", together_s / count),
        }
    )


def in_turn(call: Callable, arguments: list[list[tuple]]) -> np.ndarray:
    """Seconds of calls [call, budget], the budgets in turn."""
    jax.block_until_ready(call(*arguments[0][0]))
    seconds = np.empty((len(arguments[0]), len(arguments)))
    for i in range(seconds.shape[0]):
        for b, of in enumerate(arguments):
            start = time.perf_counter()
            jax.block_until_ready(call(*of[i]))
            seconds[i, b] = time.perf_counter() - start
    return seconds


# -- the whole -------------------------------------------------------------------------------------

# name: (unit, meaning)
_VARIABLES = {
    "num_scheduled": ("devices", "scheduled devices K_t"),
    "algorithm1_s": ("s", "time of Algorithm 1 in NumPy"),
    "sets_tried": ("", "sets that Algorithm 1 tries"),
    "evaluations": ("", "evaluations of Lemma 3 by Algorithm 1"),
    "is_ambiguous": ("", "float32 cannot tell the schedule from another"),
    "solved_differently": ("", "solve_p1 chose another set than Algorithm 1"),
    "solve_p1_single_s": ("s", "time of a single solve_p1, median"),
    "solve_p1_batch_s": ("s", "time of solve_p1 per problem of a batch"),
}


def run(scale: SchedulerScale, seeds: int, progress: Progress) -> xr.Dataset:
    """Simulate all cases, and time those of the paper.

    Args:
      scale: how much.
      seeds: independent runs of each case and budget.
      progress: told about the stages "simulating", in rounds, and "timing", in problems.

    Returns:
      A data set with dimensions case, delay_budget, seed, round; timed_case and problem.
    """
    timed_seeds = min(scale.timed_seeds, seeds)
    per_case = len(BUDGETS_NS) * seeds * scale.rounds
    simulated = _counter(progress, "simulating", len(CASES) * per_case)
    num_problems = len(BUDGETS_NS) * timed_seeds * scale.rounds * scale.repeats
    timed = _counter(progress, "timing", len(TIMED) * num_problems)

    runs = {case: simulate(case, seeds, scale.rounds, simulated) for case in CASES}
    times = []
    for case in TIMED:
        problems = [
            problems_of(of, budget_ns, timed_seeds)
            for budget_ns, of in zip(BUDGETS_NS, runs[case], strict=True)
        ]
        ours = time_solve_p1(case, runs[case], scale.batch_calls)
        times.append(time_algorithm1(case, problems, scale.repeats, timed).merge(ours))

    scheduled = [[of.mask.sum(axis=-1) for of in runs[case]] for case in CASES]
    result = xr.concat(times, xr.Variable("timed_case", list(map(str, TIMED)))).assign(
        num_scheduled=(("case", "delay_budget", "seed", "round"), np.array(scheduled))
    )
    for name, (units, meaning) in _VARIABLES.items():
        result[name].attrs.update(units=units, long_name=meaning)
    return result.assign_coords(
        case=list(map(str, CASES)),
        num_devices=("case", [case.num_devices for case in CASES]),
        delay_budget=("delay_budget", 1e-9 * np.array(BUDGETS_NS), {"units": "s/bit"}),
        seed=np.arange(seeds),
        round=np.arange(scale.rounds),
    ).assign_attrs(
        batch=seeds * scale.rounds, jax=jax.__version__, device_kind=jax.devices()[0].device_kind
    )


def _counter(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Adds up what is done of a stage."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    return add


# -- verdicts --------------------------------------------------------------------------------------


def sets_tried(result: xr.Dataset, case: Case) -> xr.DataArray:
    """Sets that Algorithm 1 tries in each round: that after the chosen one is found worse."""
    return np.minimum(result.num_scheduled.sel(case=str(case)) + 1, case.num_devices)


def _listed(values: Sequence[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values)


def _grows_up_to(values: np.ndarray) -> str:
    """The budget up to which numbers increase from each budget to the next."""
    falls = np.flatnonzero(np.diff(values) <= 0)
    return f"{BUDGETS_NS[falls[0] if len(falls) else -1]} ns/bit"


def _mean_time_grows(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for case in TIMED:
        of = result.sel(timed_case=str(case))
        milliseconds = 1e3 * of.algorithm1_s.mean("problem").values
        evaluations = of.evaluations.mean("problem").values
        tried = sets_tried(result, case).mean("round").transpose("delay_budget", "seed")
        steps = [mean_interval(step) for step in np.diff(tried.values, axis=0)]
        agrees = all_of(above(step) for step in steps)
        mean_devices = result.num_scheduled.sel(case=str(case)).mean(("seed", "round"))
        yield Finding(
            measured=f"mean time {milliseconds[0]:.2g} ms at {BUDGETS_NS[0]} ns/bit, "
            f"{milliseconds[-1]:.2g} ms at {BUDGETS_NS[-1]} ns/bit; sets tried from each budget "
            f"to the next {', '.join(signed(step, 1) for step in steps)}",
            agrees=agrees,
            reason=because(
                agrees,
                result,
                f"the mean of the sets tried grows up to {_grows_up_to(tried.values.mean(axis=1))}",
                f"that of the evaluations of Lemma 3 up to {_grows_up_to(evaluations)}, of the "
                f"time up to {_grows_up_to(milliseconds)} ({of.sizes['problem']} timed rounds)",
                f"mean K at each budget {_listed(mean_devices.values, '{:.1f}')}",
            ),
            of=str(case),
        )


def most_tried(result: xr.Dataset, case: Case) -> np.ndarray:
    """Sets that the largest search of each run tries, [budget, seed]."""
    return sets_tried(result, case).max("round").transpose("delay_budget", "seed").values


def _greatest_when_tight(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for case in CASES:
        most = most_tried(result, case).astype(float)
        pairs = [(i, j) for i in range(len(most)) for j in range(i + 1, len(most))]
        joint = {pair: _exceeds(most, pair, 1 - 0.05 / len(pairs)) for pair in pairs}
        means = most.mean(axis=1)
        tight, loose = max(pairs, key=lambda pair: means[pair[0]] - means[pair[1]])
        widest = _exceeds(most, (tight, loose), 0.95)
        ahead = [pair for pair, interval in joint.items() if interval.low > 0]
        agrees = _is_greatest_when_tight(case, widest, bool(ahead))
        exceeded = [
            f"{BUDGETS_NS[i]} ns/bit that at {'/'.join(str(BUDGETS_NS[j]) for j in looser)}"
            for i in range(len(most))
            if (looser := [j for k, j in ahead if k == i])
        ]
        yield Finding(
            measured=f"sets tried by a run's largest search, {BUDGETS_NS[tight]} minus "
            f"{BUDGETS_NS[loose]} ns/bit: {signed(widest, 1)}",
            agrees=agrees,
            reason=because(
                agrees,
                result,
                f"at each budget {_listed(means, '{:.1f}')}",
                f"jointly significant: {', '.join(exceeded) or 'nowhere'}",
                "round 0 schedules everybody" if not case.warmup_rounds else "",
            ),
            of=str(case),
        )


def _exceeds(most: np.ndarray, pair: tuple[int, int], confidence: float) -> Interval:
    """What the greatest effort at a tight budget has over that at a looser one."""
    return mean_interval(most[pair[0]] - most[pair[1]], confidence)


def _is_greatest_when_tight(case: Case, widest: Interval, any_ahead: bool) -> Agrees:
    """A twentieth of the devices is no larger search."""
    if np.isnan(widest.low):
        return "undecided"
    if any_ahead:
        return "yes"
    return "no" if widest.mean <= case.num_devices / 20 else "undecided"


def _small_or_large(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for case in TIMED:
        scheduled = result.num_scheduled.sel(case=str(case))
        one, most = scheduled == 1, scheduled > case.num_devices / 2
        between = ~one & ~most
        # The extremes outweigh the middle, and a run has rounds of both kinds.
        extremes = (one | most).mean("round") - between.mean("round")
        agrees = all_of(
            above(mean_interval(values.isel(delay_budget=0).values))
            for values in (extremes, one.sum("round"), most.sum("round"))
        )
        shares = [100 * each.mean(("seed", "round")).values for each in (one, between, most)]
        yield Finding(
            measured=f"at {BUDGETS_NS[0]} ns/bit {shares[0][0]:.1f} % of rounds schedule one "
            f"device, {shares[2][0]:.1f} % more than half, {shares[1][0]:.1f} % others",
            agrees=agrees,
            reason=because(
                agrees, result, f"% of others at each budget {_listed(shares[1], '{:.0f}')}"
            ),
            of=str(case),
        )


def _same_sets(result: xr.Dataset, siblings: Siblings) -> list[Finding]:
    differs, ambiguous = result.solved_differently, result.is_ambiguous
    wrong = int((differs & ~ambiguous).sum())
    return [
        Finding(
            measured=f"{int(differs.sum())} of {differs.size} problems solved differently",
            agrees="no" if wrong else "yes",
            reason=f"{int(ambiguous.sum())} are reported as ambiguous in float32; {wrong} differ "
            "without such a report",
        )
    ]


def _steady_solver(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for case in TIMED:
        of = result.sel(timed_case=str(case))
        spread = [
            float(values.max() / values.min())
            for values in (of.solve_p1_single_s, of.solve_p1_batch_s)
        ]
        single, batch = (
            1e6 * float(values.median()) for values in (of.solve_p1_single_s, of.solve_p1_batch_s)
        )
        agrees: Agrees = "yes" if max(spread) < 1.25 else "undecided"
        yield Finding(
            measured=f"{single:.0f} µs alone, {batch:.1f} µs of {result.attrs['batch']} at once",
            agrees=agrees,
            reason=f"slowest over fastest budget: {spread[0]:.2f} alone, {spread[1]:.2f} at once; "
            "the number of steps is fixed, what differs is other load on the machine",
            of=str(case),
        )


_SOURCE = "FedFT Fig. 6"
_CLAIMS = (
    Claim(_SOURCE, "the mean running time grows with the budget", _mean_time_grows),
    Claim(
        _SOURCE,
        "a tight budget has a greater maximum of the running time than looser ones",
        _greatest_when_tight,
    ),
    Claim(
        _SOURCE,
        "at the tightest budget either a small or a large number of devices is scheduled",
        _small_or_large,
    ),
    Claim(OURS, "solve_p1 chooses the sets of Algorithm 1", _same_sets),
    Claim(OURS, "the time of solve_p1 does not depend on the budget", _steady_solver),
)


# -- the figure ------------------------------------------------------------------------------------

_PLACES = np.arange(len(BUDGETS_NS))


def draw(result: xr.Dataset) -> matplotlib.figure.Figure:
    """A row per number of devices: time of Algorithm 1, devices, time beside `solve_p1`."""
    figure = matplotlib.figure.Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(len(TIMED), 3, squeeze=False)
    for left, _, right in panels[1:]:  # times
        left.sharey(panels[0, 0])
        right.sharey(panels[0, 2])
    for (left, middle, right), case in zip(panels, TIMED, strict=True):
        milliseconds = 1e3 * result.algorithm1_s.sel(timed_case=str(case))
        _boxes(left, list(milliseconds.values))
        left.set(ylabel="time per round, ms", title=f"Algorithm 1, {case}")
        _devices(middle, result, case)
        _beside_solve_p1(right, result, case)
        for axes in (left, right):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        for axes in (left, middle, right):
            axes.set_xticks(_PLACES, [f"{budget:g}" for budget in BUDGETS_NS])
            axes.set_xlabel("delay budget τ̄, ns/bit")
            axes.grid(alpha=0.25)
    handles, labels = zip(
        *(axes.get_legend_handles_labels() for axes in (middle, right)), strict=True
    )
    figure.legend(
        [*handles[0], *handles[1]],
        [*labels[0], *labels[1]],
        loc="outside lower center",
        ncols=5,
        frameon=False,
    )
    figure.suptitle("Boxes are quartiles, whiskers reach the extremes", fontsize="medium")
    return figure


def _boxes(axes: Axes, values: list[np.ndarray]) -> None:
    """Boxes of quartiles with whiskers to the extremes, the mean as a red line."""
    axes.boxplot(
        values,
        positions=_PLACES,
        widths=0.55,
        whis=(0, 100),
        showmeans=True,
        meanline=True,
        meanprops={"color": "red", "linestyle": "-", "linewidth": 1.8},
        medianprops={"color": "k", "linestyle": ":"},
        manage_ticks=False,
    )
    axes.plot([], [], color="red", linewidth=1.8, label="mean")
    axes.plot([], [], color="k", linestyle=":", label="median")


def _devices(axes: Axes, result: xr.Dataset, case: Case) -> None:
    """Scheduled devices in all rounds, and the greatest number of a run in related cases."""
    scheduled = result.num_scheduled.stack(rounds=("seed", "round"))
    _boxes(axes, list(scheduled.sel(case=str(case)).values))
    for other, marker, colour, label in (
        (case, "v", ORANGE, "maximum of a run (mean of seeds)"),
        (case._replace(objective="bound"), "^", GREEN, "... under the objective bound"),
        (case._replace(warmup_rounds=0), "D", BLUE, "... from Q_0 = 0"),
    ):
        most = result.num_scheduled.sel(case=str(other)).max("round").mean("seed")
        fill = "none" if marker == "D" else "full"
        style: dict[str, Any] = {"color": colour, "markersize": 7, "fillstyle": fill}
        axes.plot(_PLACES, most, marker, label=label, **style)
    axes.set(ylabel="scheduled devices K", title=f"devices, {case}")
    axes.set_ylim(0, 1.08 * case.num_devices)
    axes.set_yticks(np.arange(5) * case.num_devices // 4)


def _beside_solve_p1(axes: Axes, result: xr.Dataset, case: Case) -> None:
    of = 1e3 * result.sel(timed_case=str(case))
    for values, label, colour, style in (
        (of.algorithm1_s.mean("problem"), "Algorithm 1, mean", BLUE, "o-"),
        (of.algorithm1_s.median("problem"), "Algorithm 1, median", LIGHT_BLUE, "o--"),
        (of.solve_p1_single_s, "solve_p1, alone", ORANGE, "s-"),
        (of.solve_p1_batch_s, f"solve_p1, {result.attrs['batch']} at once", GREEN, "s-"),
    ):
        axes.plot(_PLACES, values, style, color=colour, label=label, markersize=5)
    title = f"beside solve_p1, N = {case.num_devices}"
    axes.set(ylabel="time per problem, ms", title=title)


FIGURE = NetworkFigure(
    name="fedft-fig6",
    title="FedFT Fig. 6: running time of the scheduler over the delay budget",
    scales={
        "laptop": SchedulerScale(
            default_seeds=10, rounds=200, timed_seeds=1, repeats=1, batch_calls=3
        ),
        "paper": SchedulerScale(
            default_seeds=20, rounds=200, timed_seeds=3, repeats=2, batch_calls=7
        ),
    },
    run=run,
    draw=draw,
    claims=_CLAIMS,
)
