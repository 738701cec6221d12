"""SFT Fig. 8: what fine-tuning puts on the air, and what each stage of the compression gains.

(a) Bits of 20 rounds, an epoch of CIFAR-100 each, by SFT's formulas; the frozen weights come down
in round 1. (b) Bits counted by the codecs for random activations of 197 × 768 values at ρ = 0.2
and 3 bits (E = 7): Gaussian, of uniform magnitude, and with heavy tails (Student t, 3 degrees of
freedom). The lossless code's are the bits of its stream. The ratio β that (a) uses is measured on
the Gaussian ones; beside it stands the paper's, 1/14.75. What a trained model's activations give
is not shown here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from jaxsplit.compression import CodecParams, compressed, top_k, top_k_quantization
from jaxsplit.costs import round_traffic
from jaxsplit.results import Interval, mean_interval

from .claims import because
from .figure import Claim, Finding, NetworkFigure, Progress, Siblings
from .printed import POINTS, counted, near, with_ends
from .sft_setting import (
    COLOURS,
    FL_LORA,
    NUM_DEVICES,
    PAPER_BETA,
    PLAIN,
    ROUNDS,
    SAMPLES_PER_DEVICE,
    SFT,
    SL,
    VIT,
    scheme_loads,
)

PARAMS = CodecParams(ratio=0.2, levels=7)
SAMPLE = VIT.tokens, VIT.width


def _student_t(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Student's t with 3 degrees of freedom, from four Gaussians: `jax.random.t` is slow."""
    above, *below = jax.random.normal(key, (4, *shape))
    return above / jnp.sqrt(jnp.mean(jnp.square(jnp.stack(below)), axis=0))


#: Draws the magnitudes' laws by name, [B, n].
LAWS: dict[str, Callable[[jax.Array, tuple[int, int]], jax.Array]] = {
    "Gaussian": jax.random.normal,
    "uniform": partial(jax.random.uniform, minval=-1.0),
    "heavy-tailed": _student_t,
}
TOP_K, QUANTIZED, LOSSLESS = "top-K", "+ 3 bits", "+ lossless code"
STAGES = {TOP_K: top_k(), QUANTIZED: top_k_quantization(), LOSSLESS: compressed()}
SFT_PAPER = "SFT, the paper's β"
MEASURED_LAW = "Gaussian"
GB_BITS = 8e9

# What the paper prints.
SL_GB = 144.76
SL_OVER_SFT = 6.7
PLAIN_OVER_SFT = 14.75
SAVING_PERCENT = 93.6
QUANTIZED_FACTOR, LOSSLESS_FACTOR = 12.0, 20.0
LEFT_PERCENT = 6.8


@dataclass(frozen=True, kw_only=True)
class CompressionScale:
    """How many random activations are compressed."""

    default_seeds: int
    """Draws."""
    samples: int
    """Activations of a draw; its bits are their mean."""


def run(scale: CompressionScale, seeds: int, progress: Progress) -> xr.Dataset:
    """Compress random activations, and charge the fine-tuning with what that gave.

    Args:
      scale: how many samples.
      seeds: independent draws.
      progress: told about the stage "measuring", in draws.

    Returns:
      A data set with dimensions law, seed and stage; scheme.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    sample_bits = np.empty((len(LAWS), seeds, len(STAGES)))
    for law, seed in np.ndindex(sample_bits.shape[:2]):
        sample_bits[law, seed] = _stage_bits(keys[seed], list(LAWS)[law], scale.samples)
        progress("measuring", law * seeds + seed + 1, len(LAWS) * seeds)
    factor = xr.DataArray(
        VIT.activation_bits / sample_bits,
        dims=("law", "seed", "stage"),
        coords={"law": list(LAWS), "seed": np.arange(seeds), "stage": list(STAGES)},
        attrs={"long_name": "bits of float32 over bits that are sent"},
    )
    beta = 1 / factor.sel(stage=LOSSLESS, law=MEASURED_LAW, drop=True)
    by_beta = [fine_tuning_gb(float(value)) for value in beta]
    printed = fine_tuning_gb(PAPER_BETA)[SFT]
    schemes = [*by_beta[0], SFT_PAPER]
    return xr.Dataset(
        {
            "factor": factor,
            "traffic_gb": (
                ("seed", "scheme"),
                [[*of.values(), printed] for of in by_beta],
                {"units": "GB", "long_name": f"both ways, all devices, {ROUNDS} rounds"},
            ),
            "epoch_gb": (
                (),
                2 * NUM_DEVICES * SAMPLES_PER_DEVICE * VIT.activation_bits / GB_BITS,
                {"units": "GB", "long_name": "uncompressed activations and gradients of an epoch"},
            ),
        },
        coords={"scheme": schemes},
    )


@partial(jax.jit, static_argnames=("law", "samples"))
def _stage_bits(key: jax.Array, law: str, samples: int) -> jax.Array:
    """Mean bits of a sample after each stage, of the same samples, [stages]."""
    draw_key, codec_key = jax.random.split(key)
    rows = LAWS[law](draw_key, (samples, int(np.prod(SAMPLE))))
    params = jax.tree.map(jnp.asarray, PARAMS)
    sent = [codec.transmit(codec_key, rows, params) for codec in STAGES.values()]
    return jnp.stack([jnp.mean(bits.astype(jnp.float32)) for _, bits in sent])


def fine_tuning_gb(beta: float) -> dict[str, float]:
    """GB that the fine-tuning puts on the air, by scheme.

    Args:
      beta: bits of a compressed activation over those of float32.

    Returns:
      Both ways, all devices and rounds, by scheme.
    """
    first, later = (scheme_loads(beta, first_round=is_first) for is_first in (True, False))
    bits = {
        scheme: [
            float(round_traffic(loads[scheme], num_devices=NUM_DEVICES).total_bits)
            for loads in (first, later)
        ]
        for scheme in first
    }
    return {scheme: (of[0] + (ROUNDS - 1) * of[1]) / GB_BITS for scheme, of in bits.items()}


# -- verdicts --------------------------------------------------------------------------------------

_BETAS = {SFT: f"β of {MEASURED_LAW} activations", SFT_PAPER: "the paper's β"}


def _sl_traffic(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    traffic = _of_scheme(result, SL)
    epoch = float(result.epoch_gb)
    yield Finding(
        measured=f"{with_ends(traffic, 0)} GB in {ROUNDS} rounds",
        agrees=near(traffic, SL_GB),
        reason=f"activations and gradients of an epoch are {epoch:.1f} GB, so that {SL_GB} GB are "
        f"{SL_GB / epoch:.2f} epochs",
    )


def _of_scheme(result: xr.Dataset, scheme: str) -> Interval:
    """Traffic in GB; that of all but SFT with its measured β does not depend on the draw."""
    values = result.traffic_gb.sel(scheme=scheme).values
    return mean_interval(values) if scheme == SFT else counted(values[0])


def _ratio(result: xr.Dataset, scheme: str, reference: str) -> Interval:
    """How many times as much a scheme sends as SFT with a β of which it is told."""
    values = (result.traffic_gb.sel(scheme=scheme) / result.traffic_gb.sel(scheme=reference)).values
    return mean_interval(values) if reference == SFT else counted(values[0])


def _times_sft(
    scheme: str, printed: float, why: str, result: xr.Dataset, siblings: Siblings
) -> Iterator[Finding]:
    for reference, of in _BETAS.items():
        ratio = _ratio(result, scheme, reference)
        agrees = near(ratio, printed)
        yield Finding(
            measured=f"{with_ends(ratio, 2)} times",
            agrees=agrees,
            reason=because(
                agrees,
                result,
                f"SFT {with_ends(_of_scheme(result, reference), 1)} GB, {scheme} "
                f"{with_ends(_of_scheme(result, scheme), 0)} GB",
                why,
            ),
            of=of,
        )


def _saves(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for reference, of in _BETAS.items():
        ratio = _ratio(result, PLAIN, reference)
        # A greater ratio saves more: the ends keep their order.
        saving = Interval(*(100 * (1 - 1 / value) for value in ratio))
        agrees = near(saving, SAVING_PERCENT, POINTS)
        yield Finding(
            measured=f"{with_ends(saving, 2)} % less",
            agrees=agrees,
            reason=because(
                agrees,
                result,
                f"than SFT uncompressed; the same is up to {POINTS:g} point; "
                f"{PLAIN_OVER_SFT} times as much would be {100 * (1 - 1 / PLAIN_OVER_SFT):.1f} %",
                f"FL-LoRA sends still less, {with_ends(_of_scheme(result, FL_LORA))} GB beside "
                f"{with_ends(_of_scheme(result, reference))} GB",
            ),
            of=of,
        )


def _factor(
    stage: str, printed: float, result: xr.Dataset, siblings: Siblings
) -> Iterator[Finding]:
    for law in result.law.values:
        values = result.factor.sel(law=law)
        factor = mean_interval(values.sel(stage=stage).values)
        agrees = near(factor, printed)
        yield Finding(
            measured=f"{with_ends(factor, 2)} times fewer bits",
            agrees=agrees,
            reason=because(agrees, result, _all_stages(values), _beside(factor, printed)),
            of=str(law),
        )


def _part_left(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for law in result.law.values:
        left = mean_interval(100 / result.factor.sel(law=law, stage=LOSSLESS).values)
        agrees = near(left, LEFT_PERCENT)
        yield Finding(
            measured=f"{with_ends(left, 2)} %",
            agrees=agrees,
            reason=because(
                agrees,
                result,
                f"the paper's {LOSSLESS_FACTOR:g} times fewer bits would leave "
                f"{100 / LOSSLESS_FACTOR:g} %, its {PLAIN_OVER_SFT} times "
                f"{100 / PLAIN_OVER_SFT:.1f} %: it has two ratios for one stream",
            ),
            of=str(law),
        )


def _all_stages(values: xr.DataArray) -> str:
    means = values.mean("seed")
    return "stages " + ", ".join(
        f"{stage.item()} {float(means.sel(stage=stage)):.1f}" for stage in means.stage
    )


def _beside(factor: Interval, printed: float) -> str:
    if near(factor, printed) != "no":
        return ""
    return f"{'more' if factor.mean > printed else 'less'} is compressed than the paper says"


_SOURCE_A, _SOURCE_B = "SFT Fig. 8a", "SFT Fig. 8b"
_CLAIMS = (
    Claim(_SOURCE_A, f"SL sends {SL_GB} GB until the fine-tuning is complete", _sl_traffic),
    Claim(
        _SOURCE_A,
        f"SL sends {SL_OVER_SFT} times as much as SFT",
        partial(
            _times_sft,
            SL,
            SL_OVER_SFT,
            "in equal rounds; SL sends in a round what SFT uncompressed sends, so that "
            f"{SL_OVER_SFT} beside {PLAIN_OVER_SFT} means {SL_OVER_SFT / PLAIN_OVER_SFT:.2f} of "
            "its rounds",
        ),
    ),
    Claim(
        _SOURCE_A,
        f"without compression SFT sends {PLAIN_OVER_SFT} times as much",
        partial(_times_sft, PLAIN, PLAIN_OVER_SFT, ""),
    ),
    Claim("SFT abstract", f"SFT sends {SAVING_PERCENT} % less", _saves),
    Claim(
        "SFT §VIII-B3",
        f"top-K and 3 bits at ρ = 0.2 compress {QUANTIZED_FACTOR:g} times",
        partial(_factor, QUANTIZED, QUANTIZED_FACTOR),
    ),
    Claim(
        "SFT §VIII-B3",
        f"with the lossless code {LOSSLESS_FACTOR:g} times",
        partial(_factor, LOSSLESS, LOSSLESS_FACTOR),
    ),
    Claim(_SOURCE_B, f"{LEFT_PERCENT} % of the original activations are left", _part_left),
)


# -- the figure ------------------------------------------------------------------------------------

_STAGE_COLOURS = dict(zip(STAGES, ("#56b4e9", "#0072b2", "#009e73"), strict=True))
#: Fig. 8a as the text gives it.
_PRINTED_GB = {
    SL: SL_GB,
    PLAIN: SL_GB / SL_OVER_SFT * PLAIN_OVER_SFT,
    SFT: SL_GB / SL_OVER_SFT,
    SFT_PAPER: SL_GB / SL_OVER_SFT,
}


def draw(result: xr.Dataset) -> matplotlib.figure.Figure:
    """Traffic of the schemes beside the stages of the compression."""
    figure = matplotlib.figure.Figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _traffic_bars(left, result)
    _stage_bars(right, result)
    handles, labels = zip(
        *(axes.get_legend_handles_labels() for axes in (left, right)), strict=True
    )
    figure.legend(
        [*handles[0], *handles[1]],
        [*labels[0], *labels[1]],
        loc="outside lower center",
        ncols=6,
        frameon=False,
    )
    figure.suptitle(
        f"{result.attrs['title']}\n{result.sizes['seed']} draws of random activations of "
        f"{SAMPLE[0]} × {SAMPLE[1]} values at ρ = {PARAMS.ratio:g}",
        fontsize="medium",
    )
    return figure


def _traffic_bars(axes: Axes, result: xr.Dataset) -> None:
    traffic = result.traffic_gb.mean("seed")
    names = [str(scheme) for scheme in traffic.scheme.values]
    places = dict(zip(names, range(len(names)), strict=True))
    colours = COLOURS | {SFT_PAPER: COLOURS[SFT]}
    bars = axes.bar(
        list(places.values()), traffic.values, 0.7, color=[colours[name] for name in names]
    )
    axes.bar_label(bars, [f"{value:,.1f}" for value in traffic.values], padding=2, fontsize=9)
    axes.plot(
        [places[name] for name in _PRINTED_GB],
        list(_PRINTED_GB.values()),
        "D",
        color="k",
        markerfacecolor="w",
        markersize=7,
        label="(a): by the paper's text",
    )
    words = {
        PLAIN: "SFT\nuncompressed",
        SFT: f"SFT,\nβ {MEASURED_LAW}",
        SFT_PAPER: "SFT, the\npaper's β",
    }
    axes.set_xticks(list(places.values()), [words.get(name, name) for name in names], fontsize=9)
    axes.set(
        yscale="log",
        ylabel=f"traffic of {ROUNDS} rounds, GB",
        title="(a) both ways, all devices",
        ylim=(1, 4000),
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _stage_bars(axes: Axes, result: xr.Dataset) -> None:
    places, width = np.arange(result.sizes["law"]), 0.26
    for k, stage in enumerate(STAGES):
        means = result.factor.sel(stage=stage).mean("seed").values
        colour = _STAGE_COLOURS[stage]
        bars = axes.bar(places + (k - 1) * width, means, 0.92 * width, color=colour, label=stage)
        axes.bar_label(bars, fmt="{:.1f}", padding=2, fontsize=9)
    for stage, printed, line in (
        (QUANTIZED, QUANTIZED_FACTOR, ":"),
        (LOSSLESS, LOSSLESS_FACTOR, "--"),
    ):
        label = f"{stage}, the paper's {printed:g}"
        axes.axhline(printed, color="k", linestyle=line, label=label)
    axes.set_xticks(places, list(result.law.values))
    axes.set(
        ylabel="times fewer bits than float32",
        title="(b) stages of the compression, random activations",
    )
    axes.set_ylim(0, 1.1 * float(result.factor.max()))
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


FIGURE = NetworkFigure(
    name="sft-fig8",
    title="SFT Fig. 8: traffic of the fine-tuning and gains of the compression",
    scales={
        "laptop": CompressionScale(default_seeds=5, samples=16),
        "paper": CompressionScale(default_seeds=20, samples=64),
    },
    run=run,
    draw=draw,
    claims=_CLAIMS,
)
