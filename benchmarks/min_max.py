"""Exactness and speed of min_max_bandwidth against SciPy's SLSQP and a NumPy bisection.

``python benchmarks/min_max.py`` checks 1,000 random problems of 8 devices, half of them with
caps that bind, in float64 against both. Then it times them as one batch, in both precisions,
against the same problems one after another in SciPy and NumPy, and writes
results/min_max-<device>.json beside itself.
"""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from scipy.optimize import minimize
from timing import RUNS, compiled, interleaved, save

from jaxsplit.scheduling import min_max_bandwidth

PROBLEMS, DEVICES = 1000, 8
PEER_RUNS = 5
TOLERANCE = 1e-6


def problems(seed=0):
    """Fixed times, work, band and caps; in every other problem some caps bind."""
    rng = np.random.default_rng(seed)
    fixed_s = rng.uniform(0, 10, (PROBLEMS, DEVICES))
    work = 10 ** rng.uniform(5.5, 6.5, (PROBLEMS, DEVICES))
    total_hz = work.sum(1) / 10 ** rng.uniform(-1, 2, PROBLEMS)
    cap_hz = np.full((PROBLEMS, DEVICES), np.inf)
    for i in range(0, PROBLEMS, 2):
        needed_hz = shares(fixed_s[i], work[i], total_hz[i], cap_hz[i])
        while not np.any(needed_hz > cap_hz[i]):
            cap = rng.dirichlet(np.full(DEVICES, 5.0)) * rng.choice([1.02, 1.3, 3.0])
            cap_hz[i] = total_hz[i] * cap
    return fixed_s, work, total_hz, cap_hz


# -- the peers -------------------------------------------------------------------------------------


def shares(fixed_s, work, total_hz, cap_hz):
    """Bisection on the common time to finish of those below their caps."""
    early, late = 0.0, fixed_s.max() + work.sum() / total_hz
    cap_hz = np.minimum(cap_hz, total_hz)
    # w / max(τ - a, w / cap) = min(w / (τ - a), cap), also where τ <= a
    least_s = work / cap_hz
    while True:
        time_s = (early + late) / 2
        if time_s in (early, late):
            return work / np.maximum(late - fixed_s, least_s)
        if np.sum(work / np.maximum(time_s - fixed_s, least_s)) > total_hz:
            early = time_s
        else:
            late = time_s


def bisection(fixed_s, work, total_hz, cap_hz):
    return np.max(fixed_s + work / shares(fixed_s, work, total_hz, cap_hz))


def slsqp(fixed_s, work, total_hz, cap_hz):
    """SciPy on (b / B, t / t_0) with exact derivatives, from caps in proportion."""
    cap = np.minimum(cap_hz / total_hz, 1)
    start = cap / cap.sum()
    scale_s = np.max(fixed_s + work / total_hz / start)
    fixed, alone = fixed_s / scale_s, work / total_hz / scale_s
    ones, last = np.append(np.ones(DEVICES), 0.0), np.append(np.zeros(DEVICES), 1.0)
    jacobian = np.zeros((DEVICES, DEVICES + 1))
    jacobian[:, -1] = 1

    def derivative(x):
        np.fill_diagonal(jacobian, alone / x[:-1] ** 2)
        return jacobian

    best = minimize(
        lambda x: x[-1],
        np.append(start, 1.0),
        jac=lambda x: last,
        bounds=[*((1e-9, c) for c in cap), (0, None)],
        constraints=[
            {"type": "eq", "fun": lambda x: x[:-1].sum() - 1, "jac": lambda x: ones},
            {"type": "ineq", "fun": lambda x: x[-1] - fixed - alone / x[:-1], "jac": derivative},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    share = best.x[:-1] / best.x[:-1].sum()
    return scale_s * np.max(fixed + alone / share)


def one_by_one(solve, arrays):
    return np.array([solve(*problem) for problem in zip(*arrays, strict=True)])


# -- measurements ----------------------------------------------------------------------------------


def batch(fixed_s, work, total_hz, cap_hz, method="exact"):
    solve = partial(min_max_bandwidth, method=method)
    return jax.vmap(solve)(fixed_s, work, total_hz, cap_hz)


def check(arrays, record):
    """Stop unless the exact delay is SciPy's and the bisection's, and SQP reaches it."""
    with jax.enable_x64():
        exact, sqp = (
            np.asarray(jax.jit(partial(batch, method=method))(*arrays).delay_s)
            for method in ("exact", "sqp")
        )
    single = np.asarray(jax.jit(batch)(*(x.astype(np.float32) for x in arrays)).delay_s)
    peer, bisected = (one_by_one(solve, arrays) for solve in (slsqp, bisection))
    gaps = {
        "slsqp": peer / exact - 1,
        "bisection": bisected / exact - 1,
        "sqp": sqp / exact - 1,
        "float32": single / exact - 1,
    }
    for name, gap in gaps.items():
        record[name] = {"least": float(f"{gap.min():.2g}"), "greatest": float(f"{gap.max():.2g}")}
        print(f"{name:10} over exact, {PROBLEMS} problems: {record[name]}", flush=True)
        assert np.all(np.abs(gap) < TOLERANCE), name


def seconds(solve, arrays):
    times = []
    for _ in range(PEER_RUNS):
        start = time.perf_counter()
        one_by_one(solve, arrays)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def speed(arrays, record):
    microseconds = {}
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            device_arrays = tuple(jnp.asarray(x, dtype) for x in arrays)
            for method in ("exact", "sqp"):
                call, compile_s = compiled(partial(batch, method=method), *device_arrays)
                took_ms = float(np.median(interleaved(call)))
                name = f"{method} {np.dtype(dtype)}"
                microseconds[name] = 1e3 * took_ms / PROBLEMS
                record[name] = {"compile_s": round(compile_s, 2)}
    peers = {"slsqp": slsqp, "bisection": bisection}
    peer_us = {name: 1e6 * seconds(solve, arrays) / PROBLEMS for name, solve in peers.items()}
    record["peer_us_per_problem"] = {name: round(us, 1) for name, us in peer_us.items()}
    print(f"us per problem: {record['peer_us_per_problem']}, median of {PEER_RUNS}", flush=True)
    for name, ours_us in microseconds.items():
        ratios = {f"{peer}_ratio": round(us / ours_us) for peer, us in peer_us.items()}
        record[name] |= {"us_per_problem": round(ours_us, 3), **ratios}
        print(f"{name:14} batch of {PROBLEMS}, median of {RUNS}: {record[name]}", flush=True)


def main():
    record = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "scipy": scipy.__version__,
        "problems": PROBLEMS,
        "devices": DEVICES,
    }
    arrays = problems()
    check(arrays, record.setdefault("relative_gap", {}))
    speed(arrays, record.setdefault("speed", {}))
    save("min_max", record)


if __name__ == "__main__":
    main()
