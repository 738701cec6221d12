"""SFT Fig. 7: accuracy over the sparsity and the bits of the compressed link."""

import dataclasses
from collections.abc import Iterator

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsplit.plots import band
from jaxsplit.results import mean_interval

from .claims import NEGLIGIBLE, above, all_of, because, points
from .figure import Claim, Finding, LearningFigure
from .measures import final
from .scales import Variant, VariantScale, variant_of
from .sft_learning import ALLOWED_LOSS, LAPTOP, PAPER, missing, paired, per_data

RATIOS = (0.05, 0.1, 0.2, 0.5)
BITS = (1, 2, 3, 5)
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73")
_PLAIN = {"codec": "identity", "codec_ratio": 1.0, "codec_levels": 255}
#: The paper's point: 80 % sparsity, 3 bits.
_POINT = {"codec_ratio": 0.2, "codec_levels": 7}


def levels_of(bits: int) -> int:
    """E = 2^b − 1."""
    return 2**bits - 1


VARIANTS = (
    Variant(labels=_PLAIN),
    *(
        Variant(
            labels={"codec": "compressed", "codec_ratio": ratio, "codec_levels": levels_of(bits)}
        )
        for ratio in RATIOS
        for bits in BITS
    ),
)


# -- claims ----------------------------------------------------------------------------------------


def loss_of(of: xr.Dataset, ratio: float, levels: int) -> xr.DataArray | None:
    """Accuracy without compression minus that with it, per seed; None where one was not run."""
    plain = variant_of(of, **_PLAIN)
    coded = variant_of(of, codec="compressed", codec_ratio=ratio, codec_levels=levels)
    return None if plain is None or coded is None else final(plain) - final(coded)


def _small_loss(of: xr.Dataset) -> Iterator[Finding]:
    loss = loss_of(of, *_POINT.values())
    if loss is None:
        yield missing(of, **_POINT)
        return
    lost = mean_interval(loss.values)
    agrees = above(mean_interval(-loss.values), bar=-ALLOWED_LOSS)
    plain = variant_of(of, **_PLAIN)
    assert plain is not None
    yield Finding(
        measured=f"points of accuracy lost at 80 % sparsity and 3 bits: {points(lost)}",
        agrees=agrees,
        reason=because(agrees, of, f"{100 * float(final(plain).mean()):.1f} % uncompressed"),
    )


def _collapse(of: xr.Dataset) -> Iterator[Finding]:
    """Beyond 90 % sparsity the accuracy falls faster than before, and by more than allowed."""
    levels = _POINT["codec_levels"]
    losses = {ratio: loss_of(of, ratio, int(levels)) for ratio in RATIOS}
    if any(loss is None for loss in losses.values()):
        yield missing(of, codec_levels=levels)
        return
    at = {ratio: loss for ratio, loss in losses.items() if loss is not None}
    dense, point, sparse, sparsest = (at[ratio] for ratio in (0.5, 0.2, 0.1, 0.05))
    beyond = mean_interval((sparse - ALLOWED_LOSS).values)
    # Per halving of the entries; from 0.5 to 0.2 there are 1.32 of them.
    speeding_up = paired(sparsest - sparse, (point - dense) / 1.32)
    agrees = all_of([above(beyond), above(speeding_up, negligible=NEGLIGIBLE)])
    lost = ", ".join(f"{1 - r:.0%} {points(mean_interval(loss.values))}" for r, loss in at.items())
    yield Finding(
        measured=f"points lost at 3 bits by sparsity: {lost}",
        agrees=agrees,
        reason=because(
            agrees,
            of,
            f"lost beyond the allowed 2 points at 90 %: {points(beyond)}; per halving of the "
            f"entries kept, from 90 to 95 % minus from 50 to 80 %: {points(speeding_up)}",
        ),
    )


def _mild_helps(of: xr.Dataset) -> Iterator[Finding]:
    gains = {
        (ratio, bits): mean_interval(-loss.values)
        for ratio in RATIOS
        for bits in BITS
        if (loss := loss_of(of, ratio, levels_of(bits))) is not None
    }
    if not gains:
        yield missing(of, codec="compressed")
        return
    best = max(gains, key=lambda point: gains[point].mean)
    better = [point for point, gain in gains.items() if gain.low > 0]
    agrees = above(gains[best])
    if agrees == "yes" and len(better) <= 0.05 * len(gains):
        agrees = "undecided"  # as many as chance would bring
    yield Finding(
        measured=f"most gained, at {1 - best[0]:.0%} sparsity and {best[1]} bits: "
        f"{points(gains[best])} points",
        agrees=agrees,
        reason=because(
            agrees,
            of,
            f"of {len(gains)} points {len(better)} have an interval above 0 "
            f"({0.025 * len(gains):.1f} expected by chance)",
        ),
    )


# -- drawing ---------------------------------------------------------------------------------------


def draw(result: xr.Dataset) -> Figure:
    """Accuracy over the sparsity, a line per number of bits.

    Args:
      result: of the figure.

    Returns:
      A matplotlib figure.
    """
    columns = result.sizes["data"]
    figure = Figure(figsize=(6.4 * columns, 4.4), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for index, panel in enumerate(panels):
        _curves(panel, result.isel(data=index))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    seeds = result.sizes["seed"]
    many = "one seed" if seeds == 1 else f"means of {seeds} seeds, bands 95 % intervals"
    figure.suptitle(f"{result.attrs['title']}\n{many}", fontsize="medium")
    return figure


def _curves(panel: Axes, of: xr.Dataset) -> None:
    plain = variant_of(of, **_PLAIN)
    if plain is not None:
        interval = mean_interval(100 * final(plain).values)
        panel.axhline(interval.mean, color="black", label="uncompressed")
        panel.axhline(
            interval.mean - 100 * ALLOWED_LOSS,
            color="black",
            linestyle=":",
            label="2 points below",
        )
    for bits, colour in zip(BITS, COLOURS, strict=True):
        runs = [
            (1 - ratio, final(run))
            for ratio in RATIOS
            if (
                run := variant_of(
                    of, codec="compressed", codec_ratio=ratio, codec_levels=levels_of(bits)
                )
            )
            is not None
        ]
        if runs:
            sparsity = [100 * at for at, _ in runs]
            accuracy = xr.concat([100 * values for _, values in runs], "ratio")
            text = f"{bits} bit{'s' if bits > 1 else ''}"
            band(panel, sparsity, accuracy.transpose("seed", ...), colour, text)
            panel.lines[-1].set_marker("o")
    panel.set(xlabel="sparsity, %", ylabel="test accuracy, %", title=of["data"].item())
    panel.grid(alpha=0.25)


_CHANGES = {"evaluate_every": 4, "rounds": 4, "batch_size": 4}
SCALES = {
    "laptop": VariantScale(
        config=dataclasses.replace(LAPTOP, **_CHANGES), data=("cifar10",), variants=VARIANTS
    ),
    "paper": VariantScale(
        config=dataclasses.replace(PAPER, evaluate_every=PAPER.rounds),
        data=("cifar100",),
        variants=VARIANTS,
    ),
}
_SOURCE, _TEXT = "SFT Fig. 7", "SFT Sec. VIII-B3"
FIGURE = LearningFigure(
    name="sft-fig7",
    title="SFT Fig. 7: accuracy over sparsity and bits of the link",
    scales=SCALES,
    draw=draw,
    claims=(
        Claim(
            _TEXT,
            "80 % sparsity and 3 bits cost at most 2 points of accuracy",
            per_data(_small_loss),
        ),
        Claim(_TEXT, "the accuracy drops sharply from 90 % sparsity on", per_data(_collapse)),
        Claim("SFT Sec. VIII-B1", "mild compression may improve accuracy", per_data(_mild_helps)),
    ),
)
