"""Figures of results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxsplit.data import Partition, label_counts
from jaxsplit.files import atomic_path
from jaxsplit.results import mean_interval
from jaxsplit.sweeps import over_seeds

# Colour-blind safe; a policy keeps its colour in every figure.
_COLOURS = {
    "all_in": "#222222",
    "lyapunov_bound": "#0072b2",
    "lyapunov_count": "#56b4e9",
    "greedy": "#d55e00",
    "aaba": "#009e73",
}
_OTHER_COLOURS = ("#cc79a7", "#e69f00", "#7f7f7f", "#8c564b", "#9467bd", "#bcbd22")


def policy_colour(policy: str, index: int = 0) -> str:
    """The colour that a policy has in every figure.

    Args:
      policy: its label.
      index: decides the colour of a policy that has none of its own.

    Returns:
      A colour for matplotlib.
    """
    return _COLOURS.get(policy) or _OTHER_COLOURS[index % len(_OTHER_COLOURS)]


def band(
    axes: Axes, x: np.ndarray, values: xr.DataArray, colour: str, label: str, line: str = "-"
) -> None:
    """Draw a line of means over seeds with its 95 % band.

    Args:
      axes: to draw on.
      x: shape [K].
      values: with dimensions seed and x, [S, K].
      colour: of the line.
      label: for the legend.
      line: matplotlib's line style.
    """
    intervals = [mean_interval(column) for column in values.values.T]
    mean, low, high = np.array(intervals).T
    axes.plot(x, mean, line, color=colour, label=label, linewidth=1.6)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def smooth(values: xr.DataArray, window: int) -> xr.DataArray:
    """Running mean over rounds.

    Args:
      values: with the dimension round.
      window: rounds, centred.

    Returns:
      The same shape; fewer rounds count at both ends.
    """
    return values.rolling(round=window, min_periods=1, center=True).mean()


def on_common_time(values: xr.DataArray, time_s: xr.DataArray, grid: np.ndarray) -> xr.DataArray:
    """Curves of every seed at common times, interpolated between evaluations.

    Args:
      values: with dimensions seed and eval_round.
      time_s: of these evaluations, simulated seconds.
      grid: the common times, shape [K].

    Returns:
      Dimensions seed and time, [S, K].
    """
    rows = [
        np.interp(grid, time_s.sel(seed=seed).values, values.sel(seed=seed).values)
        for seed in values.seed.values
    ]
    return xr.DataArray(np.array(rows), dims=("seed", "time"))


def comparison_figure(result: xr.Dataset) -> Figure:
    """Compare policies: test metric and loss over rounds and simulated time, queue, devices.

    Args:
      result: with dimensions policy, seed, round, eval_round and device.

    Returns:
      A matplotlib figure.
    """
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    panels = figure.subplots(2, 3)
    budget, metric = result.attrs["delay_budget_s_per_bit"], result.attrs["metric"]
    window = max(1, result.sizes["round"] // 20)
    # All-in takes several times longer than the others: show the span that all have reached.
    end_s = float(result.eval_time_s.isel(eval_round=-1).mean("seed").min())
    grid_s = np.linspace(0, end_s, 200)
    for k, label in enumerate(map(str, result.policy.values)):
        of = result.sel(policy=label)
        colour = policy_colour(label, k)
        for row, values in enumerate((of[metric] * 100, of.test_loss)):
            band(panels[row, 0], of.eval_round.values, values, colour, label)
            at_time = on_common_time(values, of.eval_time_s, grid_s)
            band(panels[row, 1], grid_s, at_time, colour, label)
        queue = of.queue.mean("seed") / budget
        panels[0, 2].plot(of["round"], queue, color=colour, label=label, linewidth=1.2)
        band(panels[1, 2], of["round"].values, smooth(of.num_scheduled, window), colour, label)
    for row, name in enumerate((f"test {metric}, %", "test loss")):
        panels[row, 0].set(xlabel="round", ylabel=name)
        panels[row, 1].set(xlabel="simulated time, s", ylabel=name, xlim=(0, end_s))
    for axes in panels[0, :2]:
        axes.set_ylim(min(0, axes.get_ylim()[0]), 100)  # a correlation may be negative
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


_SWEPT = {  # what a sweep's figure shows, with its label
    "mean_scheduled": "mean scheduled devices K",
    "mean_inverse_scheduled": "mean 1/K",
    "mean_delay": "mean delay τ / τ̄",
    "part_participating": "devices that ever took part",
    "jain_participation": "Jain's index of participation",
    "energy": "energy of all devices, nJ/bit",
}


def sweep_figure(result: xr.Dataset) -> Figure:
    """The grid of a sweep: means over seeds along one axis, a line per value of another.

    The longest axis of numbers is drawn along x; lines are the values of the longest axis of
    labels, or else of numbers. What other axes there are stay at their first value, as the title
    says.

    Args:
      result: of `sweep`.

    Returns:
      A matplotlib figure.
    """
    axes = sorted(
        (name for name in result.mean_delay.dims if name != "seed"),
        key=lambda name: -result.sizes[name],
    )
    labelled = [name for name in axes if result[name].dtype.kind in "US"]
    numbers = [name for name in axes if name not in labelled]
    x, *other_numbers = numbers or labelled or [None]
    lines = next(iter(name for name in [*labelled, *other_numbers] if name != x), None)
    fixed = {name: 0 for name in axes if name not in (x, lines)}
    statistics = over_seeds(_shown_variables(result)).isel(fixed)
    if x is None:
        x, statistics = "grid", statistics.expand_dims("grid").assign_coords(grid=["all seeds"])
    if lines is None:
        lines, statistics = "run", statistics.expand_dims("run").assign_coords(run=[0])

    figure = Figure(figsize=(13, 7.2), layout="constrained")
    panels = figure.subplots(2, 3)
    for k, value in enumerate(statistics[lines].values):
        if lines in labelled:
            label: str | None = str(value)
            colour = policy_colour(str(value), k)
        else:
            label = f"{lines} = {value:g}" if lines in axes else None
            colour = f"C{k % 10}"
        of = statistics.isel({lines: k})
        for name, panel in zip(_SWEPT, panels.flat, strict=True):
            mean, low, high = of[name].transpose("statistic", ...).values
            panel.plot(of[x].values, mean, color=colour, label=label, marker=".", linewidth=1.4)
            if not np.isnan(low).any():
                panel.fill_between(of[x].values, low, high, color=colour, alpha=0.15, linewidth=0)
    for panel, text in zip(panels.flat, _SWEPT.values(), strict=True):
        panel.set(xlabel=_axis_label(result, x), ylabel=text)
        panel.grid(alpha=0.25)
        if x in numbers and _is_geometric(statistics[x].values):
            panel.set_xscale("log")
    panels[0, 2].axhline(1, color="k", linewidth=0.8, linestyle=":")
    delay = statistics.mean_delay.sel(statistic="mean")
    if float(delay.max()) > 4 * float(delay.min()) > 0:  # All-in beside those that keep the budget
        panels[0, 2].set_yscale("log")
    if panels[0, 0].get_legend_handles_labels()[0]:
        panels[0, 0].legend(frameon=False, fontsize="small")
    rest = ", ".join(f"{name} = {result[name].values[0]}" for name in fixed)
    figure.suptitle(
        f"{result.attrs['title']}: {result.sizes['seed']} seeds, bands are 95 % intervals of the "
        f"mean{f'; {rest}' if rest else ''}",
        fontsize="medium",
    )
    return figure


def _shown_variables(result: xr.Dataset) -> xr.Dataset:
    """What `sweep_figure` draws, in its units."""
    energy = result.transmission_energy_per_bit + result.computation_energy_per_bit
    shown = result[[name for name in _SWEPT if name in result]]
    return shown.assign(mean_delay=result.mean_delay / result.delay_budget, energy=1e9 * energy)


def _axis_label(result: xr.Dataset, name: str) -> str:
    units = result[name].attrs.get("units") if name in result.coords else None
    return f"{name}, {units}" if units else name


def _is_geometric(values: np.ndarray) -> bool:
    """Whether values are spaced evenly on a logarithmic axis."""
    if len(values) < 3 or values.min() <= 0:
        return False
    ratios = values[1:] / values[:-1]
    return bool(np.allclose(ratios, ratios[0], rtol=0.05) and abs(ratios[0] - 1) > 0.05)


_MAX_NUMBERED_CELLS = 250  # of which each shows its count
_MAX_NAMED_LABELS = 40  # beyond that names overlap


def partition_figure(
    partition: Partition, classes: np.ndarray, label_names: Sequence[str] = (), title: str = ""
) -> Figure:
    """Who holds what: the samples of each label on each device, with the sums at the sides.

    Args:
      partition: who holds which samples.
      classes: class of each sample, shape [M] int, 0 … K − 1.
      label_names: of the classes; numbers by default.
      title: above the figure.

    Returns:
      A matplotlib figure.
    """
    counts = label_counts(partition, classes, len(label_names))
    num_classes, num_devices = counts.shape
    width, height = np.clip(0.4 * num_devices, 3, 7.5), np.clip(0.25 * num_classes, 1.2, 5.5)
    figure = Figure(figsize=(width + 2.5, height + 1.7), layout="constrained")
    [[by_device, corner], [panel, by_label]] = figure.subplots(
        2, 2, width_ratios=(width, 0.9), height_ratios=(0.8, height), sharex="col", sharey="row"
    )
    corner.remove()

    # The square root keeps small counts apart from none, which stay white.
    norm = PowerNorm(0.5, vmin=0, vmax=counts.max())
    colours = ListedColormap(colormaps["Blues"](np.linspace(0.1, 1, 256)))
    devices, labels = np.arange(num_devices), np.arange(num_classes)
    held = np.ma.masked_equal(counts, 0)
    mesh = panel.pcolormesh(devices, labels, held, norm=norm, cmap=colours, rasterized=True)
    if counts.size <= _MAX_NUMBERED_CELLS:
        for (label, device), count in np.ndenumerate(counts):
            if count:
                colour = "white" if norm(count) > 0.6 else "black"
                panel.text(
                    device, label, f"{count}", ha="center", va="center", size=6.5, color=colour
                )
    figure.colorbar(mesh, ax=by_label, label="samples", shrink=0.9)
    gap = [0.2 if number <= 50 else 0 for number in (num_devices, num_classes)]
    by_device.bar(devices, partition.sizes, 1 - gap[0], color="#7f7f7f")
    by_label.barh(labels, counts.sum(1), 1 - gap[1], color="#7f7f7f")
    panel.set(xlabel="device", xlim=(-0.5, num_devices - 0.5), ylim=(num_classes - 0.5, -0.5))
    panel.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    if 0 < len(label_names) == num_classes <= _MAX_NAMED_LABELS:
        panel.set_yticks(labels, [_shortened(name) for name in label_names])
    else:
        panel.set_ylabel("label")
        panel.yaxis.set_major_locator(MaxNLocator(20, integer=True))
    by_device.set(ylabel="samples")
    by_label.set(xlabel="samples")
    by_label.xaxis.set_major_locator(MaxNLocator(2))
    for axes in (by_device, by_label):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    return figure


def _shortened(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Args:
      figure: the figure.
      path: the file; its suffix decides the format.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
