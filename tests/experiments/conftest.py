"""The figures, which are not installed, and results made up for them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import xarray as xr

from jaxsplit.commands.reproduce import load_experiments

load_experiments()  # they are not installed: importable from here on

# policy: final accuracy and mean scheduled devices, as the paper has them
PAPER = {
    "all_in": (0.82, 20),
    "lyapunov_bound": (0.81, 8),
    "lyapunov_count": (0.81, 7),
    "greedy": (0.77, 6),
    "aaba": (0.73, 5),
    "heads_only": (0.60, 8),
}
NUM_DEVICES = 20


@pytest.fixture
def synthetic() -> Callable[..., xr.Dataset]:
    """Makes a result of a learning figure."""
    return make_result


def make_result(
    *,
    data: Sequence[str] = ("sst2",),
    seeds: int = 3,
    budgets: Sequence[float] = (25e-9,),
    rounds: int = 30,
    evaluate_every: int = 6,
    policies: Mapping[str, tuple[float, float]] = PAPER,
    gain_when_tight: Mapping[str, float] | None = None,
    noise: float = 0.002,
    roughness: float = 0.02,
    curvature: float = 2.0,
) -> xr.Dataset:
    """Curves that grow to each policy's accuracy; above 1, the curvature is slow first."""
    rng = np.random.default_rng(0)
    shape = (len(data), len(budgets), len(policies), seeds)
    final, devices = np.array(list(policies.values())).T
    tight = np.array([(gain_when_tight or {}).get(policy, 0.0) for policy in policies])
    looseness = np.linspace(1, 0, len(budgets)) if len(budgets) > 1 else np.zeros(1)
    final = final + looseness[:, None] * tight
    eval_round = np.arange(0, rounds + 1, evaluate_every)
    growth = (eval_round / rounds) ** curvature
    start = 0.5
    accuracy = start + (final[None, :, :, None, None] - start) * growth
    accuracy = accuracy + noise * rng.normal(size=(*shape, 1)) * growth
    loss = 0.7 - 0.5 * np.linspace(0, 1, rounds) * (final[None, :, :, None, None] - 0.4)
    loss = loss + roughness * rng.normal(size=(*shape, rounds))
    share = np.minimum(1, 0.4 + devices / 20)
    scheduled = rng.random((*shape, rounds, NUM_DEVICES)) < (devices / 20)[:, None, None, None]
    scheduled &= (np.arange(NUM_DEVICES) < np.round(20 * share)[:, None])[:, None, None, :]
    scheduled[..., 0] = True
    delay = 2e-9 * scheduled.sum(-1) * (1 + rng.random((*shape, rounds)))
    time_s = np.cumsum(1e6 * delay, axis=-1)
    at_runs = ("data", "delay_budget", "policy", "seed")
    per_evaluation, per_round = (*at_runs, "eval_round"), (*at_runs, "round")
    with_start = np.concatenate([np.zeros((*shape, 1)), time_s], axis=-1)
    return xr.Dataset(
        {
            "scheduled": ((*per_round, "device"), scheduled),
            "num_scheduled": (per_round, scheduled.sum(-1)),
            "participation": ((*at_runs, "device"), scheduled.sum(-2)),
            "delay": (per_round, delay),
            "time_s": (per_round, time_s),
            "loss": (per_round, loss),
            "accuracy": (per_evaluation, np.broadcast_to(accuracy, (*shape, len(eval_round)))),
            "accuracy_participants": (per_evaluation, accuracy + 0.01),
            "accuracy_mean_head": (per_evaluation, accuracy + 0.02),
            "test_loss": (per_evaluation, 1 - accuracy),
            "eval_time_s": (per_evaluation, with_start[..., eval_round]),
        },
        coords={
            "data": list(data),
            "delay_budget": list(budgets),
            "policy": list(policies),
            "seed": np.arange(seeds),
            "round": np.arange(rounds),
            "eval_round": eval_round,
            "device": np.arange(NUM_DEVICES),
        },
        attrs={
            "title": "made up",
            "metric": "accuracy",
            "trainable_parameters": 200_000,
            "total_parameters": 110_000_000,
        },
    )
