"""The quickstart as a user meets it: wall time, memory, and whether its claims hold.

    python benchmarks/quickstart.py [FIGURE.png]

Runs `jaxsplit quickstart` twice with an empty and then a filled cache, reads the result file,
checks the claims, writes benchmarks/results/quickstart.json and keeps the figure if asked.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

from jaxsplit.commands.report import paired_difference, rounds_above, summary_rows

LYAPUNOV = ("lyapunov_bound", "lyapunov_count")


def run_quickstart(folder: Path) -> tuple[float, float]:
    """Wall seconds and peak memory in GiB of the command, in a process of its own."""
    command = Path(sys.executable).with_name("jaxsplit")
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    started = time.perf_counter()
    subprocess.run([command, "quickstart", "--out", folder], env=environment, check=True)
    wall_s = time.perf_counter() - started
    return wall_s, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def running_delay(result: xr.Dataset, policy: str) -> np.ndarray:
    """Mean of τ/τ̄ over rounds 0…T−1 for every T, [seed, round]."""
    ratio = result.delay.sel(policy=policy).values.astype(np.float64)
    ratio /= result.attrs["delay_budget_s_per_bit"]
    return np.cumsum(ratio, axis=-1) / np.arange(1, ratio.shape[-1] + 1)


def queue_slack(result: xr.Dataset) -> float:
    """Least value over all runs of (Q_T − Q_0)/T − (mean τ − τ̄), in units of τ̄; not negative."""
    budget = result.attrs["delay_budget_s_per_bit"]
    bound = (result.final_queue - result.queue.isel(round=0)) / result.sizes["round"]
    excess = result.delay.astype(float).mean("round") - budget
    return float(((bound - excess) / budget).min())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold_s, memory_gib = run_quickstart(folder)
        warm_s, _ = run_quickstart(folder)
        result = xr.load_dataset(folder / "quickstart.nc")
        if len(sys.argv) > 1:
            shutil.copy(folder / "quickstart.png", sys.argv[1])
    reference, *others = (str(policy) for policy in result.policy.values)
    running = {policy: running_delay(result, policy)[:, 99:] for policy in LYAPUNOV}
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device_kind": result.attrs["device_kind"],
        "versions": json.loads(result.attrs["versions"]),
        "cold_s": round(cold_s, 1),
        "warm_s": round(warm_s, 1),
        "peak_memory_gib": round(memory_gib, 2),
        "rounds_above_all_in": {
            policy: rounds_above(result, policy, reference) for policy in others
        },
        "final_difference_to_all_in": {
            policy: [round(x, 4) for x in paired_difference(result, policy, reference)]
            for policy in others
        },
        "largest_running_delay_over_budget_from_round_100": {
            policy: {
                "mean_over_seeds": round(float(values.mean(axis=0).max()), 4),
                "worst_seed": round(float(values.max()), 4),
            }
            for policy, values in running.items()
        },
        "queue_slack_in_budgets": queue_slack(result),
        "table": {
            "policy": [reference, *others],
            **summary_rows(result),
        },
    }
    claims = {
        "at most 120 s with an empty cache": cold_s <= 120,
        "the second run is faster": warm_s < cold_s,
        "at most 3 GiB": memory_gib <= 3,
        "no policy's paired interval lies above all_in": not any(
            figures["rounds_above_all_in"].values()
        ),
        "mean delay at most 1.03 budgets from round 100 on": all(
            values.mean(axis=0).max() <= 1.03 for values in running.values()
        ),
        "the queue bounds the excess of every run": figures["queue_slack_in_budgets"] >= -1e-3,
    }
    figures["claims"] = claims
    path = Path(__file__).parent / "results" / "quickstart.json"
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    sys.exit(0 if all(claims.values()) else 1)


if __name__ == "__main__":
    main()
