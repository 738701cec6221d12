"""From blocks to a labelled result, and its statistics over seeds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from jaxsplit.sweeps.grid import Grid
from jaxsplit.sweeps.summary import PER_DEVICE, PER_ROUND, PER_SCENARIO

_UNITS = {
    "num_devices": "devices",
    "bandwidth_hz": "Hz",
    "power_dbm": "dBm",
    "noise_dbm_per_hz": "dBm/Hz",
    "delay_budget": "s/bit",
}


def label_result(
    grid: Grid, blocks_of: Callable[[int], list[dict[str, np.ndarray]]], attrs: dict[str, Any]
) -> xr.Dataset:
    """Put the blocks of all programs together.

    Args:
      grid: of the sweep.
      blocks_of: index of a program -> its blocks in order, the last one perhaps too long.
      attrs: of the result.

    Returns:
      The data set, floating point as float64; NaN for devices that a smaller network lacks.
    """
    choices = [list(values) for values in grid.choices.values()]
    dims = [*grid.choices, *grid.numbers, "seed"]
    parts = [_joined(blocks_of(index), grid) for index in range(len(list(grid.programs())))]
    variables = {}
    for name in parts[0]:
        stacked = _stack([part[name] for part in parts])
        values = stacked.reshape(*map(len, choices), *stacked.shape[1:])
        units, meaning = (PER_SCENARIO | PER_DEVICE | PER_ROUND)[name]
        extra = ["device"] if name in PER_DEVICE else ["round"] if name in PER_ROUND else []
        variables[name] = xr.Variable(
            [*dims, *extra], values, {"units": units, "long_name": meaning}
        )
    coords: dict[str, Any] = {
        name: (
            name,
            np.array(list(values.values() if name == "num_devices" else values)),
            {"units": _UNITS[name]} if name in _UNITS else {},
        )
        for name, values in grid.choices.items()
    }
    for name, numbers in grid.numbers.items():
        coords[name] = (name, numbers, {"units": _UNITS[name]} if name in _UNITS else {})
    common = next(grid.programs()).params
    for name in _UNITS:  # a result says at which band, power and budget it holds
        if name not in coords and hasattr(common, name):
            number = float(np.asarray(getattr(common, name)))
            coords[name] = ((), number, {"units": _UNITS[name]})
    result = xr.Dataset(variables, coords=coords | {"seed": np.asarray(grid.seeds)}, attrs=attrs)
    for name in ("device", "round"):
        if name in result.dims:
            result = result.assign_coords({name: np.arange(result.sizes[name])})
    return result


def _joined(blocks: list[dict[str, np.ndarray]], grid: Grid) -> dict[str, np.ndarray]:
    """The blocks of a program as arrays [number axes …, seed, …]."""
    joined = {}
    for name in blocks[0]:
        values = np.concatenate([block[name] for block in blocks])[: grid.scenarios_per_program]
        if np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float64)
        joined[name] = values.reshape(*grid.shape, *values.shape[1:])
    return joined


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Stack what may differ in the last axis, filled up with NaN."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    longest = max(array.shape[-1] for array in arrays)
    return np.stack(
        [
            np.pad(
                array.astype(np.float64),
                [(0, 0)] * (array.ndim - 1) + [(0, longest - array.shape[-1])],
                constant_values=np.nan,
            )
            for array in arrays
        ]
    )


def over_seeds(result: xr.Dataset, confidence: float = 0.95) -> xr.Dataset:
    r"""Mean over seeds with its Student-t interval, in float64, of each variable.

    Args:
      result: of `sweep`.
      confidence: level of the interval, between 0 and 1.

    Returns:
      The data set without `seed` and with the dimension `statistic`: mean, low, high; the ends are
      NaN for a single seed.

    Example:
      >>> from jaxsplit.network import Network
      >>> from jaxsplit.scheduling import greedy
      >>> from jaxsplit.sweeps import sweep
      >>> from jaxsplit.wireless import rayleigh
      >>> result = sweep(Network(5, rayleigh(), greedy()), {}, seeds=3, num_rounds=10)
      >>> over_seeds(result).mean_scheduled.statistic.values.tolist()
      ['mean', 'low', 'high']
    """
    count = result.sizes["seed"]
    mean = result.mean("seed", dtype=np.float64, skipna=False, keep_attrs=True)
    if count > 1:
        quantile = scipy.stats.t.ppf((1 + confidence) / 2, count - 1)
        half = result.astype(np.float64).std("seed", ddof=1, skipna=False) * (
            quantile / np.sqrt(count)
        )
    else:
        half = mean * np.nan
    statistics = xr.Variable("statistic", ["mean", "low", "high"])
    return xr.concat([mean, mean - half, mean + half], dim=statistics).assign_attrs(result.attrs)
