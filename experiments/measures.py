"""What figures and verdicts read off a result; dimensions policy and seed are kept."""

import numpy as np
import xarray as xr

from jaxsplit.results import Interval, mean_interval


def final(of: xr.Dataset, variable: str = "accuracy") -> xr.DataArray:
    """A test score after the last round."""
    return of[variable].isel(eval_round=-1)


def mean_over_evaluations(of: xr.Dataset) -> xr.DataArray:
    """Mean accuracy over the evaluations after round 0."""
    return of.accuracy.isel(eval_round=slice(1, None)).mean("eval_round")


def final_training_loss(of: xr.Dataset) -> xr.DataArray:
    """Mean training loss of the last tenth of the rounds, nat."""
    tenth = max(1, of.sizes["round"] // 10)
    return of.loss.isel(round=slice(-tenth, None)).mean("round")


def schedule_statistics(of: xr.Dataset) -> xr.Dataset:
    """Mean K, mean 1/K, mean delay over the budget, share of devices that ever took part."""
    busy = of.num_scheduled.where(of.num_scheduled > 0)
    return xr.Dataset(
        {
            "mean_scheduled": of.num_scheduled.mean("round"),
            "mean_inverse_scheduled": (1 / busy).mean("round"),
            "mean_delay_ratio": of.delay.mean("round") / of.delay_budget,
            "part_participating": (of.participation > 0).mean("device"),
        }
    )


def difference(values: xr.DataArray, policy: str, reference: str) -> Interval:
    """A policy minus a reference, paired by seed.

    Args:
      values: with dimensions policy and seed only.
      policy: which policy.
      reference: compared with which.

    Returns:
      Mean difference with its 95 % interval.
    """
    return mean_interval((values.sel(policy=policy) - values.sel(policy=reference)).values)


def roughness(loss: xr.DataArray, window: int) -> xr.DataArray:
    """Standard deviation of a loss over rounds around its rolling mean, nat."""
    return (loss - loss.rolling(round=window, min_periods=1, center=True).mean()).std("round")


def smoothing_window(of: xr.Dataset) -> int:
    """Rounds of the rolling mean of training losses."""
    return max(2, of.sizes["round"] // 20)


def gains(of: xr.Dataset, policy: str, parts: int = 5) -> np.ndarray:
    """Accuracy gained in each of equal parts of the rounds, [seed, part]."""
    rounds = of.eval_round.values
    ends = np.linspace(rounds[0], rounds[-1], parts + 1)
    curves = of.accuracy.sel(policy=policy).transpose("seed", "eval_round").values
    return np.diff([np.interp(ends, rounds, curve) for curve in curves], axis=1)
