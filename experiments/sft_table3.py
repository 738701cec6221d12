"""SFT Table III: memory of a device under four schemes, row by row.

The paper's numbers are in MiB, of ViT-B/16 with 200 classes. Its activations are measured; ours
are counted: by its formula (26), which has no row for the inputs and charges every weight for a
gradient and a momentum, and as what really has to be kept. Table III has no row for gradients.

Its two other kinds of rows can be counted as it must have counted them: inputs as float32 pixels,
and weights with adapters also on the patch convolution and on the head, where the half on the
device leaves out the positions and the CLS token.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from jaxsplit.costs import Memory, Mode, device_memory, model_memory

from .claims import OURS
from .figure import Agrees, Claim, Finding, NetworkFigure, Progress, Siblings
from .sft_setting import BATCH_SIZE, CUT, FL_FULL, FL_LORA, SFT, SL, TABLE_VIT, CountScale

MIB = 2**20
SCHEMES = (FL_FULL, FL_LORA, SL, SFT)
ROWS = ("input", "activation", "model + LoRA", "gradient", "optimizer")
#: What the paper prints, MiB; NaN where it has no row.
PRINTED_MIB = {
    FL_FULL: (36.75, 9171.11, 327.88, np.nan, 329.76),
    FL_LORA: (36.75, 9513.82, 337.03, np.nan, 9.09),
    SL: (36.75, 3941.23, 141.19, np.nan, 3.75),
    SFT: (36.75, 3941.23, 141.19, np.nan, 3.75),
}
PRINTED_TOTAL_MIB = {FL_FULL: 9865.5, FL_LORA: 9896.69, SL: 4122.92, SFT: 4122.92}
PRINTED = "printed"
FORMULA: Mode = "paper"
COUNTED: Mode = "exact"
SOURCES = {PRINTED: "printed", FORMULA: "formula (26)", COUNTED: "true count"}

SAVING = 0.582  # what the paper says that SFT saves of FL's memory
SAVING_TOLERANCE = 0.02
EFFECTIVE = 0.1  # a smaller part of the memory is no effective reduction
LAST_DIGIT_MIB = 0.01  # the paper rounds some numbers and cuts off others


def memory_of(scheme: str, mode: Mode) -> Memory:
    """Memory of a device of a scheme; split learning keeps what SFT keeps."""
    if scheme in (SL, SFT):
        return device_memory(TABLE_VIT, CUT, BATCH_SIZE, mode=mode)
    return model_memory(TABLE_VIT, BATCH_SIZE, mode=mode, train_weights=scheme == FL_FULL)


def rows_mib(memory: Memory) -> tuple[float, ...]:
    """The rows of the table, MiB."""
    weights = memory.weights + memory.adapters
    parts = (memory.inputs, memory.activations, weights, memory.gradients, memory.optimizer)
    return tuple(float(part) / MIB for part in parts)


class Weights(NamedTuple):
    """A printed number of weights, and how it is made up."""

    mib: float
    of: str


def as_printed() -> Mapping[str, Weights]:
    """The row Model + LoRA by the sums that give the printed numbers (module docstring)."""
    shape = TABLE_VIT
    patch = (shape.patch_values + 1) * shape.width  # convolution and bias
    patch_adapter = shape.lora_rank * (shape.patch_values + shape.width)
    head_adapter = shape.lora_rank * (shape.width + shape.num_outputs)
    value_mib = shape.bytes_per_value / MIB
    device = CUT * (shape.block_parameters + shape.block_adapters) + patch
    half = Weights(
        device * value_mib,
        f"{CUT} blocks, their adapters and the patch convolution, without positions and CLS token",
    )
    return {
        FL_FULL: Weights(shape.parameters * value_mib, "all weights"),
        FL_LORA: Weights(
            (shape.parameters + shape.adapters + patch_adapter + head_adapter) * value_mib,
            "all weights, adapters of the blocks, the patch convolution and the head",
        ),
        SL: half,
        SFT: half,
    }


def run(scale: CountScale, seeds: int, progress: Progress) -> xr.Dataset:
    """Count the table.

    Args:
      scale: not used.
      seeds: not used: nothing is drawn.
      progress: told about the stage "measuring".

    Returns:
      A data set with dimensions source (printed, paper, exact), scheme and row.
    """
    modes: tuple[Mode, ...] = (FORMULA, COUNTED)
    values = [
        [PRINTED_MIB[scheme] for scheme in SCHEMES],
        *([rows_mib(memory_of(scheme, mode)) for scheme in SCHEMES] for mode in modes),
    ]
    progress("measuring", len(modes), len(modes))
    weights = as_printed()
    return xr.Dataset(
        {
            "memory_mib": (
                ("source", "scheme", "row"),
                np.array(values),
                {"units": "MiB", "long_name": "memory of a device; NaN: no such row"},
            ),
            "weights_as_printed_mib": (
                ("scheme",),
                [weights[scheme].mib for scheme in SCHEMES],
                {"units": "MiB", "long_name": "Model + LoRA by the paper's way of counting"},
            ),
        },
        coords={"source": list(SOURCES), "scheme": list(SCHEMES), "row": list(ROWS)},
    )


def total_mib(result: xr.Dataset) -> xr.DataArray:
    """The row Total, of all rows that a source has."""
    return result.memory_mib.sum("row")


# -- verdicts --------------------------------------------------------------------------------------


def _saves_memory(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    total = total_mib(result)
    for source in (FORMULA, COUNTED):
        of = total.sel(source=source)
        saving = 1 - float(of.sel(scheme=SFT) / of.sel(scheme=FL_FULL))
        activations = [
            float(result.memory_mib.sel(source=each, scheme=SFT, row="activation"))
            for each in (source, PRINTED)
        ]
        yield Finding(
            measured=f"{100 * saving:.1f} % less: {float(of.sel(scheme=SFT)):,.0f} MiB instead of "
            f"{float(of.sel(scheme=FL_FULL)):,.0f} MiB",
            agrees="yes" if abs(saving - SAVING) <= SAVING_TOLERANCE else "no",
            reason=f"the same is up to {100 * SAVING_TOLERANCE:g} points; {CUT} of "
            f"{TABLE_VIT.num_blocks} blocks would save "
            f"{100 * (1 - CUT / TABLE_VIT.num_blocks):.1f} %; SFT's activations "
            f"{activations[0]:,.0f} MiB, measured by the paper {activations[1]:,.0f} MiB",
            of=SOURCES[source],
        )


def _lora_saves_little(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    total = total_mib(result)
    why = {
        FORMULA: "the formula charges frozen weights like trained ones, so that it cannot show a "
        "difference",
        COUNTED: "LoRA spares gradients and momenta, but not the activations, in MiB "
        f"{_activations(result)}",
    }
    for source in (FORMULA, COUNTED):
        of = total.sel(source=source)
        saving = 1 - float(of.sel(scheme=FL_LORA) / of.sel(scheme=FL_FULL))
        yield Finding(
            measured=f"{100 * saving:.1f} % less: {float(of.sel(scheme=FL_LORA)):,.0f} MiB "
            f"instead of {float(of.sel(scheme=FL_FULL)):,.0f} MiB",
            agrees="yes" if saving < EFFECTIVE else "no",
            reason=f"effective is {100 * EFFECTIVE:g} % or more; {why[source]}",
            of=SOURCES[source],
        )


def _activations(result: xr.Dataset) -> str:
    of = result.memory_mib.sel(source=COUNTED, row="activation")
    return ", ".join(f"{scheme} {float(of.sel(scheme=scheme)):,.0f}" for scheme in SCHEMES[:2])


def _mostly_activations(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for source in (FORMULA, COUNTED):
        share = result.memory_mib.sel(source=source) / total_mib(result).sel(source=source)
        activation, optimizer = share.sel(row="activation"), share.sel(row="optimizer")
        holds = bool((activation > 0.5).all() and (optimizer < 0.1).all())
        yield Finding(
            measured=f"activations {100 * float(activation.min()):.0f} to "
            f"{100 * float(activation.max()):.0f} %, optimizer {100 * float(optimizer.min()):.1f} "
            f"to {100 * float(optimizer.max()):.1f} % of the total",
            agrees="yes" if holds else "no",
            reason="over the four schemes; tested: more than half, and less than a tenth",
            of=SOURCES[source],
        )


def _rows_follow(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    """The rows that the paper did not measure."""
    of = result.sel(source=COUNTED).memory_mib
    printed = result.sel(source=PRINTED).memory_mib
    inputs = float(of.sel(row="input", scheme=SFT))
    yield Finding(
        measured=f"{inputs:.2f} MiB, printed {float(printed.sel(row='input', scheme=SFT)):.2f}",
        agrees=_same_digits(inputs, float(printed.sel(row="input", scheme=SFT))),
        reason=f"{BATCH_SIZE} images of 3 · 224² float32",
        of="input",
    )
    weights = as_printed()
    for scheme in (FL_FULL, FL_LORA, SFT):
        ours = float(result.weights_as_printed_mib.sel(scheme=scheme))
        wanted = float(printed.sel(row="model + LoRA", scheme=scheme))
        yield Finding(
            measured=f"{ours:.2f} MiB, printed {wanted:.2f}",
            agrees=_same_digits(ours, wanted),
            reason=f"{weights[scheme].of}; the whole of what our device holds is "
            f"{float(of.sel(row='model + LoRA', scheme=scheme)):.2f} MiB",
            of=f"model + LoRA, {scheme}",
        )


def _same_digits(ours: float, printed: float) -> Agrees:
    return "yes" if abs(ours - printed) < LAST_DIGIT_MIB else "no"


_SOURCE = "SFT Table III"
_CLAIMS = (
    Claim(_SOURCE, f"SFT takes {100 * SAVING:.1f} % less memory than FL", _saves_memory),
    Claim(_SOURCE, "LoRA does not reduce the memory of FL effectively", _lora_saves_little),
    Claim(
        "SFT §VIII-B2",
        "activations are a significant portion of the memory, the optimizer a small fraction",
        _mostly_activations,
    ),
    Claim(
        OURS,
        "the rows for inputs and weights follow by counting, to the second digit",
        _rows_follow,
    ),
)


# -- the figure ------------------------------------------------------------------------------------

_COLOURS = dict(zip(ROWS, ("#e69f00", "#56b4e9", "#0072b2", "#cc79a7", "#009e73"), strict=True))
_WIDTH = 0.27


def draw(result: xr.Dataset) -> matplotlib.figure.Figure:
    """Stacked bars, three for each scheme: printed, by the formula, counted."""
    figure = matplotlib.figure.Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(SCHEMES))
    ticks: list[tuple[float, str]] = []
    for k, (source, meaning) in enumerate(SOURCES.items()):
        at = places + (k - 1) * _WIDTH
        _stacks(axes, at, result.sel(source=source), with_labels=source == COUNTED)
        ticks += [(float(place), meaning) for place in at]
    axes.set_xticks(*zip(*ticks, strict=True), rotation=28, ha="right", fontsize=9)
    for place, scheme in zip(places, SCHEMES, strict=True):
        axes.text(float(place), 11.1, scheme, ha="center", va="top", fontsize=12, weight="bold")
    axes.set(ylabel="memory of a device, GiB", ylim=(0, 11.4))
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    figure.suptitle(
        f"{result.attrs['title']}\nViT-B/16, {BATCH_SIZE} images of 224 × 224, SGD with momentum; "
        "above the bars the total in MiB",
        fontsize="medium",
    )
    return figure


def _stacks(axes: Axes, at: np.ndarray, of: xr.Dataset, *, with_labels: bool) -> None:
    bottom = np.zeros(len(at))
    for row in ROWS:
        height = np.nan_to_num(of.memory_mib.sel(row=row).values) / 1024
        axes.bar(
            at,
            height,
            0.9 * _WIDTH,
            bottom,
            color=_COLOURS[row],
            label=row if with_labels else None,
        )
        bottom += height
    for place, top in zip(at, bottom, strict=True):
        axes.text(place, top + 0.08, f"{1024 * top:,.0f}", ha="center", fontsize=9)


FIGURE = NetworkFigure(
    name="sft-table3",
    title="SFT Table III: memory of a device under four schemes",
    scales=dict.fromkeys(("laptop", "paper"), CountScale()),
    run=run,
    draw=draw,
    claims=_CLAIMS,
)
