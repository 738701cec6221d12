"""The summary table of a comparison of policies."""

import numpy as np
import xarray as xr
from rich.table import Table

from jaxsplit.results import Interval, mean_interval


def paired_difference(result: xr.Dataset, policy: str, reference: str) -> Interval:
    """Final accuracy of a policy minus the reference's, paired by seed.

    Args:
      result: with dimensions policy, seed and eval_round.
      policy: which policy.
      reference: compared with which.

    Returns:
      Mean difference with its 95 % interval.
    """
    final = result.accuracy.isel(eval_round=-1)
    difference = final.sel(policy=policy) - final.sel(policy=reference)
    return mean_interval(difference.values)


def rounds_above(result: xr.Dataset, policy: str, reference: str) -> list[int]:
    """Evaluations at which a policy's paired 95 % interval lies wholly above the reference.

    Args:
      result: with dimensions policy, seed and eval_round.
      policy: which policy.
      reference: compared with which.

    Returns:
      The numbers of rounds done at those evaluations.
    """
    difference = result.accuracy.sel(policy=policy) - result.accuracy.sel(policy=reference)
    return [
        int(rounds)
        for rounds in difference.eval_round.values
        if mean_interval(difference.sel(eval_round=rounds).values).low > 0
    ]


def _signed(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{100 * interval.mean:+.1f}"
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def summary_table(result: xr.Dataset) -> Table:
    """What a reader wants to know of each policy, one row each.

    Args:
      result: of `quickstart`, with dimensions policy, seed, round, eval_round and device.

    Returns:
      A rich table; columns are explained in its caption.
    """
    policies = [str(policy) for policy in result.policy.values]
    reference = policies[0]
    budget = result.attrs["delay_budget_s_per_bit"]
    table = Table(
        title=result.attrs["title"],
        caption=(
            f"Means over {result.sizes['seed']} common seeds, accuracy ± half its 95 % interval; "
            f"Δ paired by seed against {reference}. "
            "K: scheduled devices per round. Ever: share of devices that took part at least once. "
            f"τ/τ̄: delay per bit over the budget of {budget * 1e9:g} ns/bit."
        ),
    )
    table.add_column("policy", no_wrap=True)
    for name in (
        "accuracy %",
        f"Δ {reference}",
        "mean K",
        "mean 1/K",
        "ever %",
        "mean τ/τ̄",
        "median τ/τ̄",
        "simulated s",
        "compile s",
        "run s",
    ):
        table.add_column(name, justify="right")
    for policy in policies:
        of = result.sel(policy=policy)
        accuracy = mean_interval(of.accuracy.isel(eval_round=-1).values)
        half = accuracy.high - accuracy.mean
        ratio = of.delay / budget
        empty = of.num_scheduled == 0
        table.add_row(
            policy,
            f"{100 * accuracy.mean:.1f}" + ("" if np.isnan(half) else f" ± {100 * half:.1f}"),
            "" if policy == reference else _signed(paired_difference(result, policy, reference)),
            f"{float(of.num_scheduled.mean()):.2f}",
            f"{float((1 / of.num_scheduled.where(~empty)).mean()):.3f}",
            f"{100 * float(of.scheduled.any('round').mean()):.0f}",
            f"{float(ratio.mean()):.2f}",
            f"{float(ratio.median()):.2f}",
            f"{float(of.time_s.isel(round=-1).mean()):.2f}",
            f"{float(of.compile_s.sum()):.1f}",
            f"{float(of.run_s.sum()):.1f}",
        )
    return table
