"""SFT, its baselines, and what neither paper tried, as configurations of one round.

    python experiments/sft_schemes.py [--out results/sft_schemes] [--seeds 3]

A ViT on CIFAR-10, cut after block 3 of 6, 8 devices at a fixed SNR: accuracy over rounds and over
simulated time, and the traffic that it took. Two rows are combinations of the two papers: SFT's
compressed link under FedFT's Lyapunov scheduler, and FedFT with SFT's codec on its link, both on
FedFT's fading channel. Needs vit-small-tin32 in $JAXSPLIT_MODELS, or --model, and cifar10 in
$JAXSPLIT_DATA. A finished scheme is not run again.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from rich.console import Console

from jaxsplit.cli import run_and_tell
from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.plots import save_figure
from jaxsplit.results import mean_interval

BASE = FineTuneConfig(
    model="vit-small-tin32",
    data="cifar10",
    scheme="sft",
    cut=3,
    policies=("all_in",),
    channel="fixed_snr",
    bandwidth_hz=30e6,
    devices=8,
    devices_per_step=8,
    batch_size=16,
    rounds=40,
    evaluate_every=10,
    max_test=1000,
    adapter_learning_rate=2e-3,
    head_learning_rate=1e-2,
    learning_rate_schedule="exponential",
)
_FADING = {"channel": "rayleigh", "bandwidth_hz": 20e6, "clock": "transmission"}
SCHEMES = {
    "sft": {},
    "sft_uncompressed": {"scheme": "sft_uncompressed"},
    "sft, Lyapunov": {
        **_FADING, "policies": ("lyapunov_bound",), "delay_budget_ns_per_bit": 10.0,
    },
    "fedft": {**_FADING, "scheme": "fedft", "cut": 0, "policies": ("lyapunov_bound",),
              "delay_budget_ns_per_bit": 10.0},
    "fedft, compressed": {**_FADING, "scheme": "fedft", "cut": 0, "policies": ("lyapunov_bound",),
                          "delay_budget_ns_per_bit": 10.0, "codec": "compressed"},
    "sl": {"scheme": "sl"},
    "fl_lora": {"scheme": "fl_lora", "cut": None},
}  # fmt: skip


def main() -> None:
    """Run every scheme, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/sft_schemes"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default=BASE.model)
    options = parser.parse_args()
    results = {}
    for name, changes in SCHEMES.items():
        out = options.out / name.replace(", ", "-").lower()
        config = dataclasses.replace(
            BASE, **changes, out=out, seeds=options.seeds, model=options.model
        )
        if not (out / "run.nc").exists():
            run_and_tell(config, Console(width=140))
        results[name] = xr.load_dataset(out / "run.nc", engine="h5netcdf").isel(policy=0)
    rows = table(results)
    (options.out / "sft_schemes.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    save_figure(draw(results), options.out / "sft_schemes.png")


def table(results: dict[str, xr.Dataset]) -> list[dict[str, object]]:
    """Final accuracy, traffic and delay of each scheme, and the differences to SFT uncompressed."""
    plain = results["sft_uncompressed"]
    rows: list[dict[str, object]] = []
    for name, of in results.items():
        final = 100 * of.accuracy.isel(eval_round=-1)
        row: dict[str, object] = {
            "scheme": name,
            "accuracy_percent": mean_interval(final.values),
            "traffic_mbit": float(_traffic_bits(of).mean()) / 1e6,
            "simulated_s": float(of.time_s.isel(round=-1).mean()),
        }
        if "fedft" not in name and "Lyapunov" not in name:
            reference = 100 * plain.accuracy.isel(eval_round=-1)
            row["minus_uncompressed_points"] = mean_interval((final - reference).values)
            row["traffic_percent_of_uncompressed"] = float(
                100 * _traffic_bits(of).sum() / _traffic_bits(plain).sum()
            )
        rows.append(row)
    return rows


def _traffic_bits(of: xr.Dataset) -> xr.DataArray:
    return (of.sent_up_bits + of.sent_down_bits).sum(("round", "device"))


def draw(results: dict[str, xr.Dataset]) -> plt.Figure:
    """Accuracy over rounds, over simulated time and over traffic."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    for k, (name, of) in enumerate(results.items()):
        accuracy = 100 * of.accuracy.mean("seed")
        bits = (of.sent_up_bits + of.sent_down_bits).sum("device").mean("seed").cumsum("round")
        sent = np.concatenate([[0.0], bits.values])[of.eval_round.values]
        style = {"color": f"C{k}", "marker": "o", "markersize": 3}
        axes[0].plot(of.eval_round, accuracy, label=name, **style)
        axes[1].plot(of.eval_time_s.mean("seed")[1:], accuracy[1:], **style)
        axes[2].plot(sent[1:] / 1e6, accuracy[1:], **style)
    axes[0].set(xlabel="rounds", ylabel="test accuracy, %")
    axes[1].set(xlabel="simulated time, s", xscale="log")
    axes[2].set(xlabel="traffic, Mbit", xscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


if __name__ == "__main__":
    main()
