"""The figure of a plan: the delay of every cut, and the accuracy that limits the compression."""

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jaxsplit.planning import Plan, PlanProblem, accuracy_at

_DELAY, _BROKEN, _CHOSEN = "#0072b2", "#999999", "#d55e00"


def plan_figure(problem: PlanProblem, plan: Plan) -> Figure:
    """Delay against the cut, and accuracy over (ρ, bits) with what was measured.

    Cuts that do not fit into the memory of every device are shaded. The colour of a measured
    point is its own accuracy on the scale of the surface: one that stands out is a residual.

    Args:
      problem: that was solved, concrete.
      plan: its plan.

    Returns:
      A matplotlib figure.

    Example:
      >>> from jaxsplit.planning import plan
      >>> from jaxsplit.planning.example import example_problem
      >>> problem = example_problem()
      >>> len(plan_figure(problem, plan(problem)).axes)
      3
    """
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    delay, accuracy = figure.subplots(1, 2)
    _delay_panel(delay, plan)
    _accuracy_panel(figure, accuracy, problem, plan)
    for axes in (delay, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _delay_panel(axes: Axes, plan: Plan) -> None:
    table = plan.per_cut
    cuts, delay_s, fits, feasible = (
        np.asarray(values)
        for values in (table.cut, table.delay_s, table.memory_met, table.feasible)
    )
    edges = np.concatenate([[cuts[0] - 0.5], (cuts[1:] + cuts[:-1]) / 2, [cuts[-1] + 0.5]])
    label: str | None = "over the memory limit"
    for k in np.flatnonzero(~fits):
        axes.axvspan(edges[k], edges[k + 1], color="#eeeeee", linewidth=0, label=label, zorder=0)
        label = None
    axes.plot(cuts, delay_s, color=_DELAY, linewidth=1.4, zorder=2)
    for allowed, face, name in ((feasible, _DELAY, "feasible"), (~feasible, "white", "infeasible")):
        if allowed.any():
            axes.plot(
                cuts[allowed], delay_s[allowed], "o", color=_DELAY, markerfacecolor=face,
                markersize=6, label=name, zorder=3,
            )  # fmt: skip
    axes.plot(
        int(plan.cut), float(plan.delay_s), "*", color=_CHOSEN if plan.feasible else _BROKEN,
        markersize=16, markeredgecolor="white", zorder=4,
        label=f"{_chosen(plan)}: l = {plan.cut}, {plan.delay_s:.4g} s",
    )  # fmt: skip
    axes.set(xlabel="cut l, blocks on the device", ylabel="delay of a round, s")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(13, integer=True))
    axes.margins(y=0.15)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize="small", framealpha=0.9, edgecolor="none")


def _accuracy_panel(figure: Figure, axes: Axes, problem: PlanProblem, plan: Plan) -> None:
    surface = problem.surface
    (ratio_low, ratio_high), (bits_low, bits_high) = surface.ratio_range, surface.bits_range
    ratio_grid, bits_grid = jnp.meshgrid(
        jnp.geomspace(ratio_low, ratio_high, 121), jnp.linspace(bits_low, bits_high, 121)
    )
    fitted = 100 * np.asarray(accuracy_at(surface, ratio_grid, jnp.exp2(bits_grid) - 1))
    measured = 100 * np.asarray(surface.measured_accuracy)
    # The same steps of colour for both, so that a point of the surface's colour fits it.
    steps = MaxNLocator(12).tick_values(
        min(fitted.min(), measured.min()), max(fitted.max(), measured.max())
    )
    norm = BoundaryNorm(steps, 256)
    filled = axes.contourf(ratio_grid, bits_grid, fitted, steps, norm=norm, cmap="viridis")
    axes.scatter(
        surface.measured_ratio, np.log2(np.asarray(surface.measured_levels) + 1), c=measured,
        norm=norm, cmap="viridis", s=26, edgecolors="white", linewidths=0.8, zorder=3,
        clip_on=False,
    )  # fmt: skip
    target = 100 * float(problem.accuracy_min)
    outline = [withStroke(linewidth=3, foreground="white")]
    if fitted.min() < target < fitted.max():
        line = axes.contour(
            ratio_grid, bits_grid, fitted, [target], colors="black", linestyles="--", linewidths=1.2
        )
        line.set(path_effects=outline)
    # Neither a contour nor points of many colours have an entry of their own in a legend.
    axes.plot([], [], "--", color="black", linewidth=1.2, label=f"{target:.4g} %, required")
    axes.plot([], [], "o", color="#777777", markeredgecolor="white", label="measured")
    axes.plot(
        float(plan.ratio), np.log2(int(plan.levels) + 1), "*",
        color=_CHOSEN if plan.feasible else _BROKEN, markersize=16, markeredgecolor="white",
        zorder=4, clip_on=False, linestyle="none",
        label=f"{_chosen(plan)}: ρ = {plan.ratio:.3g}, E = {plan.levels}",
    )  # fmt: skip
    axes.set(
        xlabel="kept part of the entries ρ", ylabel="bits per level, log$_2$(E + 1)", xscale="log"
    )
    ticks = np.unique(np.asarray(surface.measured_ratio))
    axes.set_xticks(ticks, [f"{value:.3g}" for value in ticks])
    axes.minorticks_off()
    axes.legend(
        fontsize="small", frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.2,
    )  # fmt: skip
    figure.colorbar(filled, ax=axes, label="fitted accuracy, %")


def _chosen(plan: Plan) -> str:
    return "chosen" if plan.feasible else "nearest"
