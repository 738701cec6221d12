"""Figures of results."""

import itertools
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsplit.results import atomic_path, mean_interval

# Colour-blind safe; a policy keeps its colour in every figure.
_COLOURS = {
    "all_in": "#222222",
    "lyapunov_bound": "#0072b2",
    "lyapunov_count": "#56b4e9",
    "greedy": "#d55e00",
    "aaba": "#009e73",
}
_OTHER_COLOURS = ("#cc79a7", "#e69f00", "#7f7f7f", "#8c564b")


def _band(axes: Axes, x: np.ndarray, values: xr.DataArray, colour: str, label: str) -> None:
    """A line of means over seeds with its 95 % band; `values` has dimensions seed × x."""
    intervals = [mean_interval(column) for column in values.values.T]
    mean, low, high = np.array(intervals).T
    axes.plot(x, mean, color=colour, label=label, linewidth=1.6)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _smooth(values: xr.DataArray, window: int) -> xr.DataArray:
    return values.rolling(round=window, min_periods=1, center=True).mean()


def _on_common_time(values: xr.DataArray, time_s: xr.DataArray, grid: np.ndarray) -> xr.DataArray:
    """Curves of every seed, held from one evaluation to the next, at common times."""
    rows = [
        np.interp(grid, time_s.sel(seed=seed).values, values.sel(seed=seed).values)
        for seed in values.seed.values
    ]
    return xr.DataArray(np.array(rows), dims=("seed", "time"))


def comparison_figure(result: xr.Dataset) -> Figure:
    """Compare policies: accuracy and loss over rounds and simulated time, queue, devices.

    Args:
      result: with dimensions policy, seed, round, eval_round and device.

    Returns:
      A matplotlib figure.
    """
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    panels = figure.subplots(2, 3)
    budget = result.attrs["delay_budget_s_per_bit"]
    window = max(1, result.sizes["round"] // 20)
    # All-in takes several times longer than the others: show the span that all have reached.
    end_s = float(result.eval_time_s.isel(eval_round=-1).mean("seed").min())
    grid_s = np.linspace(0, end_s, 200)
    others = itertools.cycle(_OTHER_COLOURS)
    for label in map(str, result.policy.values):
        of = result.sel(policy=label)
        colour = _COLOURS.get(label) or next(others)
        for row, values in enumerate((of.accuracy * 100, of.test_loss)):
            _band(panels[row, 0], of.eval_round.values, values, colour, label)
            at_time = _on_common_time(values, of.eval_time_s, grid_s)
            _band(panels[row, 1], grid_s, at_time, colour, label)
        queue = of.queue.mean("seed") / budget
        panels[0, 2].plot(of["round"], queue, color=colour, label=label, linewidth=1.2)
        _band(panels[1, 2], of["round"].values, _smooth(of.num_scheduled, window), colour, label)
    for row, name in enumerate(("test accuracy, %", "test loss, nat")):
        panels[row, 0].set(xlabel="round", ylabel=name)
        panels[row, 1].set(xlabel="simulated time, s", ylabel=name, xlim=(0, end_s))
    for axes in panels[0, :2]:
        axes.set_ylim(0, 100)
    panels[0, 2].set(xlabel="round", ylabel="virtual queue Q / τ̄, rounds", yscale="symlog")
    # A queue that stays at 0 is a line, too.
    panels[0, 2].set_ylim(-0.2, max(1.0, 1.5 * float(result.queue.max()) / budget))
    panels[1, 2].set(
        xlabel="round", ylabel=f"scheduled devices (mean of {window} rounds)", ylim=(0, None)
    )
    for axes in panels.flat:
        axes.grid(alpha=0.25)
    panels[0, 0].legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"{result.attrs['title']}\n{result.sizes['seed']} seeds, lines are means, "
        f"bands 95 % intervals; τ̄ = {budget * 1e9:g} ns/bit",
        fontsize="medium",
    )
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Args:
      figure: the figure.
      path: the file; its suffix decides the format.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
