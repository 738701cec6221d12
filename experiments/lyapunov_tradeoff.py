"""The trade-off that V sets, measured: reward within O(1/V) of the best, queue of O(V).

    python experiments/lyapunov_tradeoff.py [--out results/lyapunov_tradeoff] [--seeds 40]

Beside the bounds of `jaxsplit.theory.lyapunov_bounds`, with what Algorithm 1 (`first_descent`)
loses against the best prefix (`exact`), per problem and in the long run.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from jaxsplit import Network, sweep
from jaxsplit.commands.progress import sweep_progress
from jaxsplit.scheduling import lyapunov, solve_p1
from jaxsplit.theory import lyapunov_bounds
from jaxsplit.wireless import rayleigh

NUM_DEVICES = 20
BUDGET = 25e-9  # s/bit
V = np.geomspace(0.1, 30, 11)
SIZES = (10, 20, 50, 100)
REWARD = {"count": "mean_scheduled", "bound": "mean_inverse_scheduled"}
COLOURS = {"count": "#56b4e9", "bound": "#0072b2"}


def reward(result: xr.Dataset, objective: str) -> xr.DataArray:
    """Mean of ρ(K_t): K for `count`, −N/K for `bound`."""
    if objective == "count":
        return result.mean_scheduled
    return -NUM_DEVICES * result.mean_inverse_scheduled


def trade_off(result: xr.Dataset, objective: str) -> dict[str, np.ndarray]:
    """Reward missed, queue and their bounds over v, means over seeds.

    What a run misses is corrected for what it overspent: with λ the price of delay, the value of
    Q/V at the greatest v, the net reward is ρ − λ(τ − τ̄), and the gap is that to its greatest one.
    """
    weight = V * BUDGET**2
    exact = result.sel(scheduler=f"exact {objective}")
    queue = exact.mean_queue.mean("seed").values
    price = queue[-1] / weight[-1]
    net = reward(exact, objective) - price * (exact.mean_delay - BUDGET)
    net = net.mean("seed").values
    drift = (exact.mean_squared_excess / 2).mean("seed").values
    drift = drift + (exact.initial_queue**2).mean("seed").values / (2 * result.attrs["rounds"])
    slack = BUDGET - float(exact.mean_least_delay.mean())
    span = NUM_DEVICES - 1.0  # ρ(N) − ρ(1), of either objective
    bounds = lyapunov_bounds(weight, drift, span, slack)
    return {
        "net_reward_gap": net.max() - net,
        "reward_gap_bound": np.asarray(bounds.reward_gap, float),
        "mean_queue_over_budget": queue / BUDGET,
        "queue_bound_over_budget": np.asarray(bounds.mean_queue, float) / BUDGET,
        "queue_over_v_over_price": queue / weight / price,
        "excess_delay_part": (exact.mean_delay.mean("seed").values / BUDGET - 1),
    }


def rule_gaps(num_devices: int, objective: str, count: int) -> np.ndarray:
    """What `first_descent` loses in random problems, relative to what the objective weighs."""
    rng = np.random.default_rng(num_devices)
    distance_m = np.maximum(100 * np.sqrt(rng.random((count, num_devices))), 1)
    snr_hz = 2.51e15 * distance_m**-3.0 * rng.exponential(size=(count, num_devices))
    queue = BUDGET * 10 ** rng.uniform(-1, 1.5, count) * num_devices / 20

    def value(rule: str) -> tuple[np.ndarray, np.ndarray]:
        numbers = (jnp.float32(20e6), jnp.float32(BUDGET**2))
        solve = jax.jit(
            jax.vmap(lambda snr, queue: solve_p1(snr, *numbers, queue, rule, objective))
        )
        schedule = solve(jnp.float32(snr_hz), jnp.float32(queue))
        return np.asarray(schedule.value, float), np.asarray(schedule.delay, float)

    (best, delay), (descent, _) = value("exact"), value("first_descent")
    return (best - descent) / (np.abs(best) + 2 * queue * delay)


def draw(curves: dict, gaps: dict, result: xr.Dataset) -> plt.Figure:
    """Reward and queue over v, the rules' gap per problem and in the long run."""
    figure, panels = plt.subplots(2, 2, figsize=(12, 8.4), layout="constrained")
    for objective, curve in curves.items():
        style = {"color": COLOURS[objective], "marker": "."}
        gap = np.where(curve["net_reward_gap"] > 0, curve["net_reward_gap"], np.nan)
        panels[0, 0].plot(V, gap, label=f"{objective}, measured", **style)
        style = {"color": COLOURS[objective], "linestyle": ":"}
        panels[0, 0].plot(
            V, curve["reward_gap_bound"], label=f"{objective}, bound (D + Q_0²/2T)/V", **style
        )
        panels[0, 1].plot(V, curve["queue_bound_over_budget"], **style)
        style = {"color": COLOURS[objective], "marker": "."}
        panels[0, 1].plot(V, curve["mean_queue_over_budget"], label=objective, **style)
    guide = curves["count"]["net_reward_gap"][5] * V[5] / V
    panels[0, 0].plot(V, guide, color="k", linewidth=0.7, label="∝ 1/v")
    guide = curves["count"]["mean_queue_over_budget"][-1] * V / V[-1]
    panels[0, 1].plot(V, guide, color="k", linewidth=0.7, label="∝ v")
    panels[0, 1].plot([], [], color="k", linestyle=":", label="bound")
    panels[0, 0].set(ylabel="net reward missed against the greatest v", title="reward: O(1/V)")
    panels[0, 1].set(ylabel="mean queue Q / τ̄", title="queue: O(V)")
    for (objective, size), gap in gaps.items():
        if gap.max() < 1e-6:  # nothing to see
            continue
        levels = np.sort(gap)[::-1]
        panels[1, 0].plot(
            levels,
            np.arange(1, len(levels) + 1) / len(levels),
            color=COLOURS[objective],
            alpha=0.35 + 0.2 * SIZES.index(size),
            label=f"{objective}, N = {size}, max {gap.max():.2g}",
        )
    panels[1, 0].set(
        xscale="log", yscale="log", xlim=(1e-6, 0.2), ylim=(1e-5, 1), ylabel="part of problems",
        xlabel="loss of first_descent against exact, relative", title="one problem",
    )  # fmt: skip
    for objective, name in REWARD.items():
        pair = [result[name].sel(scheduler=f"{rule} {objective}").mean("seed")
                for rule in ("first_descent", "exact")]  # fmt: skip
        label = "K (count)" if objective == "count" else "1/K (bound)"
        panels[1, 1].plot(V, pair[0] / pair[1], color=COLOURS[objective], marker=".", label=label)
    panels[1, 1].axhline(1, color="k", linewidth=0.7)
    panels[1, 1].set(ylabel="first_descent / exact", title="long run")
    for panel in (panels[0, 0], panels[0, 1]):
        panel.set_yscale("log")
    for panel in panels.flat:
        if panel is not panels[1, 0]:
            panel.set(xscale="log", xlabel="v, with V = v τ̄²")
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"{NUM_DEVICES} devices, τ̄ = {BUDGET * 1e9:g} ns/bit, {result.sizes['seed']} seeds, "
        f"{result.attrs['rounds']} rounds after as many of warm-up"
    )
    return figure


def main() -> None:
    """Sweep, draw, print the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/lyapunov_tradeoff"))
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--problems", type=int, default=100_000)
    options = parser.parse_args()

    schedulers = {
        f"{rule} {objective}": lyapunov(rule, objective)
        for rule in ("exact", "first_descent")
        for objective in REWARD
    }
    network = Network(NUM_DEVICES, rayleigh(), lyapunov())
    with sweep_progress() as progress:
        result = sweep(
            network,
            {"scheduler": schedulers, "scheduler.v": V, "delay_budget": [BUDGET]},
            seeds=options.seeds,
            num_rounds=options.rounds,
            warmup_rounds=options.rounds,
            out=options.out,
            progress=progress,
        ).isel(delay_budget=0)
    result.attrs["rounds"] = options.rounds
    curves = {objective: trade_off(result, objective) for objective in REWARD}
    gaps = {
        (objective, size): rule_gaps(size, objective, options.problems)
        for size in SIZES
        for objective in REWARD
    }
    draw(curves, gaps, result).savefig(options.out / "lyapunov_tradeoff.png", dpi=110)
    record = {"v": [float(f"{v:.3g}") for v in V]}
    for objective, curve in curves.items():
        record[objective] = {
            name: [float(f"{x:.3g}") for x in values] for name, values in curve.items()
        }
        for name, values in record[objective].items():
            print(f"{objective:6}{name:26}", *(f"{x:9.3g}" for x in values))
    for (objective, size), gap in gaps.items():
        record[f"rule gap, {objective}, N = {size}"] = {
            "greatest": float(f"{gap.max():.3g}"),
            "least": float(f"{gap.min():.3g}"),
            "mean": float(f"{gap.mean():.3g}"),
            "part_above_1e-5": float((gap > 1e-5).mean()),
        }
        print(objective, size, record[f"rule gap, {objective}, N = {size}"])
    for objective, name in REWARD.items():
        pair = [result[name].sel(scheduler=f"{rule} {objective}").mean("seed").values
                for rule in ("first_descent", "exact")]  # fmt: skip
        record[f"long run, first_descent / exact, {name}"] = np.round(pair[0] / pair[1], 4).tolist()
        print(name, "first_descent / exact", np.round(pair[0] / pair[1], 4))
    (options.out / "lyapunov_tradeoff.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
