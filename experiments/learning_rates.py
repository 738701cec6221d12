"""How the comparison of policies on the digits depends on the learning rates.

    python experiments/learning_rates.py [--out results/learning_rates]

Personal heads see 35 or 36 samples each. With a fast head rate they fit those by themselves, the
gradient of the features vanishes, and the shared adapters stop learning: All-in, which moves
every head in every round, then suffers most. This experiment shows where that happens.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from jaxsplit.commands.quickstart import QuickstartConfig, quickstart
from jaxsplit.commands.report import paired_difference, rounds_above
from jaxsplit.results import mean_interval

HEAD_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
POLICIES = ("all_in", "lyapunov_bound", "lyapunov_count", "greedy", "aaba")


def main() -> None:
    """Sweep the head rate, print a line per policy, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/learning_rates"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    base = QuickstartConfig(policies=POLICIES, seeds=options.seeds, evaluate_every=20)
    rows = []
    for rate in HEAD_RATES:
        result = quickstart(dataclasses.replace(base, head_learning_rate=rate))
        for policy in POLICIES:
            final = result.accuracy.sel(policy=policy).isel(eval_round=-1).values
            rows.append(
                {
                    "head_learning_rate": rate,
                    "policy": policy,
                    "accuracy": mean_interval(final),
                    "minus_all_in": paired_difference(result, policy, "all_in"),
                    "rounds_above_all_in": rounds_above(result, policy, "all_in"),
                    "final_training_loss": float(result.loss.sel(policy=policy)[:, -10:].mean()),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    (options.out / "learning_rates.json").write_text(json.dumps(rows, indent=1) + "\n")

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for i, policy in enumerate(POLICIES):
        of = [row for row in rows if row["policy"] == policy]
        for axes, name in ((left, "accuracy"), (right, "minus_all_in")):
            if axes is right and policy == "all_in":
                continue
            mean, low, high = 100 * np.array([row[name] for row in of]).T
            # Side by side, so that the intervals do not hide each other.
            x = np.array(HEAD_RATES) * 1.06 ** (i - 2)
            style = {"marker": "o", "capsize": 3, "color": f"C{i}", "label": policy}
            axes.errorbar(x, mean, (mean - low, high - mean), **style)
    left.set(xscale="log", xlabel="learning rate of the heads", ylabel="final test accuracy, %")
    right.set(xscale="log", xlabel="learning rate of the heads", ylabel="minus all_in, points")
    right.axhline(0, color="k", linewidth=0.8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(f"{options.seeds} seeds, 95 % intervals; adapters at 0.3")
    figure.savefig(options.out / "learning_rates.png", dpi=130)


if __name__ == "__main__":
    main()
