"""SFT Fig. 10: simulated time until SFT and its benchmarks reach the same accuracy."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsplit.results import Interval, mean_interval

from .claims import Agrees, because
from .figure import Claim, Finding, LearningFigure
from .scales import variant_of
from .sft_fig5 import FIGURE as FIG5
from .sft_fig5 import SCALES, SCHEMES, finish, panels_of, partitions_of
from .sft_learning import missing, paired_ratio, per_data, ratio_text

#: Times of the benchmarks over SFT's that the paper prints for CIFAR-100, not IID.
PRINTED = {"fl_full": 2.34, "fl_lora": 2.34, "sft_uncompressed": 5.07, "sl": 6.0}


def reached_s(of: xr.Dataset, partition: str) -> dict[str, xr.DataArray]:
    """Simulated time until each scheme first reaches what all of them reach, per seed.

    Args:
      of: runs of a data set.
      partition: which.

    Returns:
      Seconds with the dimension seed, by scheme; linear between evaluations.
    """
    runs = {
        scheme: found
        for scheme in SCHEMES
        if (found := variant_of(of, partition=partition, scheme=scheme)) is not None
    }
    if not runs:
        return {}
    best = xr.concat([run.accuracy.max("eval_round") for run in runs.values()], "scheme")
    target = best.min("scheme")
    return {scheme: _first_at(run, target) for scheme, run in runs.items()}


def _first_at(run: xr.Dataset, target: xr.DataArray) -> xr.DataArray:
    curves = run.accuracy.transpose("seed", "eval_round").values
    times_s = run.eval_time_s.transpose("seed", "eval_round").values
    wanted = target.sel(seed=run.seed).values
    reached = [_crossing(*of_seed) for of_seed in zip(wanted, curves, times_s, strict=True)]
    return xr.DataArray(reached, dims="seed", coords={"seed": run.seed})


def _crossing(target: float, curve: np.ndarray, time_s: np.ndarray) -> float:
    """Time at which a curve that gets to the target is there first, linear between its points."""
    after = int(np.argmax(curve >= target))
    points = slice(max(after - 1, 0), after + 1)
    return float(np.interp(target, curve[points], time_s[points]))


# -- claims ----------------------------------------------------------------------------------------


def _times_over_sft(of: xr.Dataset) -> Iterator[tuple[str, str, Interval, str] | Finding]:
    """(partition, scheme, time over SFT's, evidence)."""
    for partition in partitions_of(of):
        reached = reached_s(of, partition)
        for scheme in PRINTED:
            if "sft" not in reached or scheme not in reached:
                yield missing(of, partition=partition, scheme=scheme)
                continue
            rounds = variant_of(of, partition=partition, scheme=scheme)
            ours = variant_of(of, partition=partition, scheme="sft")
            assert rounds is not None
            assert ours is not None
            evidence = (
                f"{float(reached[scheme].mean()):.3g} s against {float(reached['sft'].mean()):.3g} "
                f"s; a round takes {float(rounds.delay_s.mean()):.3g} s against "
                f"{float(ours.delay_s.mean()):.3g} s"
            )
            yield partition, scheme, paired_ratio(reached[scheme], reached["sft"]), evidence


def _compare(of: xr.Dataset, printed: bool) -> Iterator[Finding]:
    for row in _times_over_sft(of):
        if isinstance(row, Finding):
            yield row
            continue
        partition, scheme, ratio, evidence = row
        bar = PRINTED[scheme] if printed else 1.0
        agrees: Agrees = "undecided"
        if not np.isnan(ratio.low):
            agrees = "yes" if ratio.low > bar else "no" if ratio.high < bar else "undecided"
        label, _ = SCHEMES[scheme]
        yield Finding(
            measured=f"time of {label} over SFT's: {ratio_text(ratio)}",
            agrees=agrees,
            reason=because(agrees, of, evidence),
            of=f"{partition}; {label}" + (f", {bar:g}×" if printed else ""),
        )


def _fastest(of: xr.Dataset) -> Iterator[Finding]:
    yield from _compare(of, printed=False)


def _as_fast_as_printed(of: xr.Dataset) -> Iterator[Finding]:
    yield from _compare(of, printed=True)


# -- drawing ---------------------------------------------------------------------------------------


def draw(result: xr.Dataset) -> Figure:
    """Time until the common accuracy as bars, a panel per data set and partition.

    Args:
      result: of the figure.

    Returns:
      A matplotlib figure.
    """
    figure, panels = panels_of(result)
    for of, partition, panel in panels:
        _bars(panel, reached_s(of, partition))
        panel.set(ylabel="simulated time, s", yscale="log")
    return finish(figure, result)


def _bars(panel: Axes, reached: dict[str, xr.DataArray]) -> None:
    for place, (scheme, seconds) in enumerate(reached.items()):
        label, colour = SCHEMES[scheme]
        mean, low, high = mean_interval(seconds.values)
        error = None if np.isnan(low) else [[mean - max(low, 0.05 * mean)], [high - mean]]
        panel.bar(place, mean, color=colour, label=label, yerr=error, capsize=3)
        top = mean if error is None else high
        panel.annotate(
            f"{mean:.3g} s", (place, top), (0, 4), textcoords="offset points", ha="center"
        )
    panel.set_xticks([])
    panel.margins(y=0.2)


_SOURCE = "SFT Fig. 10"
FIGURE = LearningFigure(
    name="sft-fig10",
    title="SFT Fig. 10: simulated time to the accuracy that all schemes reach",
    scales=SCALES,
    draw=draw,
    claims=(
        Claim(_SOURCE, "SFT is the fastest to the same accuracy", per_data(_fastest)),
        Claim(
            "SFT Sec. VIII-B4",
            "SFT is faster by the printed factor",
            per_data(_as_fast_as_printed),
        ),
    ),
    same_runs_as=FIG5.name,
)
