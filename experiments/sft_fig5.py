"""SFT Fig. 5: accuracy of SFT and its benchmarks over rounds, IID and not."""

from collections.abc import Iterator

import xarray as xr
from matplotlib.figure import Figure

from jaxsplit.plots import band

from .claims import above, all_of, because, points, signed
from .figure import Claim, Finding, LearningFigure
from .measures import final
from .scales import Variant, VariantScale, product, variant_of
from .sft_learning import (
    ALLOWED_LOSS,
    LAPTOP,
    PAPER,
    missing,
    paired,
    paired_ratio,
    per_data,
    ratio_text,
    traffic_bits,
)

PARTITIONS = ("iid", "dirichlet:0.5")
#: Scheme: (label, colour).
SCHEMES = {
    "sft": ("SFT", "#0072b2"),
    "sft_uncompressed": ("SFT without compression", "#56b4e9"),
    "sl": ("SL", "#d55e00"),
    "fl_lora": ("FL with LoRA", "#009e73"),
    "fl_full": ("FL of all weights", "#cc79a7"),
}
#: The traffic that the headline allows, of the uncompressed one's.
_TRAFFIC = 0.068
_UNCHANGED = -0.01  # accuracy; a scheme whose second half loses more does not converge


def variants(full_learning_rate: float, sl_learning_rate: float) -> tuple[Variant, ...]:
    """Every scheme under every partition.

    Args:
      full_learning_rate: of all weights, which want a lower one than adapters.
      sl_learning_rate: of adapters and head in split learning, where no average over devices takes
        the noise out of their steps.

    Returns:
      The variants.
    """
    changes = {
        "sl": {
            "adapter_learning_rate": sl_learning_rate,
            "head_learning_rate": sl_learning_rate,
        },
        "fl_lora": {"cut": None},
        "fl_full": {"cut": None, "adapter_learning_rate": full_learning_rate},
    }
    return product(
        [Variant(labels={"partition": name}) for name in PARTITIONS],
        [Variant(labels={"scheme": name}, changes=changes.get(name, {})) for name in SCHEMES],
    )


def partitions_of(result: xr.Dataset) -> list[str]:
    """The partitions that there are runs of."""
    return [name for name in PARTITIONS if name in result.partition.values]


# -- claims ----------------------------------------------------------------------------------------


def _converges(of: xr.Dataset) -> Iterator[Finding]:
    for partition in partitions_of(of):
        runs = variant_of(of, partition=partition, scheme="sft")
        if runs is None:
            yield missing(of, partition=partition, scheme="sft")
            continue
        curve = runs.accuracy
        gained = paired(curve.isel(eval_round=-1), curve.isel(eval_round=0))
        middle = curve.isel(eval_round=curve.sizes["eval_round"] // 2)
        second_half = paired(curve.isel(eval_round=-1), middle)
        agrees = all_of([above(gained), above(second_half, bar=_UNCHANGED)])
        curve_text = ", ".join(f"{100 * value:.1f}" for value in curve.mean("seed").values)
        yield Finding(
            measured=f"points gained: {points(gained)}, in the second half {points(second_half)}",
            agrees=agrees,
            reason=because(agrees, of, f"accuracy in % at the evaluations: {curve_text}"),
            of=partition,
        )


def _compared(of: xr.Dataset, bar: float) -> Iterator[Finding]:
    """SFT against every other scheme."""
    for partition in partitions_of(of):
        ours = variant_of(of, partition=partition, scheme="sft")
        for scheme, (label, _) in SCHEMES.items():
            theirs = variant_of(of, partition=partition, scheme=scheme)
            if scheme == "sft":
                continue
            if ours is None or theirs is None:
                yield missing(of, partition=partition, scheme=scheme)
                continue
            gap = paired(final(ours), final(theirs))
            agrees = above(gap, bar=bar)
            yield Finding(
                measured=f"final accuracy, points: {points(gap)}",
                agrees=agrees,
                reason=because(
                    agrees,
                    of,
                    f"SFT {100 * float(final(ours).mean()):.1f} %, {label} "
                    f"{100 * float(final(theirs).mean()):.1f} %; test loss "
                    f"{signed(paired(final(ours, 'test_loss'), final(theirs, 'test_loss')))} nat",
                ),
                of=f"{partition}; to {label}",
            )


def _comparable(of: xr.Dataset) -> Iterator[Finding]:
    yield from _compared(of, -ALLOWED_LOSS)


def _compression_improves(of: xr.Dataset) -> Iterator[Finding]:
    for finding in _compared(of, 0.0):
        if finding.of.endswith(SCHEMES["sft_uncompressed"][0]):
            yield finding


def _traffic_is_small(of: xr.Dataset) -> Iterator[Finding]:
    for partition in partitions_of(of):
        ours, theirs = (
            variant_of(of, partition=partition, scheme=scheme)
            for scheme in ("sft", "sft_uncompressed")
        )
        if ours is None or theirs is None:
            yield missing(of, partition=partition, scheme="sft_uncompressed")
            continue
        share = paired_ratio(traffic_bits(ours), traffic_bits(theirs))
        # What no codec counts are the adapters, up and down.
        uncoded = float(ours.up_bits + ours.down_bits) * ours.sizes["round"] * ours.sizes["device"]
        adapters = uncoded / float(traffic_bits(ours).mean())
        yield Finding(
            measured=f"{100 * share.mean:.2f} % of the uncompressed traffic, counted",
            agrees="yes" if share.mean <= _TRAFFIC else "no",  # counted, not estimated
            reason=f"{ratio_text(paired_ratio(traffic_bits(theirs), traffic_bits(ours)))} less; "
            f"{100 * adapters:.0f} % of what is left are adapters, which are not compressed",
            of=partition,
        )


# -- drawing ---------------------------------------------------------------------------------------


def draw(result: xr.Dataset) -> Figure:
    """Accuracy over rounds, a panel per data set and partition.

    Args:
      result: of the figure.

    Returns:
      A matplotlib figure.
    """
    figure, panels = panels_of(result)
    for of, partition, panel in panels:
        for scheme, (label, colour) in SCHEMES.items():
            runs = variant_of(of, partition=partition, scheme=scheme)
            if runs is not None:
                # Without compression SFT and FL with LoRA are the same numbers: both stay visible.
                line = "--" if scheme == "fl_lora" else "-"
                band(panel, of.eval_round.values, 100 * runs.accuracy, colour, label, line)
        panel.set(xlabel="round", ylabel="test accuracy, %")
    return finish(figure, result)


def panels_of(result: xr.Dataset) -> tuple[Figure, list]:
    """An empty figure with (runs, partition, panel) for each data set and partition."""
    names = partitions_of(result)
    rows, columns = result.sizes["data"], len(names)
    figure = Figure(figsize=(max(6.4, 5.2 * columns), 0.8 + 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
    panels = [
        (result.isel(data=row), name, axes[row, column])
        for row in range(rows)
        for column, name in enumerate(names)
    ]
    for of, name, panel in panels:
        panel.set_title(f"{of['data'].item()}, {name}", fontsize="medium")
        panel.grid(alpha=0.25)
    return figure, panels


def finish(figure: Figure, result: xr.Dataset) -> Figure:
    """Legend and title."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = 3 if figure.get_figwidth() > 8 else 2  # inches
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    seeds = result.sizes["seed"]
    many = "one seed" if seeds == 1 else f"means of {seeds} seeds, bands and bars 95 % intervals"
    figure.suptitle(f"{result.attrs['title']}\n{many}", fontsize="medium")
    return figure


_SOURCE, _TEXT = "SFT Fig. 5", "SFT Sec. VIII-B1"
SCALES = {
    "laptop": VariantScale(config=LAPTOP, data=("cifar10",), variants=variants(0.02, 0.02)),
    "paper": VariantScale(
        config=PAPER, data=("cifar100", "tiny-imagenet"), variants=variants(1e-4, 1e-4)
    ),
}
FIGURE = LearningFigure(
    name="sft-fig5",
    title="SFT Fig. 5: split fine-tuning of a vision transformer and its benchmarks",
    scales=SCALES,
    draw=draw,
    claims=(
        Claim(_TEXT, "SFT converges, IID and not", per_data(_converges)),
        Claim(
            _SOURCE,
            "SFT is as accurate as the benchmarks, to 2 points",
            per_data(_comparable),
        ),
        Claim(_TEXT, "compression improves the accuracy slightly", per_data(_compression_improves)),
        Claim(
            "SFT Fig. 8",
            "SFT's traffic is at most 6.8 % of that without compression",
            per_data(_traffic_is_small),
        ),
    ),
)
