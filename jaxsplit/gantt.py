"""A round of split fine-tuning as a Gantt chart (SFT's Fig. 4)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jaxsplit.costs import Order, Phases, round_delay

_COLUMN_WIDTH = 3.5  # inches, of a journal's two columns
_BAR = 0.68  # of a row's height
_MINUTES_FROM_S = 300.0

_MARK = "#c00000"
# Colour-blind safe: blue for the device's work, orange and yellow for its radio.
_STYLES = {
    "distribution_s": ("ED  adapters down", "#7f7f7f"),
    "device_forward_s": ("CC  device forward", "#56b4e9"),
    "activation_s": ("IT  activations up", "#d55e00"),
    "server_s": ("SC  server, own job", "#111111"),
    "server_wait_s": ("SC  server, others' jobs", "#c9c9c9"),
    "gradient_s": ("GT  gradients down", "#e69f00"),
    "device_backward_s": ("DU  device backward", "#0072b2"),
    "adapter_s": ("LT  adapters up", "#009e73"),
}


class _Bar(NamedTuple):
    """A piece of a device's row."""

    phase: str
    start_s: float
    length_s: float


def gantt_figure(
    phases: Phases,
    order: Order = "parallel",
    *,
    device_labels: Sequence[str] | None = None,
    title: str = "",
    width_in: float = _COLUMN_WIDTH,
) -> Figure:
    """Draw a round: one row per device, its phases one after another, the slowest marked.

    Each phase is the sum over the round's local steps. Within SC the server's jobs are drawn in
    the order of the devices, the device's own one in black. Devices that take no part are left
    out.

    Args:
      phases: of `round_phases`, [N] each.
      order: "parallel", all start at once; "sequential", one after another.
      device_labels: N names; numbers from 1 by default.
      title: above the chart.
      width_in: of the figure, inches.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: an unknown order, as many labels as there are no devices, or no device with
        anything to do.

    Example:
      >>> figure = gantt_figure(Phases(*[np.array([10.0, 20.0])] * 8))
      >>> figure.axes[0].get_xlabel()
      'time, s'
    """
    host = {name: np.atleast_1d(np.asarray(s, np.float64)) for name, s in phases._asdict().items()}
    round_s = float(round_delay(phases, order))
    totals_s = np.sum(list(host.values()), axis=0)
    shown = np.flatnonzero(totals_s > 0).tolist()
    if not shown:
        raise ValueError("phases has no device with anything to do: choose a round with one")
    labels = device_labels or [f"device {n + 1}" for n in range(totals_s.size)]
    if len(labels) != totals_s.size:
        raise ValueError(f"{len(labels)} device_labels for {totals_s.size} devices")
    unit_s, unit = (60.0, "min") if round_s >= _MINUTES_FROM_S else (1.0, "s")

    height = 0.2 * len(shown) + 1.55 + 0.2 * bool(title)
    figure = Figure(figsize=(width_in, height), layout="constrained")
    axes = figure.subplots()
    ends_s = np.cumsum(totals_s) if order == "sequential" else totals_s
    starts_s = ends_s - totals_s if order == "sequential" else np.zeros_like(totals_s)
    for row, device in enumerate(shown):
        for bar in _bars(host, device, float(starts_s[device])):
            _draw(axes, row, bar, unit_s)
    slowest = int(np.argmax(totals_s))
    _mark_end(axes, round_s / unit_s, unit, len(shown))

    axes.set(
        xlim=(0, 1.02 * round_s / unit_s),
        ylim=(len(shown) - 0.45, -0.95),  # a free row on top, for the round's length
    )
    axes.set_xlabel(f"time, {unit}", fontsize=8)
    axes.set_yticks(range(len(shown)), [labels[device] for device in shown])
    for tick, device in zip(axes.get_yticklabels(), shown, strict=True):
        if device == slowest:
            tick.set(color=_MARK, fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(
        handles=[
            Patch(color=colour, label=label)
            for phase, (label, colour) in _STYLES.items()
            if np.any(host[phase] > 0)
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=6.5,
        handlelength=1.2,
        columnspacing=1.4,
        labelspacing=0.25,
    )
    if title:
        figure.suptitle(title, fontsize=8)
    return figure


def _bars(phases: dict[str, np.ndarray], device: int, start_s: float) -> Iterator[_Bar]:
    """The pieces of a device's row, SC split into the server's jobs."""
    for phase, seconds in phases.items():
        if phase == "server_wait_s":
            continue  # drawn with the server's own job
        jobs = _jobs(phases, device) if phase == "server_s" else [(phase, float(seconds[device]))]
        for name, length_s in jobs:
            yield _Bar(name, start_s, length_s)
            start_s += length_s


def _jobs(phases: dict[str, np.ndarray], device: int) -> list[tuple[str, float]]:
    """The server's jobs in a device's SC, in the order of the devices."""
    work_s = np.array(phases["server_s"])
    own_s, wait_s = float(work_s[device]), float(phases["server_wait_s"][device])
    work_s[device] = 0
    # A device with fewer steps than others waits for a part of their jobs only.
    others_s = work_s * (wait_s / work_s.sum()) if work_s.sum() else work_s
    return [
        ("server_s", own_s) if m == device else ("server_wait_s", float(job_s))
        for m, job_s in enumerate(others_s)
    ]


def _draw(axes: Axes, row: int, bar: _Bar, unit_s: float) -> None:
    axes.barh(
        row,
        bar.length_s / unit_s,
        _BAR,
        left=bar.start_s / unit_s,
        color=_STYLES[bar.phase][1],
        # White lines keep one job of the server apart from the next; they would hide the short
        # phases at both ends.
        edgecolor="white",
        linewidth=0.25 if bar.phase in ("server_s", "server_wait_s") else 0,
    )


def _mark_end(axes: Axes, end: float, unit: str, num_rows: int) -> None:
    """A line where the round ends, and how long it took."""
    axes.plot([end, end], [-0.6, num_rows - 0.5], color=_MARK, linewidth=0.9, linestyle=(0, (3, 2)))
    text = f"round: {end:.3g} {unit}"
    axes.text(end, -0.58, text, ha="right", va="bottom", fontsize=7, color=_MARK)
