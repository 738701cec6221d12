"""FedFT Fig. 6: running time of the scheduler over the delay budget.

    python experiments/fedft_figure6.py [--out results/fedft_figure6]

The paper times Algorithm 1 and sees its mean time grow with the budget, as more sets are tried,
and its greatest time be largest at the tightest budget, as the queue's swings schedule "either a
small or large number" of devices. Here Algorithm 1, written from the paper in NumPy with
bisection, is timed on the problems that its own runs meet, beside `solve_p1`, whose number of
steps is fixed. As times are noisy, the verdicts rest on counts: sets tried, and evaluations of
Lemma 3 (bisection steps times devices).
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.special import lambertw

from jaxsplit.network import Network, NetworkInfo, run_network
from jaxsplit.results import mean_interval
from jaxsplit.scheduling import lyapunov, solve_p1
from jaxsplit.wireless import rayleigh

BUDGETS_NS = (5, 10, 15, 25, 40, 60, 100, 200)
TOTAL_HZ = 20e6
LN2 = np.log(2)
WARM = 300  # rounds that fill the queue
BLUE, LIGHT_BLUE, ORANGE, GREEN = "#0072b2", "#56b4e9", "#d55e00", "#009e73"


class Case(NamedTuple):
    """A regime in which the schedulers run."""

    num_devices: int
    objective: str
    warmup_rounds: int

    def __str__(self) -> str:
        """In words."""
        start = "warm queue" if self.warmup_rounds else "Q_0 = 0"
        return f"N = {self.num_devices}, {self.objective}, {start}"


CASES = [Case(n, o, w) for n in (20, 100) for o in ("count", "bound") for w in (WARM, 0)]
TIMED = [case for case in CASES if case.objective == "count" and case.warmup_rounds]


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

    count: int  # scheduled devices K
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


def simulate(case: Case, seeds: int, rounds: int) -> list[NetworkInfo]:
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
    return [jax.tree.map(np.asarray, run(keys, jnp.float32(1e-9 * b))) for b in BUDGETS_NS]


def summary(case: Case, runs: list[NetworkInfo]) -> list[dict[str, Any]]:
    """How many devices are scheduled and sets are tried, per budget."""
    rows = []
    for budget_ns, run in zip(BUDGETS_NS, runs, strict=True):
        count = run.mask.sum(axis=-1)
        # The set after the chosen one is tried, too, and found worse.
        greatest = np.minimum(count + 1, case.num_devices).max(axis=1)
        rows.append(
            {
                "budget_ns_per_bit": budget_ns,
                "mean_devices": float(count.mean()),
                "rounds_with_one_device": float((count == 1).mean()),
                "rounds_with_more_than_half": float((count > case.num_devices / 2).mean()),
                "mean_delay_over_budget": float(run.delay.mean() / budget_ns * 1e9),
                "mean_sets_tried": float(np.minimum(count + 1, case.num_devices).mean()),
                "most_sets_tried_by_seed": greatest.tolist(),
                "most_sets_tried": mean_interval(greatest.astype(float)),
            }
        )
    return rows


# -- times -----------------------------------------------------------------------------------------


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
            snr_hz=run.snr_hz[seed, index].astype(float),
            weight=weight,
            queue=float(run.queue[seed, index]),
            mask=run.mask[seed, index],
            is_ambiguous=bool(run.is_ambiguous[seed, index]),
        )
        for seed in range(seeds)
        for index in range(run.delay.shape[1])
    ]


def time_algorithm1(case: Case, problems: list[list[Problem]], repeats: int) -> list[dict]:
    """Time Algorithm 1 on whole runs, the budgets in turn, so that a busy moment hits all alike."""
    seconds = np.full((len(problems), len(problems[0])), np.inf)
    solutions: dict[tuple[int, int], Solution] = {}
    for _ in range(repeats):
        for i in range(seconds.shape[1]):
            for b, of in enumerate(problems):
                start = time.perf_counter()
                solutions[b, i] = algorithm1(*of[i][:3], case.objective)
                seconds[b, i] = min(seconds[b, i], time.perf_counter() - start)
    rows = []
    for b, budget_ns in enumerate(BUDGETS_NS):
        solved = [solutions[b, i] for i in range(seconds.shape[1])]
        differs = [not is_same_set(*both) for both in zip(problems[b], solved, strict=True)]
        rows.append(
            {
                "budget_ns_per_bit": budget_ns,
                "problems": len(solved),
                "ambiguous_in_float32": sum(problem.is_ambiguous for problem in problems[b]),
                "of_these_solved_differently": sum(differs),
                "seconds": seconds[b].tolist(),
                "sets_tried": [one.tried for one in solved],
                "evaluations": [one.evaluations for one in solved],
            }
        )
    return rows


def is_same_set(problem: Problem, solution: Solution) -> bool:
    """Whether `solve_p1` chose the same set; it must, unless it reported that it could not tell."""
    strongest = np.argsort(-problem.snr_hz, kind="stable")[: solution.count]
    is_same = set(strongest) == set(np.flatnonzero(problem.mask))
    assert is_same or problem.is_ambiguous, (problem, solution)
    return is_same


def time_solve_p1(case: Case, runs: list[NetworkInfo], calls: int = 300) -> list[dict[str, float]]:
    """Microseconds per problem of the compiled `solve_p1`.

    One by one, the median over problems; and all in one call, the least of seven.
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
        [(snr_hz[i], weight, queue[i]) for i in range(min(calls, len(queue)))]
        for snr_hz, weight, queue in problems
    ]
    alone_s = np.median(in_turn(single, alone), axis=0)
    together_s = in_turn(batched, [7 * [problem] for problem in problems]).min(axis=0)
    count = problems[0][0].shape[0]
    return [
        {"single_us": round(1e6 * one, 1), "batch_us": round(1e6 * all_ / count, 1), "batch": count}
        for one, all_ in zip(alone_s, together_s, strict=True)
    ]


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


# -- verdicts --------------------------------------------------------------------------------------


def grows_up_to(values: list[float]) -> int:
    """The budget up to which numbers increase from each budget to the next."""
    falls = np.flatnonzero(np.diff(values) <= 0)
    return BUDGETS_NS[falls[0] if len(falls) else -1]


def verdict(case: Case, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the mean grows with the budget, and where the greatest effort exceeds later ones.

    Where seeds reach all devices at every budget, the first budget is named as the greatest. A
    budget's greatest effort exceeds that of a looser one if the difference of the seeds'
    maxima, which share their channels, is positive at 95 %.
    """
    most = np.array([row["most_sets_tried_by_seed"] for row in rows], float)
    exceeds = {}
    for tight in range(len(BUDGETS_NS)):
        below = [
            BUDGETS_NS[loose]
            for loose in range(tight + 1, len(BUDGETS_NS))
            if mean_interval(most[tight] - most[loose])[1] > 0
        ]
        if below:
            exceeds[str(BUDGETS_NS[tight])] = below
    return {
        "case": str(case),
        "mean_sets_grow_up_to_ns": grows_up_to([row["mean_sets_tried"] for row in rows]),
        "most_sets_tried": [round(float(value), 1) for value in most.mean(axis=1)],
        "greatest_maximum_at_ns": BUDGETS_NS[int(most.mean(axis=1).argmax())],
        "maximum_exceeds_that_of": exceeds,
    }


def compact(times: dict[str, Any]) -> dict[str, Any]:
    """Means and quantiles of what was timed."""
    kept = {k: v for k, v in times.items() if not isinstance(v, list)}
    milliseconds = 1e3 * np.array(times["seconds"])
    kept |= {
        "mean_ms": round(float(milliseconds.mean()), 3),
        "median_ms": round(float(np.median(milliseconds)), 3),
        "greatest_ms": round(float(milliseconds.max()), 3),
    }
    for name in ("sets_tried", "evaluations"):
        mean = round(float(np.mean(times[name])), 2)
        kept |= {f"mean_{name}": mean, f"most_{name}": max(times[name])}
    return kept


# -- the figure ------------------------------------------------------------------------------------


def boxes(axes: Axes, values: list[np.ndarray]) -> None:
    """Boxes of quartiles with whiskers to the extremes, the mean as a red line."""
    places = np.arange(len(BUDGETS_NS))
    axes.boxplot(
        values,
        positions=places,
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


def draw(record: dict[str, Any], runs: dict[Case, list[NetworkInfo]], path: Path) -> None:
    """A row per number of devices: time of Algorithm 1, devices, time beside `solve_p1`."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    places = np.arange(len(BUDGETS_NS))
    for (left, middle, right), case in zip(panels, TIMED, strict=True):
        of = record["times"][str(case)]
        boxes(left, [1e3 * np.array(row["seconds"]) for row in of["algorithm1"]])
        left.set(yscale="log", ylabel="time per round, ms", title=f"Algorithm 1, {case}")

        boxes(middle, [run.mask.sum(axis=-1).ravel() for run in runs[case]])
        others = (
            (case, "v", ORANGE, "maximum of a run (mean of seeds)"),
            (case._replace(objective="bound"), "^", GREEN, "... under the objective bound"),
            (case._replace(warmup_rounds=0), "D", BLUE, "... from Q_0 = 0"),
        )
        for other, marker, colour, label in others:
            most = [run.mask.sum(axis=-1).max(axis=1).mean() for run in runs[other]]
            fill = "none" if marker == "D" else "full"
            style = {"color": colour, "markersize": 7, "fillstyle": fill, "label": label}
            middle.plot(places, most, marker, **style)
        middle.set(ylabel="scheduled devices K", title=f"devices, {case}")
        middle.set_ylim(0, 1.08 * case.num_devices)
        middle.set_yticks(np.arange(5) * case.num_devices // 4)

        curves = (
            ([row["mean_ms"] for row in of["means"]], "Algorithm 1, mean", BLUE, "o-"),
            ([row["median_ms"] for row in of["means"]], "Algorithm 1, median", LIGHT_BLUE, "o--"),
            ([row["single_us"] / 1e3 for row in of["solve_p1"]], "solve_p1, alone", ORANGE, "s-"),
            (
                [row["batch_us"] / 1e3 for row in of["solve_p1"]],
                f"solve_p1, {of['solve_p1'][0]['batch']} at once",
                GREEN,
                "s-",
            ),
        )
        for values, label, colour, style in curves:
            right.plot(places, values, style, color=colour, label=label, markersize=5)
        right.set(
            yscale="log",
            ylabel="time per problem, ms",
            title=f"beside solve_p1, N = {case.num_devices}",
        )
        for axes in (left, right):
            axes.set_yticks(ticks := [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100], ticks)
            axes.yaxis.set_minor_formatter("")
        left.set_ylim(0.3, 120)
        right.set_ylim(0.007, 60)
        for axes in (left, middle, right):
            axes.set_xticks(places, [f"{budget:g}" for budget in BUDGETS_NS])
            axes.set_xlabel("delay budget τ̄, ns/bit")
            axes.grid(alpha=0.25)
    handles, labels = zip(
        *(axes.get_legend_handles_labels() for axes in (middle, right)), strict=True
    )
    style = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend([*handles[0], *handles[1]], [*labels[0], *labels[1]], **style)
    figure.suptitle("Boxes are quartiles, whiskers reach the extremes", fontsize="medium")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Simulate, time, judge; write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/fedft_figure6"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--timed-seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="the least time of these counts")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    record: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "seeds": options.seeds,
        "rounds": options.rounds,
        "timed_seeds": options.timed_seeds,
        "verdicts": [],
        "counts": {},
        "times": {},
    }
    runs = {}
    for case in CASES:
        runs[case] = simulate(case, options.seeds, options.rounds)
        record["counts"][str(case)] = summary(case, runs[case])
        record["verdicts"].append(verdict(case, record["counts"][str(case)]))
        print(json.dumps(record["verdicts"][-1]), flush=True)
    for case in TIMED:
        problems = [
            problems_of(run, budget_ns, options.timed_seeds)
            for budget_ns, run in zip(BUDGETS_NS, runs[case], strict=True)
        ]
        times = time_algorithm1(case, problems, options.repeats)
        ours = time_solve_p1(case, runs[case])
        means = [compact(row) for row in times]
        record["times"][str(case)] = {"algorithm1": times, "means": means, "solve_p1": ours}
        for row, one in zip(means, ours, strict=True):
            print(case, json.dumps(row | one), flush=True)
        record["verdicts"].append(
            {
                "case": str(case),
                "mean_time_grows_up_to_ns": grows_up_to([row["mean_ms"] for row in means]),
                "mean_evaluations_grow_up_to_ns": grows_up_to(
                    [row["mean_evaluations"] for row in means]
                ),
            }
        )
        print(json.dumps(record["verdicts"][-1]), flush=True)

    draw(record, runs, options.out / "fedft_figure6.png")
    for of in record["times"].values():
        del of["algorithm1"]  # every single time
    (options.out / "fedft_figure6.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
