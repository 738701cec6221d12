"""FedFT Fig. 5 without learning: what the delay budget buys, by Theorem 1.

    python experiments/fedft_figure5_network.py [--out results/fedft_figure5_network] [--seeds 100]

The paper trains under several budgets and shows loss and accuracy. Here the network runs alone and
Theorem 1 turns its schedules into bounds: of the adapters by K_t, of the heads by who took part
(`jaxsplit.theory`). A verdict on each of the paper's claims is printed and stored.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from jaxsplit import Network, sweep
from jaxsplit.catalogue import SCHEDULERS
from jaxsplit.commands.progress import sweep_progress
from jaxsplit.plots import policy_colour
from jaxsplit.results import mean_interval
from jaxsplit.theory import ConvergenceParams, convergence_bound
from jaxsplit.wireless import rayleigh

POLICIES = ("all_in", "lyapunov_bound", "lyapunov_count", "greedy", "aaba")
PAPER = {"lyapunov_count": "the paper's", "lyapunov_bound": "ours"}
BUDGETS = np.array(  # s/bit
    [5e-9, 7.5e-9, 10e-9, 15e-9, 20e-9, 25e-9, 30e-9, 40e-9, 50e-9, 60e-9, 75e-9, 90e-9]
)
SHOWN = (10e-9, 25e-9, 60e-9)  # whose bound is drawn over rounds
# A strongly convex loss with noisy gradients: noise and start weigh alike for a few devices.
ADAPTERS = ConvergenceParams(
    smoothness=1.0,
    pl_constant=0.1,
    learning_rate=0.5,
    gradient_variance=1e-3,
    adapter_size=1000,
    head_size=0,
    initial_gap=1.0,
)


def bounds(result: xr.Dataset) -> xr.Dataset:
    """Bounds of Theorem 1 for the adapters over rounds, and of the heads at the end."""
    gap = convergence_bound(result.num_scheduled.values, ADAPTERS)
    dims = (*result.num_scheduled.dims[:-1], "step")
    contraction = 1 - ADAPTERS.pl_constant * ADAPTERS.learning_rate
    # A head contracts only in its own device's rounds, whenever those are.
    heads = (contraction**result.participation).mean("device")
    return result.assign(adapter_gap=(dims, np.asarray(gap, float)), head_gap=heads)


def draw(result: xr.Dataset, options: argparse.Namespace) -> plt.Figure:
    """Bound over rounds for three budgets; adapters, heads and devices over the budget."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.6), layout="constrained")
    for k, policy in enumerate(POLICIES):
        of = result.sel(scheduler=policy)
        style = {"color": policy_colour(policy, k), "linewidth": 1.5}
        for panel, budget in zip(panels[0], SHOWN, strict=True):
            path = of.adapter_gap.sel(delay_budget=budget).mean("seed")
            panel.plot(path.step, path, label=policy, **style)
            panel.set(
                yscale="log", xlabel="round", title=f"τ̄ = {budget * 1e9:g} ns/bit",
            )  # fmt: skip
        final = of.adapter_gap.isel(step=-1)
        for panel, values in zip(panels[1], (final, of.head_gap, of.mean_scheduled), strict=True):
            intervals = np.array([mean_interval(column) for column in values.values])
            panel.plot(BUDGETS * 1e9, intervals[:, 0], marker=".", label=policy, **style)
            panel.fill_between(
                BUDGETS * 1e9, intervals[:, 1], intervals[:, 2], alpha=0.15,
                color=style["color"], linewidth=0,
            )  # fmt: skip
    panels[0, 0].set_ylabel("bound on the adapters' gap")
    for panel, label in zip(
        panels[1],
        ("adapters' gap after the last round", "heads' gap, part of the initial", "mean K"),
        strict=True,
    ):
        panel.set(xlabel="delay budget τ̄, ns/bit", ylabel=label)
    panels[1, 0].set_yscale("log")
    panels[0, 0].legend(frameon=False, fontsize="small")
    for panel in panels.flat:
        panel.grid(alpha=0.25)
    figure.suptitle(
        f"Theorem 1 under {options.seeds} seeds, 20 devices, {options.rounds} rounds after "
        f"{options.warmup_rounds} of warm-up; bands are 95 % intervals of the mean"
    )
    return figure


def verdicts(result: xr.Dataset) -> dict[str, str]:
    """The paper's claims about Fig. 5, tested on the bounds, paired by seed."""
    final = result.adapter_gap.isel(step=-1)
    found = {}
    for policy, whose in PAPER.items():
        for other in ("greedy", "aaba"):
            difference = final.sel(scheduler=policy) - final.sel(scheduler=other)
            at = {
                round(float(budget) * 1e9, 1): mean_interval(difference.sel(delay_budget=budget))
                for budget in BUDGETS
            }
            better = [budget for budget, interval in at.items() if interval.high < 0]
            worse = [budget for budget, interval in at.items() if interval.low > 0]
            found[f"{whose} {policy} against {other}: adapters' bound"] = (
                f"lower at {better}, higher at {worse} ns/bit"
            )
    for policy in POLICIES[1:]:
        path = final.sel(scheduler=policy).mean("seed").values
        found[f"{policy}: falls with the budget"] = str(bool((np.diff(path) < 0).all()))
        gain = path / final.sel(scheduler="all_in").mean("seed").values
        found[f"{policy}: adapters' bound over All-in's, tightest to loosest budget"] = (
            f"{gain[0]:.3g} to {gain[-1]:.3g}"
        )
    return found


def main() -> None:
    """Sweep, bound, draw, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/fedft_figure5_network"))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warmup-rounds", type=int, default=300)
    options = parser.parse_args()

    network = Network(20, rayleigh(), SCHEDULERS["all_in"]())
    with sweep_progress() as progress:
        result = sweep(
            network,
            {
                "scheduler": {name: SCHEDULERS[name]() for name in POLICIES},
                "delay_budget": BUDGETS,
            },
            seeds=options.seeds,
            num_rounds=options.rounds,
            warmup_rounds=options.warmup_rounds,
            keep_rounds=True,
            out=options.out,
            progress=progress,
        )
    result = bounds(result)
    draw(result, options).savefig(options.out / "fedft_figure5_network.png", dpi=110)
    record = {
        "budgets_ns_per_bit": (BUDGETS * 1e9).round(2).tolist(),
        "verdicts": verdicts(result),
    }
    for name, values in {
        "adapter_gap": result.adapter_gap.isel(step=-1),
        "head_gap": result.head_gap,
        "mean_scheduled": result.mean_scheduled,
        "mean_inverse_scheduled": result.mean_inverse_scheduled,
        "part_participating": result.part_participating,
    }.items():
        mean = values.mean("seed")
        record[name] = {
            policy: [float(f"{x:.4g}") for x in mean.sel(scheduler=policy).values]
            for policy in POLICIES
        }
        for policy, numbers in record[name].items():
            print(f"{name:24}{policy:16}", *(f"{x:8.4g}" for x in numbers))
    for claim, verdict in record["verdicts"].items():
        print(f"{claim}: {verdict}")
    (options.out / "fedft_figure5_network.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
