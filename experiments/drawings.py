"""The drawings of FedFT's Figs. 3 to 5."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsplit.plots import band, on_common_time, policy_colour, smooth
from jaxsplit.results import mean_interval

from .claims import BENCHMARKS, CONSTRAINED
from .measures import (
    difference,
    final,
    final_training_loss,
    schedule_statistics,
    smoothing_window,
)

_LABELS = {
    "all_in": "All-in",
    "lyapunov_bound": "lyapunov_bound (ours)",
    "lyapunov_count": "lyapunov_count (the paper's proposed)",
    "greedy": "GS",
    "aaba": "AABA",
    "heads_only": "heads only (frozen backbone)",
}
_DASHED = ("heads_only",)


def _bands_text(result: xr.Dataset) -> str:
    seeds = result.sizes["seed"]
    return "one seed" if seeds == 1 else f"means of {seeds} seeds, bands and bars 95 % intervals"


def _finish(figure: Figure, panel: Axes, title: str) -> Figure:
    handles, labels = panel.get_legend_handles_labels()
    narrow = figure.get_figwidth() < 11  # inches
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2 if narrow else 3, frameon=False
    )
    figure.suptitle(title, fontsize="medium")
    return figure


# -- Figs. 3 and 4 ---------------------------------------------------------------------------------


def learning_curves(result: xr.Dataset) -> Figure:
    """Training loss and accuracy over rounds as in the paper; accuracy over simulated time.

    Args:
      result: of Fig. 3 or 4.

    Returns:
      A column of panels per data set, or a row for a single one.
    """
    columns = result.sizes["data"]
    if columns == 1:
        figure = Figure(figsize=(13, 4.6), layout="constrained")
        panels = figure.subplots(1, 3).reshape(3, 1)
    else:
        figure = Figure(figsize=(4.6 * columns, 10.5), layout="constrained")
        panels = figure.subplots(3, columns)
    for column in range(columns):
        of = result.isel(data=column, delay_budget=0)
        _training_losses(panels[0, column], of)
        _accuracies(panels[1, column], of)
        _accuracies_over_time(panels[2, column], of)
        if columns > 1:
            panels[0, column].set_title(of["data"].item())
    for panel in panels.flat:
        panel.grid(alpha=0.25)
    budget_ns = 1e9 * float(result.delay_budget[0])
    names = ", ".join(map(str, result["data"].values))
    title = f"{result.attrs['title']}\n{names}; {_bands_text(result)}; τ̄ = {budget_ns:g} ns/bit"
    return _finish(figure, panels[0, 0], title)


def _lines(of: xr.Dataset) -> list[tuple[str, xr.Dataset, dict[str, Any]]]:
    """Each policy with its runs, colour and label."""
    known = [policy for policy in _LABELS if policy in of.policy]
    return [
        (policy, of.sel(policy=policy), {"colour": policy_colour(policy), "label": _LABELS[policy]})
        for policy in known
    ]


def _band(panel: Axes, policy: str, x: np.ndarray, values: xr.DataArray, style: dict) -> None:
    """A line with its band; dashed where the backbone is frozen."""
    band(panel, x, values.transpose("seed", ...), **style)
    if policy in _DASHED:
        panel.lines[-1].set_linestyle("--")


def _training_losses(panel: Axes, of: xr.Dataset) -> None:
    window = smoothing_window(of)
    for policy, runs, style in _lines(of):
        _band(panel, policy, of["round"].values + 1, smooth(runs.loss, window), style)
    panel.set(xlabel="round", ylabel=f"training loss, nat (mean of {window} rounds)")


def _accuracies(panel: Axes, of: xr.Dataset) -> None:
    for policy, runs, style in _lines(of):
        _band(panel, policy, of.eval_round.values, 100 * runs.accuracy, style)
    panel.set(xlabel="round", ylabel="test accuracy, %", ylim=_within_percent(panel))


def _accuracies_over_time(panel: Axes, of: xr.Dataset) -> None:
    # All-in takes several times longer than the others: show the span that all have reached.
    end_s = float(of.eval_time_s.isel(eval_round=-1).mean("seed").min())
    grid_s = np.linspace(0, end_s, 200)
    for policy, runs, style in _lines(of):
        at_time = on_common_time(100 * runs.accuracy, runs.eval_time_s, grid_s)
        _band(panel, policy, grid_s, at_time, style)
    panel.set(xlabel="simulated time, s", ylabel="test accuracy, %", xlim=(0, end_s))
    panel.set_ylim(_within_percent(panel))


def _within_percent(panel: Axes) -> tuple[float, float]:
    """The limits of the axis without what no share can be; bands of few seeds are wide."""
    low, high = panel.get_ylim()
    return max(low, 0.0), min(high, 100.0)


# -- Fig. 5 ----------------------------------------------------------------------------------------


def over_budgets(result: xr.Dataset) -> Figure:
    """Loss and accuracy over the budget as in the paper; the evidence beside them.

    Args:
      result: of Fig. 5.

    Returns:
      Panels over the delay budget, of the first data set.
    """
    of = result.isel(data=0).sortby("delay_budget")
    figure = Figure(figsize=(13.5, 8), layout="constrained")
    [[loss, accuracy, to_greedy], [part, inverse, to_aaba]] = figure.subplots(2, 3)
    statistics = schedule_statistics(of)
    for panel, values, text in (
        (loss, final_training_loss(of), "final training loss, nat"),
        (accuracy, 100 * final(of), "final test accuracy, %"),
        (part, 100 * statistics.part_participating, "devices that ever took part, %"),
        (inverse, statistics.mean_inverse_scheduled, "mean 1/K"),
    ):
        _over_budget(panel, values, text)
    _differences(to_greedy, of, "greedy")
    _differences(to_aaba, of, "aaba")
    for panel in figure.axes:
        _budget_axis(panel, of)
    title = f"{result.attrs['title']}\n{of['data'].item()}; {_bands_text(result)}"
    return _finish(figure, accuracy, title)


def _budget_axis(panel: Axes, of: xr.Dataset) -> None:
    budgets_ns = 1e9 * of.delay_budget.values
    panel.set(xscale="log", xlabel="delay budget τ̄, ns/bit")
    panel.set_xticks(budgets_ns, [f"{budget:g}" for budget in budgets_ns])
    panel.minorticks_off()
    panel.grid(alpha=0.25)


def _over_budget(panel: Axes, values: xr.DataArray, text: str) -> None:
    """A line per policy; All-in, which knows no budget, is level."""
    budgets_ns = 1e9 * values.delay_budget.values
    for policy, of, style in _lines(values.to_dataset(name="value")):
        if policy == "all_in":
            interval = mean_interval(of.value.isel(delay_budget=0).values)
            panel.axhline(interval.mean, color=style["colour"], label=style["label"])
            if np.isfinite(interval.low):
                panel.axhspan(*interval[1:], color=style["colour"], alpha=0.15, linewidth=0)
        else:
            _band(panel, policy, budgets_ns, of.value, style)
            panel.lines[-1].set_marker("o")
    panel.set_ylabel(text)


def _differences(panel: Axes, of: xr.Dataset, reference: str) -> None:
    """Final accuracy minus a benchmark's at each budget."""
    budgets_ns = 1e9 * of.delay_budget.values
    others = [policy for policy in CONSTRAINED if policy in of.policy and policy != reference]
    if reference not in of.policy:
        others = []
    for k, policy in enumerate(others):
        intervals = [
            difference(100 * final(of.sel(delay_budget=budget)), policy, reference)
            for budget in of.delay_budget.values
        ]
        mean, low, high = np.array(intervals).T
        aside = 1.06 ** (k - (len(others) - 1) / 2)  # bars beside each other
        panel.errorbar(
            budgets_ns * aside,
            mean,
            [mean - low, high - mean],
            color=policy_colour(policy),
            marker="o",
            capsize=3,
            linewidth=1.2,
        )
    panel.axhline(0, color=policy_colour(reference), linewidth=1.6)
    panel.set_ylabel(f"final accuracy minus {BENCHMARKS[reference]}, points")
