"""SFT Fig. 6: memory of a device over the number of blocks that it trains.

ViT-B/16, 64 images of 224 × 224, SGD with momentum, once by the paper's formula (26) and once as
what really has to be kept. The limit is that of an NVIDIA Jetson Orin Nano, whose capacity is
8 GB. That is read as 8 · 2³⁰ bytes, all of them free for training: the reading that is kindest to
what is to exceed it.
"""

from collections.abc import Iterator
from typing import cast

import matplotlib.figure
import numpy as np
import xarray as xr

from jaxsplit.costs import Mode, device_memory, model_memory

from .figure import Agrees, Claim, Finding, NetworkFigure, Progress, Siblings
from .sft_setting import BATCH_SIZE, COLOURS, CUT, FL_FULL, FL_LORA, TABLE_VIT, CountScale
from .sft_table3 import PRINTED_TOTAL_MIB

MIB = 2**20
CAPACITY_MIB = 8 * 1024.0
MODES: dict[Mode, str] = {"paper": "the paper's formula (26)", "exact": "true count"}
STRAIGHT = 0.01  # of the memory of all blocks, how far a straight line may be off
FROM_ZERO = 0.05  # of the memory of all blocks, what a proportional line may have at no block


def run(scale: CountScale, seeds: int, progress: Progress) -> xr.Dataset:
    """Count the memory for every number of blocks.

    Args:
      scale: not used.
      seeds: not used: nothing is drawn.
      progress: told about the stage "measuring".

    Returns:
      A data set with dimensions mode, blocks (0 to 12) and scheme (federated ones).
    """
    blocks = np.arange(TABLE_VIT.num_blocks + 1)
    split = [device_memory(TABLE_VIT, blocks, BATCH_SIZE, mode=mode).total for mode in MODES]
    whole = [
        [
            model_memory(TABLE_VIT, BATCH_SIZE, mode=mode, train_weights=scheme == FL_FULL).total
            for scheme in (FL_FULL, FL_LORA)
        ]
        for mode in MODES
    ]
    progress("measuring", len(MODES), len(MODES))
    units = {"units": "MiB"}
    return xr.Dataset(
        {
            "split_mib": (
                ("mode", "blocks"),
                np.array(split) / MIB,
                units | {"long_name": "memory of a device with the blocks 1 to l"},
            ),
            "whole_mib": (
                ("mode", "scheme"),
                np.array(whole) / MIB,
                units | {"long_name": "memory of a device with the whole model"},
            ),
            "capacity_mib": ((), CAPACITY_MIB, units | {"long_name": "of a Jetson Orin Nano"}),
        },
        coords={"mode": list(MODES), "blocks": blocks, "scheme": [FL_FULL, FL_LORA]},
    )


# -- verdicts --------------------------------------------------------------------------------------


def _in_proportion(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for mode, meaning in MODES.items():
        of = result.split_mib.sel(mode=mode, blocks=slice(1, None))
        per_block, at_none = np.polyfit(of.blocks, of, 1)
        off = float(np.abs(of - (at_none + per_block * of.blocks)).max() / of[-1])
        offset = float(abs(at_none) / of[-1])
        yield Finding(
            measured=f"{per_block:,.0f} MiB per block; a straight line is off by at most "
            f"{100 * off:.2f} % of the memory of all blocks",
            agrees="yes" if off <= STRAIGHT and offset <= FROM_ZERO else "no",
            reason=f"straight is up to {100 * STRAIGHT:g} %; the line starts at {at_none:,.0f} "
            f"MiB, {100 * offset:.1f} % of the memory of all blocks, where "
            f"{100 * FROM_ZERO:g} % is still in proportion",
            of=meaning,
        )


def _fl_exceeds(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    capacity = float(result.capacity_mib)
    for mode, meaning in MODES.items():
        of = result.sel(mode=mode)
        fits = int(of.blocks.where(of.split_mib <= capacity).max())
        for scheme in of.scheme.values:
            need = float(of.whole_mib.sel(scheme=scheme))
            agrees: Agrees = "yes" if need > capacity else "no"
            yield Finding(
                measured=f"{need:,.0f} MiB of {capacity:,.0f} MiB",
                agrees=agrees,
                reason=f"{100 * need / capacity:.1f} % of it; up to {fits} of "
                f"{of.blocks[-1].item()} blocks fit; Table III has measured "
                f"{PRINTED_TOTAL_MIB[scheme]:,.0f} MiB",
                of=f"{scheme}, {meaning}",
            )


def _split_fits(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    capacity = float(result.capacity_mib)
    for mode, meaning in MODES.items():
        need = float(result.split_mib.sel(mode=mode, blocks=CUT))
        yield Finding(
            measured=f"{need:,.0f} MiB of {capacity:,.0f} MiB",
            agrees="yes" if need <= capacity else "no",
            reason=f"Table III has measured {PRINTED_TOTAL_MIB['SFT']:,.0f} MiB",
            of=meaning,
        )


_SOURCE = "SFT Fig. 6"
_CLAIMS = (
    Claim(_SOURCE, "a device's memory grows in proportion to its blocks", _in_proportion),
    Claim(_SOURCE, "federated learning exceeds a Jetson Orin Nano's memory", _fl_exceeds),
    Claim(_SOURCE, f"split fine-tuning with {CUT} blocks fits into it", _split_fits),
)


# -- the figure ------------------------------------------------------------------------------------

_STYLES = {"paper": ("#0072b2", "s--"), "exact": ("#0072b2", "o-")}


def draw(result: xr.Dataset) -> matplotlib.figure.Figure:
    """Lines over the blocks, the whole model of federated learning, what the paper measured."""
    figure = matplotlib.figure.Figure(figsize=(11, 5.4), layout="constrained")
    axes = figure.subplots()
    gib = result[["split_mib", "whole_mib", "capacity_mib"]] / 1024
    whole_at = gib.blocks[-1].item()
    for mode, (colour, line) in _STYLES.items():
        label = f"split fine-tuning, {MODES[cast(Mode, mode)]}"
        axes.plot(gib.blocks, gib.split_mib.sel(mode=mode), line, color=colour, label=label)
        for scheme, aside in ((FL_FULL, 0.25), (FL_LORA, 0.5)):
            axes.plot(
                whole_at + aside,
                gib.whole_mib.sel(mode=mode, scheme=scheme),
                line[0],
                color=COLOURS[scheme],
                markersize=8,
                linestyle="none",
                label=f"{scheme}, {MODES[cast(Mode, mode)]}",
            )
    printed = {"SFT": CUT, FL_FULL: whole_at + 0.25, FL_LORA: whole_at + 0.5}
    axes.plot(
        list(printed.values()),
        [PRINTED_TOTAL_MIB[scheme] / 1024 for scheme in printed],
        "D",
        color="k",
        fillstyle="none",
        markersize=8,
        label="measured by the paper (Table III)",
    )
    axes.axhline(float(gib.capacity_mib), color="red", label="Jetson Orin Nano, 8 GB")
    axes.set(xlabel="blocks on the device", ylabel="memory of the device, GiB", ylim=(0, None))
    axes.set_xticks(gib.blocks)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False)
    figure.suptitle(
        f"{result.attrs['title']}\nViT-B/16, {BATCH_SIZE} images of 224 × 224, SGD with momentum",
        fontsize="medium",
    )
    return figure


FIGURE = NetworkFigure(
    name="sft-fig6",
    title="SFT Fig. 6: memory of a device over the number of its blocks",
    scales=dict.fromkeys(("laptop", "paper"), CountScale()),
    run=run,
    draw=draw,
    claims=_CLAIMS,
)
