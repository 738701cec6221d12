"""Speed of solve_p1 and of network-only rounds; objective of the two rules.

``python benchmarks/scheduling.py`` checks solve_p1 against the NumPy reference, times it per
problem, over the number of devices, and over a million scheduled rounds of a sweep, and writes
results/scheduling-<device>.json beside itself. ``--quick`` leaves the million rounds out.
"""

import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import lambertw
from timing import compiled, save

from jaxsplit import Network, sweep
from jaxsplit.scheduling import lyapunov, solve_p1
from jaxsplit.wireless import rayleigh

TOTAL_HZ, BUDGET = 20e6, 25e-9
WEIGHT = BUDGET**2
LN2 = np.log(2)
BATCH, DEVICES = 4096, 100


# -- the reference: Algorithm 1 over all prefixes in NumPy and SciPy -------------------------------


def required_hz(rate, snr_hz):
    """(25), with SciPy's Lambert W."""
    c = rate * LN2 / snr_hz
    return -rate * LN2 / (c + lambertw(-c * np.exp(-c), -1).real)


def prefix_delay(snr_hz):
    """Delay per bit of a set, by bisection on the common rate between closed-form bounds."""
    share_hz = TOTAL_HZ / len(snr_hz)
    low = share_hz * np.log2(1 + snr_hz[-1] / share_hz)
    high = min(share_hz * np.log2(1 + snr_hz.sum() / TOTAL_HZ), snr_hz[-1] / LN2 * (1 - 1e-12))
    while high - low > 1e-7 * low:
        rate = (low + high) / 2
        if required_hz(rate, snr_hz).sum() < TOTAL_HZ:
            low = rate
        else:
            high = rate
    return 2 / (low + high)


def best_prefix(snr_hz, queue):
    """The greatest objective over all prefixes."""
    snr_hz = np.sort(snr_hz)[::-1]
    values = [WEIGHT * k - queue * prefix_delay(snr_hz[:k]) for k in range(1, len(snr_hz) + 1)]
    return max(values), int(np.argmax(values)) + 1


# -- measurements ----------------------------------------------------------------------------------


def problems(count, num_devices, seed=0):
    rng = np.random.default_rng(seed)
    distance_m = np.maximum(100 * np.sqrt(rng.random((count, num_devices))), 1)
    snr_hz = 2.51e15 * distance_m**-3.0 * rng.exponential(size=(count, num_devices))
    queue = BUDGET * 10 ** rng.uniform(-1, 1.5, count)
    return snr_hz.astype(np.float32), queue.astype(np.float32)


def solve(snr_hz, queue, rule="exact", objective="count"):
    numbers = (jnp.float32(TOTAL_HZ), jnp.float32(WEIGHT))
    return jax.vmap(lambda s, q: solve_p1(s, *numbers, q, rule, objective))(snr_hz, queue)


def seconds(call, runs=5):
    jax.block_until_ready(call())
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def per_problem(record):
    snr_hz, queue = problems(BATCH, DEVICES)
    few = range(12)
    start = time.perf_counter()
    reference = [best_prefix(snr_hz[i].astype(float), float(queue[i])) for i in few]
    peer_s = (time.perf_counter() - start) / len(few)
    for rule in ("exact", "first_descent"):
        call, compile_s = compiled(partial(solve, rule=rule), snr_hz, queue)
        ours_s = seconds(call) / BATCH
        if rule == "exact":
            schedule = call()
            for i in few:
                scale = abs(reference[i][0]) + 2 * queue[i] * float(schedule.delay[i])
                assert abs(float(schedule.value[i]) - reference[i][0]) < 2e-6 * scale
        record[rule] = {
            "us_per_problem": round(1e6 * ours_s, 1),
            "numpy_us_per_problem": round(1e6 * peer_s),
            "ratio": round(peer_s / ours_s),
            "compile_s": round(compile_s, 2),
        }
        print(f"{rule:14} N = {DEVICES}, batch {BATCH}: {record[rule]}", flush=True)


def over_devices(record):
    for exponent in range(1, 7):
        snr_hz, queue = problems(1, 10**exponent)
        call, _ = compiled(solve, snr_hz, queue)
        record[10**exponent] = round(1e3 * seconds(call, runs=3), 3)
        print(f"exact, one problem of 10^{exponent} devices: {record[10**exponent]} ms", flush=True)


def rule_gap(record, count=100_000, num_devices=20):
    """How much Algorithm 1 loses against the best prefix, relative to what is weighed."""
    snr_hz, queue = problems(count, num_devices, seed=1)
    for objective in ("count", "bound"):
        exact, descent = (
            jax.jit(partial(solve, rule=rule, objective=objective))(snr_hz, queue)
            for rule in ("exact", "first_descent")
        )
        scale = np.abs(exact.value) + 2 * queue * np.asarray(exact.delay)
        gap = (np.asarray(exact.value, float) - np.asarray(descent.value, float)) / scale
        record[objective] = {
            "problems": count,
            "least": float(f"{gap.min():.2g}"),
            "mean": float(f"{gap.mean():.3g}"),
            "greatest": float(f"{gap.max():.3g}"),
            "part_above_1e-5": float((gap > 1e-5).mean()),
        }
        print(f"exact over first_descent, {objective}: {record[objective]}", flush=True)


def million_rounds(record, seeds=10_000, rounds=100):
    """Network-only rounds as users run them: a sweep over seeds that keeps summaries."""
    for rule in ("exact", "first_descent"):
        network = Network(DEVICES, rayleigh(), lyapunov(rule))
        started = {}

        def progress(stage, done, total, started=started):
            started.setdefault(stage, time.perf_counter())

        result = sweep(network, {}, seeds=seeds, num_rounds=rounds, progress=progress)
        taken = time.perf_counter() - started["simulating"]
        record[rule] = {
            "seconds": round(taken, 1),
            "compile_s": round(started["simulating"] - started["compiling"], 1),
            "rounds": seeds * rounds,
            "mean_delay_over_budget": round(float(result.mean_delay.mean()) / BUDGET, 4),
            "mean_devices": round(float(result.mean_scheduled.mean()), 3),
            "part_ambiguous": float(f"{float(result.part_ambiguous.mean()):.3g}"),
        }
        print(f"{seeds} seeds x {rounds} rounds, {rule}: {record[rule]}", flush=True)


def sweep_memory(record):
    """Peak memory of the process that sweeps, over the number of rounds."""
    for rounds in (100, 1000, 10_000):
        code = (
            "import resource, jaxsplit\n"
            "from jaxsplit import scheduling, wireless\n"
            "network = jaxsplit.Network(20, wireless.rayleigh(), scheduling.greedy())\n"
            f"jaxsplit.sweep(network, {{}}, seeds=256, num_rounds={rounds})\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        record[f"MiB at {rounds} rounds"] = round(int(done.stdout) / 1024)
    print(f"peak memory of a sweep of 256 seeds: {record}", flush=True)


def main():
    device = jax.devices()[0].device_kind
    record = {"device": device, "jax": jax.__version__}
    for measure in (per_problem, over_devices, rule_gap, sweep_memory, million_rounds):
        if measure is million_rounds and "--quick" in sys.argv[1:]:
            return
        measure(record.setdefault(measure.__name__, {}))
    save("scheduling", record)


if __name__ == "__main__":
    main()
