"""A gallery of the channel models: their statistics beside the closed forms.

    python experiments/channel_gallery.py [--out docs/images]

Nine panels to choose a channel by: small-scale fading and its memory, path loss, line of sight,
shadowing, motion, and the signal-to-noise ratio that a random device ends up with. Colours are
simulated from a million samples, thin black dashes are the closed form. A line per model gives
mean and variance with those of the closed form in brackets, and the worst deviation from it: of a
distribution its greatest gap, which a million samples bring to 0.0014 by chance alone (95 %).
"""

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import integrate, stats

from jaxsplit.wireless import (
    CellParams,
    ChannelModel,
    PathLoss,
    gauss_markov,
    gauss_markov_fading,
    log_normal_shadowing,
    nakagami,
    nakagami_fading,
    power_law,
    random_waypoint,
    rayleigh,
    rayleigh_fading,
    rician,
    rician_fading,
    shadowed,
    snr_density,
    uma,
    uma_loss_db,
    uma_path_loss,
    uma_sight_probability,
    umi,
    umi_loss_db,
    umi_path_loss,
    umi_sight_probability,
    waypoint_walk,
)

SAMPLES = 1_000_000
RADIUS_M, BANDWIDTH_HZ, POWER_DBM, NOISE_DBM_PER_HZ = 100.0, 20e6, 10.0, -174.0
SHARE = (np.arange(1000) + 0.5) / 1000  # distances over R, nodes of the closed forms' quadrature
CLOSED = {"color": "k", "linewidth": 0.8, "linestyle": (0, (4, 3))}
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f7f7f",
    "#8c564b",
)

Law = Callable[[np.ndarray], np.ndarray]  # a distribution function


# -- what is sampled -------------------------------------------------------------------------------


def draw(channel: ChannelModel, params: Any = None, seed: int = 0, rounds: int = 1) -> np.ndarray:
    """Gains of many devices in the last of some rounds."""
    params = channel.params if params is None else params
    key_init, key_rounds = jax.random.split(jax.random.key(seed))
    state = channel.init(key_init, SAMPLES, params)
    for key in jax.random.split(key_rounds, rounds):
        state, gain = jax.jit(channel.sample)(key, state, params)
    return np.asarray(gain, float)


def draw_in_place(loss: PathLoss, params: Any, place_m: tuple[float, float], seed: int = 0) -> Any:
    """Mean gains of many devices that all stand at one place, each in surroundings of its own."""
    key_init, key_sample = jax.random.split(jax.random.key(seed))
    place = jnp.broadcast_to(jnp.array(place_m), (SAMPLES, 2))
    state = loss.init(key_init, place, params)
    _, gain = jax.jit(loss.sample)(key_sample, state, place, params)
    return np.asarray(gain, float)


def decibel(gain: np.ndarray) -> np.ndarray:
    """Decibel of a power ratio."""
    return 10 * np.log10(gain)


# -- closed forms ----------------------------------------------------------------------------------


def rician_law(k_factor_db: float) -> Any:
    """2(K+1)g is noncentral chi-squared with 2 degrees of freedom and noncentrality 2K."""
    k = 10 ** (k_factor_db / 10)
    return stats.ncx2(2, 2 * k, scale=1 / (2 * (k + 1)))


def gain_correlation(rho: float, k_factor_db: float, lag: np.ndarray) -> np.ndarray:
    """Correlation of Gauss-Markov gains over some rounds."""
    k = 10 ** (k_factor_db / 10)
    return (2 * k * rho**lag + rho ** (2 * lag)) / (2 * k + 1)


def standard_loss_db(cell: str, distance_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TR 38.901 Table 7.4.1-1 as printed, at 3.5 GHz and 1.5 m, in and out of line of sight."""
    offset, slope, bend, height_m = (32.4, 21, 9.5, 10) if cell == "umi" else (28.0, 22, 9.0, 25)
    ground_m = np.maximum(distance_m, 10)
    slant_m = np.hypot(ground_m, height_m - 1.5)
    break_m = 4 * (height_m - 1) * 0.5 * 3.5e9 / 3e8
    near = slope * np.log10(slant_m)
    far = 40 * np.log10(slant_m) - bend * np.log10(break_m**2 + (height_m - 1.5) ** 2)
    sight = offset + np.where(ground_m <= break_m, near, far) + 20 * np.log10(3.5)
    if cell == "umi":
        without = 22.4 + 35.3 * np.log10(slant_m) + 21.3 * np.log10(3.5)
    else:
        without = 13.54 + 39.08 * np.log10(slant_m) + 20 * np.log10(3.5)
    return sight, np.maximum(sight, without)


def standard_sight(cell: str, distance_m: np.ndarray) -> np.ndarray:
    """TR 38.901 Table 7.4.2-1 for devices below 13 m."""
    share = 18 / np.maximum(distance_m, 18)
    return share + np.exp(-distance_m / (36 if cell == "umi" else 63)) * (1 - share)


def walker_density(share: np.ndarray, resting: float) -> np.ndarray:
    """Long-run density of a walker's distance over R (Hyytiä, Lassila and Virtamo 2006)."""
    angle = np.pi * (np.arange(200) + 0.5) / 200
    fine = (np.arange(2000) + 0.5) / 2000

    def moving(rho: np.ndarray) -> np.ndarray:
        chord = np.sqrt(1 - (rho[:, None] * np.cos(angle)) ** 2).mean(axis=1)
        return rho * (1 - rho**2) * chord

    return resting * 2 * share + (1 - resting) * moving(share) / moving(fine).mean()


def resting_share() -> float:
    """Part of its time that a walker rests: mean chord · E[1/v] is the time of a leg."""
    walk = waypoint_walk().params
    low, high = walk.speed_min_m_per_s, walk.speed_max_m_per_s
    leg_s = 128 / (45 * math.pi) * walk.radius_m * math.log(high / low) / (high - low)
    return walk.pause_s / (walk.pause_s + leg_s)


class Sight(NamedTuple):
    """What a random device meets with or without line of sight, by distance."""

    weight: np.ndarray  # [1000] share of the devices
    loss_db: np.ndarray  # [1000]
    std_db: float = 0.0  # of the shadowing


def composed_law(fading: Law, sights: list[Sight]) -> Law:
    """Law of a random device's SNR in dB: fading, averaged over shadow, sight and place."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / weights.sum()
    link_db = POWER_DBM - NOISE_DBM_PER_HZ - 10 * math.log10(BANDWIDTH_HZ)

    def at(snr_db: float, sight: Sight) -> float:
        mean_db = (link_db - sight.loss_db)[:, None] + sight.std_db * nodes
        if sight.std_db == 0:
            return float(sight.weight @ fading(10 ** ((snr_db - mean_db[:, 0]) / 10)))
        return float(sight.weight @ fading(10 ** ((snr_db - mean_db) / 10)) @ weights)

    return lambda snr_db: np.array([sum(at(x, sight) for sight in sights) for x in snr_db])


def composed_laws() -> dict[str, tuple[ChannelModel, Law]]:
    """The composed channels with the law of a random device's SNR."""
    distance_m = RADIUS_M * SHARE
    uniform = walker_density(SHARE, 1.0) / len(SHARE)
    walking = walker_density(SHARE, resting_share()) / len(SHARE)
    power_law_db = 30 + 30 * np.log10(np.maximum(distance_m, 1))
    still = [Sight(uniform, power_law_db)]

    def cell(name: str, no_sight_std_db: float) -> Law:
        sight = standard_sight(name, distance_m)
        with_db, without_db = standard_loss_db(name, distance_m)
        with_sight = Sight(uniform * sight, with_db, 4.0)
        without = Sight(uniform * (1 - sight), without_db, no_sight_std_db)
        return composed_law(stats.expon.cdf, [with_sight, without])

    return {
        "rayleigh": (rayleigh(), composed_law(stats.expon.cdf, still)),
        "rician, K = 9 dB": (rician(), composed_law(rician_law(9.0).cdf, still)),
        "nakagami, m = 2": (nakagami(), composed_law(stats.gamma(2, scale=1 / 2).cdf, still)),
        "gauss_markov": (gauss_markov(), composed_law(stats.expon.cdf, still)),
        "log_normal_shadowing": (
            log_normal_shadowing(),
            composed_law(stats.expon.cdf, [Sight(uniform, power_law_db, 8.0)]),
        ),
        "random_waypoint": (
            random_waypoint(),
            composed_law(stats.expon.cdf, [Sight(walking, power_law_db)]),
        ),
        "umi": (umi(), cell("umi", 7.82)),
        "uma": (uma(), cell("uma", 6.0)),
    }


# -- what is printed -------------------------------------------------------------------------------


def report(
    what: str,
    mean: tuple[float, float] | None,
    variance: tuple[float, float] | None,
    worst: float,
    unit: str,
) -> None:
    """A line: mean and variance, simulated (closed form), and the worst deviation."""

    def pair(numbers: tuple[float, float] | None) -> str:
        return f"{numbers[0]:9.4f} ({numbers[1]:9.4f})" if numbers else 21 * " "

    print(f"{what:38} {pair(mean)} {pair(variance)}   {worst:.5f} {unit}", flush=True)


def greatest_gap(sample: np.ndarray, law: Law) -> float:
    """Kolmogorov's distance of a sample from a law, at 1000 of the sample's quantiles."""
    share = np.linspace(0.0005, 0.9995, 1000)
    return float(np.abs(law(np.quantile(sample, share)) - share).max())


# -- panels ----------------------------------------------------------------------------------------


def fading_panel(axes: Axes) -> None:
    """Distribution of the small-scale gain, its deep fades on a log axis."""
    rice, nakagami_m = rician_fading(), nakagami_fading()
    members = [("Rayleigh", rayleigh_fading(), (), stats.expon())]
    members += [
        (f"Rician, K = {k:g} dB", rice, rice.params._replace(k_factor_db=k), rician_law(k))
        for k in (3.0, 9.0)
    ]
    members += [
        (
            f"Nakagami, m = {m:g}",
            nakagami_m,
            nakagami_m.params._replace(shape=m),
            stats.gamma(m, scale=1 / m),
        )
        for m in (0.5, 2.0, 4.0)
    ]
    x_db = np.linspace(-40, 25, 400)
    for i, (label, fading, params, law) in enumerate(members):
        gain, colour = draw(fading, params, seed=i), COLOURS[i]
        below = np.searchsorted(np.sort(gain), 10 ** (x_db / 10)) / SAMPLES
        # Ten samples are the least that a line may stand on.
        axes.plot(x_db, np.where(below < 1e-5, np.nan, below), color=colour, label=label)
        axes.plot(x_db, law.cdf(10 ** (x_db / 10)), **CLOSED)
        gap = greatest_gap(gain, law.cdf)
        report(label, (gain.mean(), law.mean()), (gain.var(), law.var()), gap, "of probability")
    axes.set(yscale="log", ylim=(1e-5, 1.5), xlim=(-40, 25))
    axes.set(xlabel="gain g, dB", ylabel="P(gain ≤ g)", title="small-scale fading")


def memory_panel(axes: Axes) -> None:
    """Correlation of Gauss-Markov gains over rounds."""
    fading, lags, devices = gauss_markov_fading(), np.arange(21), 100_000
    cases = [(0.99, -math.inf), (0.9, 9.0), (0.9, -math.inf), (0.5, -math.inf)]
    for (rho, k_factor_db), colour in zip(cases, COLOURS, strict=False):
        params = fading.params._replace(correlation=rho, k_factor_db=k_factor_db)
        state = fading.init(jax.random.key(0), devices, params)
        keys = jax.random.split(jax.random.key(1), 50 + len(lags))
        step = functools.partial(lambda params, s, key: fading.sample(key, s, params), params)
        gain = np.asarray(jax.jit(functools.partial(jax.lax.scan, step))(state, keys)[1], float)
        k = 10 ** (k_factor_db / 10)
        variance = (2 * k + 1) / (k + 1) ** 2
        seen = [((gain[:50] - 1) * (gain[i : i + 50] - 1)).mean() for i in lags] / gain[:50].var()
        closed = gain_correlation(rho, k_factor_db, lags)
        of_k = "Rayleigh" if math.isinf(k_factor_db) else f"K = {k_factor_db:g} dB"
        label = f"ρ = {rho:g}, {of_k}"
        axes.plot(lags, seen, "o", color=colour, markersize=4, label=label)
        axes.plot(lags, closed, **CLOSED)
        worst = float(np.abs(seen - closed).max())
        report(
            f"Gauss-Markov, {label}", (gain.mean(), 1), (gain.var(), variance), worst, "correlation"
        )
    axes.set(xlabel="rounds between", ylabel="correlation of the gains", ylim=(-0.05, 1.05))
    axes.set(title="memory of gauss_markov")


def loss_panel(axes: Axes) -> None:
    """Path loss over distance."""
    distance_m = np.geomspace(1, 5000, 400)
    ground_m = jnp.asarray(distance_m, jnp.float32)
    place_m = jnp.stack([ground_m, jnp.zeros_like(ground_m)], axis=-1)
    law = power_law()
    _, gain = law.sample(jax.random.key(0), (), place_m, law.params)
    curves = [("power law", -decibel(np.asarray(gain, float)), 30 + 30 * np.log10(distance_m))]
    for name, loss_db, params in (
        ("umi", umi_loss_db, umi_path_loss().params),
        ("uma", uma_loss_db, uma_path_loss().params),
    ):
        shown = name[:2].upper() + name[2]
        seen, closed = loss_db(ground_m, params), standard_loss_db(name, distance_m)
        curves += [
            (f"{shown} {which}", np.asarray(seen[i], float), closed[i])
            for i, which in enumerate(("LOS", "NLOS"))
        ]
    for (label, seen, closed), colour in zip(curves, COLOURS, strict=False):
        axes.plot(distance_m, seen, color=colour, label=label)
        axes.plot(distance_m, closed, **CLOSED)
        report(f"path loss, {label}", None, None, float(np.abs(seen - closed).max()), "dB")
    axes.set(xscale="log", xlabel="distance on the ground, m", ylabel="path loss, dB")
    axes.set(title="path loss at 3.5 GHz", xlim=(1, 5000))


def sight_panel(axes: Axes) -> None:
    """Probability of line of sight, by formula and as the channels draw it."""
    distance_m = np.geomspace(1, 5000, 400)
    ground_m = jnp.asarray(distance_m, jnp.float32)
    cells = (
        ("umi", umi_path_loss(), umi_sight_probability(ground_m), umi_loss_db),
        ("uma", uma_path_loss(), uma_sight_probability(ground_m, 1.5), uma_loss_db),
    )
    for (name, loss, probability, loss_db), colour in zip(cells, COLOURS, strict=False):
        closed = standard_sight(name, distance_m)
        axes.plot(distance_m, probability, color=colour, label=name[:2].upper() + name[2])
        axes.plot(distance_m, closed, **CLOSED)
        bare = loss.params._replace(sight_std_db=0.0, no_sight_std_db=0.0)
        worst = float(np.abs(np.asarray(probability) - closed).max())
        for at_m in (30.0, 60.0, 120.0, 250.0, 500.0, 1000.0):
            share = sight_share(loss, bare, at_m, loss_db)
            worst = max(worst, abs(share - float(standard_sight(name, np.array(at_m)))))
            axes.plot(at_m, share, "o", color=colour, markersize=5, fillstyle="none")
        report(f"line of sight, {name}", None, None, worst, "of probability")
    axes.plot([], [], "ko", markersize=5, fillstyle="none", label="share of the draws")
    axes.set(xscale="log", xlabel="distance on the ground, m", ylabel="P(line of sight)")
    axes.set(title="line of sight", xlim=(1, 5000), ylim=(-0.03, 1.05))


def sight_share(loss: PathLoss, bare: CellParams, at_m: float, loss_db: Callable) -> float:
    """Share of the devices at a distance whose loss, without shadow, is that in line of sight."""
    lost_db = -decibel(draw_in_place(loss, bare, (at_m, 0.0)))
    with_db, without_db = map(float, loss_db(jnp.float32(at_m), bare))
    return float((lost_db < (with_db + without_db) / 2).mean())


def shadow_panel(axes: Axes) -> None:
    """Histogram of the shadowing in dB."""
    loss = shadowed(power_law())
    x_db = np.linspace(-32, 32, 300)
    for std_db, colour in zip((4.0, 8.0), COLOURS, strict=False):
        gain = draw_in_place(loss, loss.params._replace(std_db=std_db), (30.0, 40.0))
        shadow_db = decibel(gain) + 30 + 30 * math.log10(50)
        law = stats.norm(0, std_db)
        style = {"color": colour, "alpha": 0.45, "label": f"σ = {std_db:g} dB"}
        axes.hist(shadow_db, bins=128, range=(-32, 32), density=True, **style)
        axes.plot(x_db, law.pdf(x_db), **CLOSED)
        gap = greatest_gap(shadow_db, law.cdf)
        mean, variance = (shadow_db.mean(), 0), (shadow_db.var(), std_db**2)
        report(f"shadowing, σ = {std_db:g} dB", mean, variance, gap, "of probability")
    axes.set(xlabel="shadowing, dB", ylabel="density, 1/dB", title="log-normal shadowing")
    axes.set_xlim(-32, 32)


def decorrelation_panel(axes: Axes) -> None:
    """Correlation of a device's shadowing with that where it set off, in steps of 5 m."""
    loss, devices, step_m = shadowed(power_law()), 200_000, 5.0
    walked_m = step_m * np.arange(17)
    for cor_m, colour in zip((10.0, 20.0, 50.0), COLOURS, strict=False):
        params = loss.params._replace(decorrelation_m=cor_m)
        place_m = jnp.broadcast_to(jnp.array([50.0, 0.0]), (devices, 2))
        state = loss.init(jax.random.key(0), place_m, params)
        shadows = []
        sample = jax.jit(loss.sample)
        for i, key in enumerate(jax.random.split(jax.random.key(1), len(walked_m))):
            at_m = 50 + i * step_m
            state, gain = sample(key, state, place_m + jnp.array([i * step_m, 0.0]), params)
            shadows.append(decibel(np.asarray(gain, float)) + 30 + 30 * math.log10(at_m))
        seen = [(shadows[0] * shadow).mean() / 64 for shadow in shadows]
        closed = np.exp(-walked_m / cor_m)
        label = f"d_cor = {cor_m:g} m"
        axes.plot(walked_m, seen, "o", color=colour, markersize=4, label=label)
        axes.plot(walked_m, closed, **CLOSED)
        last = (shadows[-1].mean(), 0), (shadows[-1].var(), 64)
        report(f"decorrelation, {label}", *last, float(np.abs(seen - closed).max()), "correlation")
    axes.set(xlabel="way from the start, m", ylabel="correlation of the shadowing")
    axes.set(title="decorrelation of the shadowing", ylim=(-0.05, 1.05))


def walk_panel(axes: Axes) -> None:
    """A few walks of 400 rounds."""
    walk = waypoint_walk()
    state = walk.init(jax.random.key(3), 4, walk.params)

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state = walk.move(key, state, walk.params)
        return state, state.position_m

    keys = jax.random.split(jax.random.key(4), 400)
    way_m = np.concatenate([state.position_m[None], jax.lax.scan(step, state, keys)[1]])
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(RADIUS_M * np.cos(angle), RADIUS_M * np.sin(angle), color="k", linewidth=0.8)
    for n, colour in zip(range(way_m.shape[1]), COLOURS, strict=False):
        axes.plot(*way_m[:, n].T, color=colour, linewidth=1.2)
        axes.plot(*way_m[0, n], "o", color=colour, markersize=5)
    axes.plot(0, 0, "k^", markersize=8, linestyle="none", label="server")
    axes.plot([], [], "ko", markersize=5, label="start")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="x, m", ylabel="y, m")
    axes.set_title("random waypoint, 400 rounds of 2 s")


def density_panel(axes: Axes) -> None:
    """Law of a walker's distance at the start and in the long run."""
    walk, devices = waypoint_walk(), SAMPLES // 2
    long_rounds = walk.params._replace(round_s=500.0)  # the law does not depend on the rounds
    start = walk.init(jax.random.key(0), devices, walk.params)
    state = start
    for key in jax.random.split(jax.random.key(1), 3):
        state = walk.move(key, state, long_rounds)
    cases = (("start (uniform)", start, 1.0), ("after 1500 s", state, resting_share()))
    for (label, of, resting), colour in zip(cases, COLOURS, strict=False):
        distance_m = np.linalg.norm(np.asarray(of.position_m, float), axis=-1)
        style = {"color": colour, "alpha": 0.45, "label": label}
        axes.hist(distance_m, bins=50, range=(0, RADIUS_M), density=True, **style)
        density = walker_density(SHARE, resting)
        axes.plot(RADIUS_M * SHARE, density / RADIUS_M, **CLOSED)
        mean_m = RADIUS_M * (SHARE * density).mean()
        variance = RADIUS_M**2 * (SHARE**2 * density).mean() - mean_m**2
        edges_m = RADIUS_M * (SHARE + 0.0005)
        law = functools.partial(np.interp, xp=edges_m, fp=np.cumsum(density) / 1000)
        moments = (distance_m.mean(), mean_m), (distance_m.var(), variance)
        report(f"walk, {label}", *moments, greatest_gap(distance_m, law), "of probability")
    axes.set(xlabel="distance to the server, m", ylabel="density, 1/m", xlim=(0, RADIUS_M))
    axes.set_title("where walkers are")


def snr_panel(axes: Axes) -> None:
    """Law of a random device's SNR over the whole band, for every composed channel."""
    x_db = np.linspace(-90, 110, 201)
    for i, (label, (channel, law)) in enumerate(composed_laws().items()):
        rounds, params = 1, channel.params
        if label == "random_waypoint":  # in the walk's own law
            rounds = 3
            params = params._replace(placement=params.placement._replace(round_s=500.0))
        gain = draw(channel, params, seed=i, rounds=rounds)
        snr_db = decibel(np.asarray(snr_density(gain, POWER_DBM, NOISE_DBM_PER_HZ)) / BANDWIDTH_HZ)
        below = np.searchsorted(np.sort(snr_db), x_db) / len(snr_db)
        style = {"linestyle": ":", "linewidth": 3} if label == "gauss_markov" else {}
        axes.plot(x_db, below, color=COLOURS[i], label=label, **style)
        closed = law(x_db)
        axes.plot(x_db, closed, **CLOSED)
        mean_db = float(x_db[-1] - integrate.simpson(closed, x=x_db))
        variance = float(x_db[-1] ** 2 - 2 * integrate.simpson(x_db * closed, x=x_db)) - mean_db**2
        moments = (snr_db.mean(), mean_db), (snr_db.var(), variance)
        report(
            f"SNR in dB, {label}", *moments, float(np.abs(below - closed).max()), "of probability"
        )
    axes.set(xlabel="SNR over 20 MHz, dB", ylabel="P(SNR ≤ x)", title="a random device's SNR")
    axes.set(xlim=(-20, 90), ylim=(0, 1))


def main() -> None:
    """Draw the figure and print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    heads = ("mean (closed form)", "variance (closed)", "worst deviation")
    print(f"{'':38} {heads[0]:>21} {heads[1]:>21}   {heads[2]}")
    figure, panels = plt.subplots(3, 3, figsize=(13, 10), layout="constrained")
    draw_panel = (
        *(fading_panel, memory_panel, snr_panel),
        *(loss_panel, sight_panel, shadow_panel),
        *(walk_panel, density_panel, decorrelation_panel),
    )
    for axes, draw_one in zip(panels.flat, draw_panel, strict=True):
        draw_one(axes)
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            place = "lower right" if draw_one in (fading_panel, snr_panel) else "best"
            axes.legend(frameon=False, fontsize="small", loc=place)
    figure.suptitle("Channel models: simulated (colours), closed form (black dashes)")
    figure.savefig(options.out / "channel_gallery.png", dpi=110)


if __name__ == "__main__":
    main()
