"""When the paper's objective V·K helps and when it hurts: every policy over the budget and N.

    python experiments/policies.py [--out results/policies] [--seeds 50]

Budgets are parts of the median delay of All-in in a cell of that size, so that cells of different
size compare. Each cell is a sweep of the network without learning (`jaxsplit.sweep`).
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
from jaxsplit.sweeps import over_seeds
from jaxsplit.wireless import rayleigh

POLICIES = ("all_in", "lyapunov_bound", "lyapunov_count", "first_descent_count", "greedy", "aaba")
NUM_DEVICES = (10, 20, 50, 100)
PARTS = np.geomspace(0.05, 1.0, 9)
CONTRACTION = 0.95  # 1 − μη of the heads' bound
ROWS = {
    "mean_scheduled": "mean K / N",
    "inverse": "N · mean 1/K",
    "part_participating": "devices that ever took part",
    "head_gap": "heads' gap left, part of the initial",
}


def cell(num_devices: int, options: argparse.Namespace) -> xr.Dataset:
    """All policies over the budgets in a cell of one size, statistics over seeds."""
    network = Network(num_devices, rayleigh(), SCHEDULERS["all_in"]())
    probe = sweep(network, {}, seeds=options.seeds, num_rounds=100, keep_rounds=True)
    median = float(probe.delay.median())
    with sweep_progress() as progress:
        result = sweep(
            network,
            {
                "scheduler": {name: SCHEDULERS[name]() for name in POLICIES},
                "delay_budget": PARTS * median,
            },
            seeds=options.seeds,
            num_rounds=options.rounds,
            warmup_rounds=options.warmup_rounds,
            out=options.out / f"{num_devices}-devices",
            progress=progress,
        )
    heads = (CONTRACTION**result.participation).mean("device")
    result = result.assign(
        mean_scheduled=result.mean_scheduled / num_devices,
        inverse=num_devices * result.mean_inverse_scheduled,
        head_gap=heads,
        relative_delay=result.mean_delay / result.delay_budget,
    )
    kept = [*ROWS, "relative_delay", "part_ambiguous"]
    return over_seeds(result[kept]).assign_coords(delay_budget=PARTS, median_delay=median)


def draw(cells: dict[int, xr.Dataset], options: argparse.Namespace) -> plt.Figure:
    """A row per quantity, a column per size of the cell."""
    figure, panels = plt.subplots(
        len(ROWS), len(cells), figsize=(13, 11), layout="constrained", sharex=True, sharey="row"
    )
    for k, (num_devices, statistics) in enumerate(cells.items()):
        column = panels[:, k]
        for panel, (name, label) in zip(column, ROWS.items(), strict=True):
            for j, policy in enumerate(POLICIES):
                mean, low, high = statistics[name].sel(scheduler=policy).transpose("statistic", ...)
                style = {"color": policy_colour(policy, j), "linewidth": 1.4}
                line = "--" if policy == "first_descent_count" else "-"
                panel.plot(PARTS, mean, label=policy, linestyle=line, marker=".", **style)
                panel.fill_between(PARTS, low, high, alpha=0.15, color=style["color"], linewidth=0)
            panel.set(xscale="log")
            panel.grid(alpha=0.25)
            if k == 0:
                panel.set_ylabel(label)
            if name == "inverse":
                panel.set(yscale="log", ylim=(0.7, 120))
        column[0].set_title(f"N = {num_devices}")
        column[-1].set_xlabel("τ̄ / median delay of All-in")
    panels[0, 0].legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"{options.seeds} seeds, {options.rounds} rounds after {options.warmup_rounds} of warm-up; "
        f"bands are 95 % intervals of the mean; heads: (1 − μη)^rounds, μη = {1 - CONTRACTION:.2f}"
    )
    return figure


def main() -> None:
    """Sweep, draw, print where `count` helps and hurts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/policies"))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warmup-rounds", type=int, default=300)
    options = parser.parse_args()

    cells = {size: cell(size, options) for size in NUM_DEVICES}
    draw(cells, options).savefig(options.out / "policies.png", dpi=110)
    rows = []
    for num_devices, statistics in cells.items():
        mean = statistics.sel(statistic="mean")
        for part in PARTS:
            at = mean.sel(delay_budget=part)
            row = {"num_devices": num_devices, "part_of_all_in": round(float(part), 3)}
            row["budget_s_per_bit"] = float(f"{part * float(statistics.median_delay):.4g}")
            for name in (*ROWS, "relative_delay"):
                row[name] = {
                    policy: float(f"{at[name].sel(scheduler=policy).item():.4g}")
                    for policy in POLICIES
                }
            rows.append(row)
            count, bound = (
                [row[name][f"lyapunov_{kind}"] for name in ROWS] for kind in ("count", "bound")
            )
            print(
                f"N = {num_devices:3}, τ̄ = {part:5.3f} of All-in, count / bound: "
                f"K {count[0] / bound[0]:.3f}, 1/K {count[1] / bound[1]:.2f}, participating "
                f"{count[2]:.2f} / {bound[2]:.2f}, heads' gap {count[3]:.3f} / {bound[3]:.3f}"
            )
    (options.out / "policies.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
