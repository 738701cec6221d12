"""Interleaved timing of what is compared, and the record of a benchmark."""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

RUNS = 15


def compiled(function: Callable, *arguments):
    """Compile; return the call and the seconds that it took."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return partial(program, *arguments), time.perf_counter() - start


def interleaved(*calls: Callable, runs: int = RUNS) -> np.ndarray:
    """Milliseconds [call, run], the calls in turn so that a busy moment hits all alike."""
    times = np.empty((len(calls), runs))
    for call in calls:
        jax.block_until_ready(call())
    for run in range(runs):
        for k in np.roll(np.arange(len(calls)), run):  # nobody is always the first
            start = time.perf_counter()
            jax.block_until_ready(calls[k]())
            times[k, run] = 1e3 * (time.perf_counter() - start)
    return times


def medians(*calls: Callable) -> list[float]:
    return [statistics.median(record) for record in interleaved(*calls)]


def row(ours_ms, peer_ms, compile_s):
    return {
        "ours_ms": round(ours_ms, 3),
        "peer_ms": round(peer_ms, 3),
        "ratio": round(peer_ms / ours_ms, 3),
        "compile_s": round(compile_s, 3),
    }


def table(title: str, rows, record: dict) -> None:
    """Print the rows (what, figures) as they come and record them."""
    print(f"\n{title}, median of {RUNS}")
    print(f"{'':75} {'ours ms':>9} {'peer ms':>9} {'ratio':>8} {'compile s':>10}")
    for what, figures in rows:
        record[what] = figures
        print(
            f"{what:75} {figures['ours_ms']:9.2f} {figures['peer_ms']:9.2f} "
            f"{figures['ratio']:8.2f} {figures.get('compile_s', np.nan):10.2f}",
            flush=True,
        )


def save(name: str, record: dict) -> None:
    """Write results/NAME-DEVICE.json beside this file."""
    device = "".join(c if c.isalnum() else "-" for c in jax.devices()[0].device_kind.lower())
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-{device}.json").write_text(json.dumps(record, indent=1) + "\n")
