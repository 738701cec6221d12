"""SFT Fig. 3: a third-order surface fitted to the accuracies of Fig. 7."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from jaxsplit.planning import AccuracySurface, accuracy_at, fit_accuracy

from .claims import OURS, Agrees
from .figure import Claim, Finding, LearningFigure
from .measures import final
from .sft_fig7 import FIGURE as FIG7
from .sft_fig7 import SCALES
from .sft_learning import per_data

#: Greatest mean squared error of the fit that the paper reports, accuracy in parts of 1.
PRINTED_ERROR = 0.0026


def measured(of: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratios, levels and mean accuracies of the compressed runs, [M] each."""
    coded = of.isel(variant=of.codec.values == "compressed")
    accuracy = final(coded).mean("seed")
    return coded.codec_ratio.values, coded.codec_levels.values, accuracy.values


def surface_of(of: xr.Dataset, *, over_ratio: bool = False) -> AccuracySurface | None:
    """The surface fitted to the means over seeds; None where there are too few points.

    Args:
      of: runs of a data set.
      over_ratio: whether it is a polynomial in ρ itself, as the paper has it, not in log2 ρ. Its
        argument is then 2^(ρ − 1), whose logarithm is ρ − 1.
    """
    ratio, levels, accuracy = measured(of)
    try:
        return fit_accuracy(np.exp2(ratio - 1) if over_ratio else ratio, levels, accuracy)
    except ValueError:
        return None


def _fits(of: xr.Dataset) -> Iterator[Finding]:
    surface = surface_of(of)
    ratio, levels, accuracy = measured(of)
    if surface is None:
        yield Finding("not fitted", "undecided", f"{len(ratio)} points are too few for 10 terms")
        return
    error, unseen = float(surface.mean_squared_error), float(surface.leave_one_out_error)
    agrees: Agrees = "yes" if error < PRINTED_ERROR else "no"
    worst = int(np.argmax(np.abs(np.asarray(accuracy_at(surface, ratio, levels)) - accuracy)))
    yield Finding(
        measured=f"mean squared error {error:.2e} of accuracies in parts of 1, "
        f"{np.sqrt(error) * 100:.2f} points root mean square",
        agrees=agrees,
        reason=f"at a point that the fit has not seen {unseen:.2e} "
        f"({np.sqrt(unseen) * 100:.2f} points); the worst of {len(ratio)} points is off by "
        f"{100 * float(surface.greatest_residual):.1f} points, at ρ = {ratio[worst]:g} and "
        f"E = {levels[worst]}; the accuracies have a variance of {np.var(accuracy):.2e}",
    )


def _swings(of: xr.Dataset) -> Iterator[Finding]:
    """By how much a surface leaves the range of its two measured neighbours, between them."""
    ratio, levels, _ = measured(of)
    surfaces = {"ρ": surface_of(of, over_ratio=True), "log2 ρ": surface_of(of)}
    worst: dict[str, float] = {}
    for axis, surface in surfaces.items():
        if surface is None:
            yield Finding("not fitted", "undecided", f"{len(ratio)} points are too few")
            return
        at = np.exp2(np.unique(ratio) - 1) if axis == "ρ" else np.unique(ratio)
        worst[axis] = max(
            _beyond_neighbours(surface, at[k : k + 2], level)
            for k in range(len(at) - 1)
            for level in np.unique(levels)
        )
    unseen = {
        axis: 100 * np.sqrt(float(surface.leave_one_out_error))
        for axis, surface in surfaces.items()
        if surface is not None
    }
    yield Finding(
        measured=f"up to {100 * worst['ρ']:.1f} points in ρ, {100 * worst['log2 ρ']:.1f} in log2 ρ",
        agrees="yes" if worst["ρ"] > worst["log2 ρ"] else "no",
        reason=f"at a point that the fit has not seen {unseen['ρ']:.2f} and "
        f"{unseen['log2 ρ']:.2f} points, root mean square",
    )


def _beyond_neighbours(surface: AccuracySurface, ends: np.ndarray, level: float) -> float:
    """How far the fit between two measured ratios leaves the range of its values at them."""
    values = np.asarray(accuracy_at(surface, np.linspace(*ends, 100), np.full(100, level)))
    low, high = sorted((values[0], values[-1]))
    return float(max(low - values.min(), values.max() - high))


def draw(result: xr.Dataset) -> Figure:
    """The surface as colours with the measured points on it, and the residuals.

    Args:
      result: of the figure.

    Returns:
      A row of two panels per data set.
    """
    rows = result.sizes["data"]
    figure = Figure(figsize=(11, 0.6 + 4.0 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for row in range(rows):
        _row(figure, axes[row], result.isel(data=row))
    seeds = result.sizes["seed"]
    figure.suptitle(f"{result.attrs['title']}\nmeans of {seeds} seeds", fontsize="medium")
    return figure


def _row(figure: Figure, panels: np.ndarray, of: xr.Dataset) -> None:
    colours, fit = panels
    ratio, levels, accuracy = measured(of)
    bits = np.log2(levels + 1)
    surface = surface_of(of)
    low, high = 100 * accuracy.min(), 100 * accuracy.max()
    if surface is not None:
        x, y = np.geomspace(ratio.min(), ratio.max(), 100), np.linspace(bits.min(), bits.max(), 100)
        grid = 100 * np.asarray(accuracy_at(surface, *np.meshgrid(x, 2**y - 1)))
        low, high = min(low, grid.min()), max(high, grid.max())
        contours = colours.contourf(x, y, grid, np.linspace(low, high, 21), cmap="viridis")
        figure.colorbar(contours, ax=colours, label="test accuracy, %", format="%.0f")
        fitted = 100 * np.asarray(accuracy_at(surface, ratio, levels))
        fit.plot([low, high], [low, high], color="grey", linewidth=1)
        fit.plot(100 * accuracy, fitted, "o", color="#0072b2")
    colours.scatter(
        ratio, bits, c=100 * accuracy, vmin=low, vmax=high, cmap="viridis", edgecolor="white",
        clip_on=False, zorder=3,
    )  # fmt: skip
    for at, number, value in zip(ratio, bits, accuracy, strict=True):
        colours.annotate(
            f"{100 * value:.0f}",
            (at, number),
            (5, 4),
            textcoords="offset points",
            fontsize="small",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
    colours.set(xlabel="part of the entries kept, ρ", ylabel="bits, log2(E + 1)", xscale="log")
    colours.set_xticks(np.unique(ratio), [f"{value:g}" for value in np.unique(ratio)])
    colours.minorticks_off()
    colours.set_title(of["data"].item(), fontsize="medium", pad=18)  # above the numbers
    fit.set(xlabel="measured accuracy, %", ylabel="fitted accuracy, %")
    fit.grid(alpha=0.25)


FIGURE = LearningFigure(
    name="sft-fig3",
    title="SFT Fig. 3: accuracy over the compression, and the third-order surface through it",
    scales=SCALES,
    draw=draw,
    claims=(
        Claim(
            "SFT Fig. 3",
            "a third-order polynomial fits the accuracy with a mean squared error below 0.26 %",
            per_data(_fits),
        ),
        Claim(
            OURS,
            "between measured ratios a cubic in ρ swings further than one in log2 ρ",
            per_data(_swings),
        ),
    ),
    same_runs_as=FIG7.name,
)
