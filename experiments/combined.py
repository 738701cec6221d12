"""What neither paper tried: SFT under FedFT's scheduler, and FedFT with SFT's codec on its link.

    python experiments/combined.py [--out results/combined] [--seeds 3]

A ViT on CIFAR-10 over FedFT's fading channel: accuracy over rounds, over simulated time and over
traffic of both schemes, each as its paper has it and with the other's part. They are options of
one round, so no code is theirs. Needs vit-small-tin32 in $JAXSPLIT_MODELS, or --model, and cifar10
in $JAXSPLIT_DATA. A finished run is not made again.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from jaxsplit.cli import run_and_tell
from jaxsplit.commands.reproduce import load_experiments
from jaxsplit.plots import band, on_common_time, save_figure
from jaxsplit.results import mean_interval

load_experiments()  # the figures beside this file, as a package
from jaxsplit_experiments.sft_learning import LAPTOP, paired_ratio, traffic_bits  # noqa: E402

#: Both on FedFT's channel, with its clock; a device in the mean has 2.5 MHz.
BASE = dataclasses.replace(
    LAPTOP, channel="rayleigh", bandwidth_hz=20e6, clock="transmission",
    delay_budget_ns_per_bit=10.0, evaluate_every=2,
)  # fmt: skip
_LYAPUNOV = {"policies": ("lyapunov_bound",)}
_FEDFT = {
    "scheme": "fedft", "cut": 0, "local_steps": 1, "optimizer": "adam", "rounds": 64,
    "adapter_learning_rate": 2e-3, "head_learning_rate": 1e-2, "evaluate_every": 8, **_LYAPUNOV,
}  # fmt: skip
#: Name: (options, colour).
RUNS = {
    "SFT": ({}, "#56b4e9"),
    "SFT, Lyapunov": (_LYAPUNOV, "#0072b2"),
    "FedFT": (_FEDFT, "#e69f00"),
    "FedFT, compressed": ({**_FEDFT, "codec": "compressed"}, "#d55e00"),
}
#: Each combination with the scheme that it comes from.
_PAIRS = {"SFT, Lyapunov": "SFT", "FedFT, compressed": "FedFT"}


def main() -> None:
    """Make every run, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/combined"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default=BASE.model)
    options = parser.parse_args()
    results = {}
    for name, (changes, _) in RUNS.items():
        out = options.out / name.replace(", ", "-").lower()
        config = dataclasses.replace(
            BASE, **changes, out=out, seeds=options.seeds, model=options.model
        )
        if not (out / "run.nc").exists():
            run_and_tell(config, Console(width=140))
        results[name] = xr.load_dataset(out / "run.nc", engine="h5netcdf").isel(policy=0)
    rows = table(results)
    (options.out / "combined.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    save_figure(draw(results), options.out / "combined.png")


def table(results: dict[str, xr.Dataset]) -> list[dict[str, object]]:
    """Final accuracy, traffic and delay of each run, and what a combination changes."""
    rows: list[dict[str, object]] = []
    for name, of in results.items():
        final = 100 * of.accuracy.isel(eval_round=-1)
        row: dict[str, object] = {
            "run": name,
            "accuracy_percent": mean_interval(final.values),
            "traffic_mbit": mean_interval(traffic_bits(of).values / 1e6),
            "simulated_s": mean_interval(of.time_s.isel(round=-1).values),
            "mean_devices": float(of.num_scheduled.mean()),
        }
        if name in _PAIRS:
            plain = results[_PAIRS[name]]
            reference = 100 * plain.accuracy.isel(eval_round=-1)
            row["gain_points"] = mean_interval((final - reference).values)
            row["traffic_ratio"] = paired_ratio(traffic_bits(of), traffic_bits(plain))
            row["time_ratio"] = paired_ratio(of.time_s[:, -1], plain.time_s[:, -1])
        rows.append(row)
    return rows


def draw(results: dict[str, xr.Dataset]) -> Figure:
    """Accuracy over rounds, over simulated time and over traffic."""
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for name, of in results.items():
        colour, accuracy = RUNS[name][1], 100 * of.accuracy
        band(panels[0], of.eval_round.values, accuracy, colour, name)
        for panel, cost in ((panels[1], of.eval_time_s), (panels[2], _traffic_mbit(of))):
            # From the first evaluation to the end that all seeds have reached, even in logarithms.
            first, last = float(cost.isel(eval_round=1).max()), float(cost[:, -1].min())
            grid = np.geomspace(first, last, 60)
            band(panel, grid, on_common_time(accuracy, cost, grid), colour, name)
    for panel, text in zip(panels, ("round", "simulated time, s", "traffic, Mbit"), strict=True):
        panel.set(xlabel=text)
        panel.grid(alpha=0.25)
    for panel in panels[1:]:
        panel.set_xscale("log")
    panels[0].set_ylabel("test accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    seeds = next(iter(results.values())).sizes["seed"]
    figure.suptitle(
        f"The papers combined: a ViT on CIFAR-10\n{seeds} seeds, bands 95 % intervals",
        fontsize="medium",
    )
    return figure


def _traffic_mbit(of: xr.Dataset) -> xr.DataArray:
    """Traffic of all devices until each evaluation, [seed, eval_round]."""
    bits = (of.sent_up_bits + of.sent_down_bits).sum("device").cumsum("round")
    before = np.concatenate([np.zeros((of.sizes["seed"], 1)), bits.values], axis=1)
    return xr.DataArray(
        before[:, of.eval_round.values] / 1e6,
        dims=("seed", "eval_round"),
        coords={"seed": of.seed, "eval_round": of.eval_round},
    )


if __name__ == "__main__":
    main()
