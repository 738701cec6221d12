"""What compression costs SFT: the accuracy with it minus the one without, seed by seed.

    python experiments/compressed_accuracy.py [--out results/compressed-accuracy] [--seeds 8]

A ViT on CIFAR-10 at the laptop scale of sft-fig5, IID, ρ = 0.2 and 3 bits, but with more seeds and
4,000 test images: at 3 seeds and 1,000 images the interval is wider than the 2 points in question.
Prints the paired difference with its 95 % interval and the counted traffic, and writes them to
compressed_accuracy.json. A finished run is not made again, a stopped one goes on.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console

from jaxsplit.cli import run_and_tell
from jaxsplit.commands.reproduce import load_experiments
from jaxsplit.results import mean_interval

load_experiments()  # the figures beside this file, as a package
from jaxsplit_experiments.sft_learning import LAPTOP, paired_ratio, traffic_bits  # noqa: E402

BASE = dataclasses.replace(LAPTOP, max_test=4000, evaluate_every=LAPTOP.rounds)


def main() -> None:
    """Make both runs, print and keep what compression changes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/compressed-accuracy"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--model", default=BASE.model)
    options = parser.parse_args()
    results = {}
    for scheme in ("sft", "sft_uncompressed"):
        out = options.out / scheme
        config = dataclasses.replace(
            BASE, scheme=scheme, out=out, seeds=options.seeds, model=options.model
        )
        if not (out / "run.nc").exists():
            run_and_tell(config, Console(width=140))
        results[scheme] = xr.load_dataset(out / "run.nc", engine="h5netcdf").isel(policy=0)
    found = compare(results["sft"], results["sft_uncompressed"])
    text = json.dumps(found, indent=1)
    (options.out / "compressed_accuracy.json").write_text(text + "\n")
    print(text)


def compare(compressed: xr.Dataset, plain: xr.Dataset) -> dict[str, object]:
    """Final accuracies and traffic of both, and their paired difference."""
    final = {
        name: 100 * of.accuracy.isel(eval_round=-1).values
        for name, of in (("sft", compressed), ("sft_uncompressed", plain))
    }
    difference = final["sft"] - final["sft_uncompressed"]
    return {
        "seeds": len(difference),
        "accuracy_percent": {name: mean_interval(values) for name, values in final.items()},
        "difference_points": mean_interval(difference),
        "difference_of_each_seed_points": np.round(difference, 2).tolist(),
        "traffic_percent": 100 * paired_ratio(traffic_bits(compressed), traffic_bits(plain)).mean,
    }


if __name__ == "__main__":
    main()
