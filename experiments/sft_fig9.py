"""SFT Fig. 9: delay of a round over the bandwidth, as the bandwidth is shared out.

A round is an epoch of CIFAR-100 on 8 devices, cut after block 5, compressed 14.75 times, with SFT's
own count of FLOP. Its band is shared out so that the slowest device is done as early as possible
("proposed"), equally, or at random, uniformly among all splits. A seed is a draw of the devices'
clocks, of their SNRs in dB where these differ, and of the random split. As the paper explains the
saving by its compression, the equal split without compression stands beside them.

The random split has no mean delay: its least share is often so close to 0 that the mean diverges.
So delays are compared by the part that is saved in each draw, and drawn as medians.

The communication part of a round is what it takes beyond the greatest a_n of `min_max_terms`: the
broadcast, and the computing of the slowest device and of the server, which no split shortens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from jaxsplit.costs import RadioLink, min_max_terms
from jaxsplit.results import mean_interval
from jaxsplit.scheduling import min_max_bandwidth, random_bandwidth

from .claims import above, all_of, because
from .figure import Claim, Finding, NetworkFigure, Progress, Siblings
from .printed import with_ends
from .sft_setting import (
    NUM_DEVICES,
    PAPER_BETA,
    PLAIN,
    SCARCE_BANDWIDTH_HZ,
    SERVER,
    SFT,
    SNR_DB,
    devices_with,
    draw_clocks,
    scheme_loads,
    spectral_efficiency,
)

BANDWIDTHS_MHZ = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
SPREADS_DB = (0.0, 6.0)  # SNRs are uniform within so much of 17 dB
PROPOSED, EQUAL, RANDOM = "proposed", "equal split", "random split"
PLAIN_EQUAL = "equal split, uncompressed"
SPLITS = (PROPOSED, EQUAL, RANDOM, PLAIN_EQUAL)
BASELINES = (EQUAL, RANDOM)
SAVING_PERCENT = 53.1  # of the communication delay at 5 MHz, says the paper
CLOSE_POINTS = 3.0  # another saving that is as good as the same


@dataclass(frozen=True, kw_only=True)
class DrawScale:
    """How many draws are made."""

    default_seeds: int
    """Draws of clocks, SNRs and random splits."""


class Delays(NamedTuple):
    """Seconds of a round by split of the band."""

    whole_s: jax.Array  # [splits]
    fixed_s: jax.Array  # [] of it, what no split shortens


@jax.jit
def delays_of_draws(keys: jax.Array, bandwidth_hz: jax.Array, spread_db: jax.Array) -> Delays:
    """Delays [spread, bandwidth, seed, splits] of all draws.

    Args:
      keys: of the draws, [seed].
      bandwidth_hz: to be shared, [bandwidth].
      spread_db: of the SNRs, [spread].

    Returns:
      Delays; a draw has the same clocks and the same random split everywhere.
    """
    over_draws = jax.vmap(_delays, in_axes=(0, None, None))
    over_bandwidths = jax.vmap(over_draws, in_axes=(None, 0, None))
    return jax.vmap(over_bandwidths, in_axes=(None, None, 0))(keys, bandwidth_hz, spread_db)


def _delays(key: jax.Array, bandwidth_hz: jax.Array, spread_db: jax.Array) -> Delays:
    """A round of one draw."""
    clock_key, snr_key, split_key = jax.random.split(key, 3)
    devices = devices_with(draw_clocks(clock_key))
    uniform = jax.random.uniform(snr_key, (NUM_DEVICES,), minval=-1.0)
    uplink = spectral_efficiency(SNR_DB + spread_db * uniform)
    link = RadioLink(bandwidth_hz, uplink, spectral_efficiency(SNR_DB))
    loads = scheme_loads(PAPER_BETA)
    compressed = min_max_terms(loads[SFT], devices, SERVER, link)
    plain = min_max_terms(loads[PLAIN], devices, SERVER, link)

    equal_hz = bandwidth_hz / NUM_DEVICES
    everybody = jnp.ones(NUM_DEVICES, bool)
    random_hz = random_bandwidth(split_key, everybody, bandwidth_hz)
    whole_s = [
        min_max_bandwidth(*compressed, bandwidth_hz).delay_s,
        *(jnp.max(compressed.fixed_s + compressed.work_hz_s / hz) for hz in (equal_hz, random_hz)),
        jnp.max(plain.fixed_s + plain.work_hz_s / equal_hz),
    ]
    return Delays(jnp.stack(whole_s), jnp.max(compressed.fixed_s))


def run(scale: DrawScale, seeds: int, progress: Progress) -> xr.Dataset:
    """Simulate a round of every draw, bandwidth and spread.

    Args:
      scale: only its default number of seeds matters.
      seeds: draws.
      progress: told about the stage "simulating", in rounds.

    Returns:
      A data set with dimensions spread, bandwidth, seed and split.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    bandwidth_hz = 1e6 * jnp.array(BANDWIDTHS_MHZ)
    delays = delays_of_draws(keys, bandwidth_hz, jnp.array(SPREADS_DB))
    draws, rounds = ("spread", "bandwidth", "seed"), delays.whole_s.size
    progress("simulating", rounds, rounds)
    return xr.Dataset(
        {
            "delay_s": (
                (*draws, "split"),
                np.asarray(delays.whole_s, np.float64),
                {"units": "s", "long_name": "delay of a round"},
            ),
            "fixed_s": (
                draws,
                np.asarray(delays.fixed_s, np.float64),
                {"units": "s", "long_name": "part of the delay that no split shortens"},
            ),
        },
        coords={
            "spread": ("spread", list(SPREADS_DB), {"units": "dB"}),
            "bandwidth": ("bandwidth", 1e6 * np.array(BANDWIDTHS_MHZ), {"units": "Hz"}),
            "seed": np.arange(seeds),
            "split": list(SPLITS),
        },
    )


# -- verdicts --------------------------------------------------------------------------------------


def saved_percent(of: xr.Dataset, baseline: str, *, communication: bool = False) -> xr.DataArray:
    """What the proposed saves of a baseline's delay in each draw, %.

    Args:
      of: the result.
      baseline: a split.
      communication: of the communication part only.

    Returns:
      The dimensions of the result without the split.
    """
    delay_s = of.delay_s - of.fixed_s if communication else of.delay_s
    return 100 * (1 - delay_s.sel(split=PROPOSED) / delay_s.sel(split=baseline))


def _snr_text(spread_db: float) -> str:
    return f"SNR {SNR_DB:g} ± {spread_db:g} dB" if spread_db else f"SNR {SNR_DB:g} dB"


def _always_below(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for spread in result.spread.values:
        for baseline in BASELINES:
            saved = saved_percent(result.sel(spread=spread), baseline)
            intervals = [mean_interval(row) for row in saved.transpose("bandwidth", "seed").values]
            agrees = all_of(above(interval) for interval in intervals)
            yield Finding(
                measured=f"saved of the round, %, at {_megahertz(result)} MHz: "
                + ", ".join(with_ends(interval) for interval in intervals),
                agrees=agrees,
                reason=because(
                    agrees, result, f"the least of all draws {float(saved.min()):.2f} %"
                ),
                of=f"{baseline}, {_snr_text(spread)}",
            )


def _megahertz(result: xr.Dataset) -> str:
    return "/".join(f"{hz / 1e6:g}" for hz in result.bandwidth.values)


def _saves_when_scarce(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    for spread in result.spread.values:
        of = result.sel(spread=spread)
        for baseline in (*BASELINES, PLAIN_EQUAL):
            part, whole = (
                saved_percent(of, baseline, communication=only) for only in (True, False)
            )
            scarce_part, scarce_whole = (
                each.sel(bandwidth=SCARCE_BANDWIDTH_HZ) for each in (part, whole)
            )
            mean = mean_interval(scarce_part.values)
            agrees = above(mean, bar=SAVING_PERCENT)
            found = [*_where(part, "communication part"), *_where(whole, "whole round")]
            yield Finding(
                measured=f"{with_ends(mean)} % of the communication part, "
                f"{with_ends(mean_interval(scarce_whole.values))} % of the whole round",
                agrees=agrees,
                reason=because(
                    agrees,
                    result,
                    f"single draws save {_range(scarce_part)} and {_range(scarce_whole)}",
                    f"a mean within {CLOSE_POINTS:g} points of {SAVING_PERCENT} % is found "
                    f"{', '.join(found) or 'at no bandwidth'}",
                ),
                of=f"over {baseline}, {_snr_text(spread)}",
            )


def _range(saved: xr.DataArray) -> str:
    """The span over draws, and how many of them save as much as the paper."""
    share = 100 * float((saved >= SAVING_PERCENT).mean())
    return (
        f"{float(saved.min()):.1f} to {float(saved.max()):.1f} % ({share:.0f} % of them reach it)"
    )


def _where(saved: xr.DataArray, name: str) -> list[str]:
    """Bandwidths at which the mean saving is the paper's number itself."""
    means = saved.mean("seed")
    near = means.bandwidth[abs(means - SAVING_PERCENT) <= CLOSE_POINTS]
    return [f"in the {name} at {hz / 1e6:g} MHz" for hz in near.values]


_SOURCE = "SFT Fig. 9"
_CLAIMS = (
    Claim(_SOURCE, "the proposed round is the shortest at every bandwidth", _always_below),
    Claim(
        "SFT §VIII-B4",
        f"at {SCARCE_BANDWIDTH_HZ / 1e6:g} MHz it saves up to {SAVING_PERCENT} % of the "
        "communication delay",
        _saves_when_scarce,
    ),
)


# -- the figure ------------------------------------------------------------------------------------

_COLOURS = {PROPOSED: "#0072b2", EQUAL: "#d55e00", RANDOM: "#009e73", PLAIN_EQUAL: "#7f7f7f"}
_MARKERS = {PROPOSED: "o", EQUAL: "s", RANDOM: "^", PLAIN_EQUAL: "v"}


def draw(result: xr.Dataset) -> matplotlib.figure.Figure:
    """Delays for equal and for different SNRs, and what is saved of the equal split's."""
    figure = matplotlib.figure.Figure(figsize=(13.5, 5), layout="constrained")
    panels = figure.subplots(1, 1 + result.sizes["spread"])
    megahertz = result.bandwidth.values / 1e6
    for panel, spread in zip(panels, result.spread.values, strict=False):
        _delay_panel(panel, megahertz, result.sel(spread=spread))
        panel.set_title(_snr_text(spread))
    _saving_panel(panels[-1], megahertz, result)
    for panel in panels:
        panel.set_xlabel("total bandwidth, MHz")
        panel.set_xticks(megahertz)
        panel.grid(alpha=0.25)
    handles, labels = zip(
        *(axes.get_legend_handles_labels() for axes in (panels[0], panels[-1])), strict=True
    )
    figure.legend(
        [*handles[0], *handles[1]],
        [*labels[0], *labels[1]],
        loc="outside lower center",
        ncols=5,
        frameon=False,
    )
    figure.suptitle(
        f"{result.attrs['title']}\n{result.sizes['seed']} draws: lines are medians, bands half of "
        "the draws",
        fontsize="medium",
    )
    return figure


def _median_and_half(axes: Axes, x: np.ndarray, values: xr.DataArray, **style: Any) -> None:
    low, median, high = values.quantile([0.25, 0.5, 0.75], "seed").values
    axes.plot(x, median, markersize=5, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _delay_panel(axes: Axes, megahertz: np.ndarray, of: xr.Dataset) -> None:
    for split in SPLITS:
        minutes = of.delay_s.sel(split=split) / 60
        style = {"color": _COLOURS[split], "marker": _MARKERS[split], "label": split}
        _median_and_half(axes, megahertz, minutes, **style)
    axes.set(yscale="log", ylabel="delay of a round, min", ylim=(8, 1000))
    axes.set_yticks([10, 20, 50, 100, 200, 500, 1000], minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _saving_panel(axes: Axes, megahertz: np.ndarray, result: xr.Dataset) -> None:
    for spread, line in zip(result.spread.values, ("-", "--"), strict=False):
        for communication, colour, name in (
            (True, "#cc79a7", "communication part"),
            (False, "k", "whole round"),
        ):
            saved = saved_percent(result.sel(spread=spread), EQUAL, communication=communication)
            label = f"{name}, {_snr_text(spread)}"
            _median_and_half(axes, megahertz, saved, color=colour, linestyle=line, label=label)
    axes.plot(
        SCARCE_BANDWIDTH_HZ / 1e6,
        SAVING_PERCENT,
        "D",
        color="red",
        label=f"the paper's {SAVING_PERCENT} %",
    )
    axes.set(ylabel="saved by the proposed, %", title="saved of the equal split", ylim=(0, None))


FIGURE = NetworkFigure(
    name="sft-fig9",
    title="SFT Fig. 9: delay of a round over the bandwidth",
    scales=dict.fromkeys(("laptop", "paper"), DrawScale(default_seeds=1000)),
    run=run,
    draw=draw,
    claims=_CLAIMS,
)
