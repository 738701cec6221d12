"""The figures of kernels/README.md: ``python benchmarks/kernel_figures.py`` draws them anew.

Errors of lambertw and bandwidth_for_rate in float32 beside the usual ways to compute them, and the
bits of compressed rows beside their entropy. Needs scipy, mpmath, constriction and matplotlib.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxsplit_kernels import (
    bandwidth_for_rate,
    compress,
    lambertw,
    stochastic_quantize,
    topk_mask,
)
from jaxsplit_kernels.bandwidth import ref as bandwidth_ref
from jaxsplit_kernels.bitstream import golomb_rice, layout
from jaxsplit_kernels.lambertw import cases, ref

FOLDER = Path(__file__).parents[1] / "kernels" / "images"
OURS, THEIRS = "C0", "C1"


def halley(z, branch):
    """Eight steps of Halley's method in float32 from the series, the usual way in JAX."""
    p = jnp.sqrt(2 * (jnp.float32(np.e) * z + 1))
    near = -1 + p - p * p / 3 if branch == 0 else -1 - p - p * p / 3
    log = jnp.log(jnp.abs(z))
    far = jnp.where(z < 1, z, jnp.log1p(jnp.abs(z))) if branch == 0 else log - jnp.log(-log)
    w = jnp.where(z < -0.2, near, far)
    for _ in range(8):
        e = jnp.exp(w)
        f = w * e - z
        w = w - f / (e * (w + 1) - (w + 2) * f / (2 * w + 2))
    return w


def worst(x, error, edges):
    """Greatest error in each bin of x; NaN counts as infinite."""
    error = np.where(np.isfinite(error), error, 1e9)
    bins = np.digitize(x, edges) - 1
    return np.array([np.max(error[bins == i], initial=0) for i in range(len(edges) - 1)])


def draw_lambertw():
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, branch in zip(axes, (0, -1), strict=True):
        near = cases.next_to_branch_point(np.float32, 2000)[1:]
        z = np.concatenate([cases.domain(np.float32, branch, 1_000_000), near])
        truth = ref.lambertw(z, branch)
        # Distance from the branch point; on branch -1 relative to |z|, so that z -> 0 shows too.
        x = z.astype(np.float64) + cases.INV_E
        x = x if branch == 0 else x / -z.astype(np.float64)
        edges = np.logspace(-8, 38, 93)
        spacing = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
        for name, function, colour in (
            ("Halley, 8 steps in float32", partial(halley, branch=branch), THEIRS),
            ("jaxsplit_kernels.lambertw", partial(lambertw, branch=branch), OURS),
        ):
            got = np.asarray(jax.jit(function)(z), np.float64)
            error = worst(x, np.abs(got - truth) / spacing, edges)
            shown = error > 0
            axis.step(edges[:-1][shown], error[shown], where="post", color=colour, label=name)
        axis.axhline(4, color="0.6", lw=0.8, ls="--", label="bound of the tests, 4 ulp")
        axis.set(xscale="log", yscale="log", ylim=(0.3, 3e6))
        axis.set_xlabel("z + 1/e" if branch == 0 else "(z + 1/e) / |z|")
        axis.set_title(f"branch {branch}")
    axes[0].set_ylabel("greatest error, ulp of float32")
    axes[0].legend(fontsize=8)
    figure.savefig(FOLDER / "lambertw.png", dpi=150)


def as_printed(rate, snr_hz):
    """Equation (25) in float32 with this package's W: the formula is at fault, not W."""
    c = rate * jnp.float32(np.log(2)) / snr_hz
    return -rate * jnp.float32(np.log(2)) / (c + lambertw(-c * jnp.exp(-c), branch=-1))


def draw_bandwidth():
    rng = np.random.default_rng(0)
    count = 200_000
    snr_hz = (10 ** rng.uniform(8, 9, count)).astype(np.float32)
    small = 10 ** rng.uniform(-42, -0.3, count // 2)
    near_1 = 1 - 10 ** rng.uniform(-6, -0.3, count - count // 2)
    c = np.concatenate([small, near_1])
    rate = (c * snr_hz / np.log(2)).astype(np.float32)
    truth = bandwidth_ref.bandwidth_for_rate(rate, snr_hz)
    feasible = np.isfinite(truth)
    c = rate.astype(np.float64) * np.log(2) / snr_hz  # anew: float32 rounded the rate
    below_1 = 1 - c
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, x, part, edges, label in (
        (axes[0], c, below_1 > 0.5, np.logspace(-42, -0.3, 80), "c = y ln 2 / s"),
        (axes[1], below_1, below_1 <= 0.5, np.logspace(-7, -0.3, 60), "1 − c"),
    ):
        part = part & feasible
        for name, function, colour in (
            ("equation (25) as printed", as_printed, THEIRS),
            ("bandwidth_for_rate", bandwidth_for_rate, OURS),
        ):
            got = np.asarray(jax.jit(function)(rate, snr_hz), np.float64)
            error = worst(x[part], np.abs(got / truth - 1)[part], edges)
            shown = error > 0
            axis.step(edges[:-1][shown], error[shown], where="post", color=colour, label=name)
        axis.axhline(2e-6, color="0.6", lw=0.8, ls="--", label="bound of the tests, 2e-6")
        axis.set(xscale="log", yscale="log", ylim=(1e-8, 10), xlabel=label)
    axes[0].set_ylabel("greatest relative error, float32")
    axes[0].legend(fontsize=8)
    figure.savefig(FOLDER / "bandwidth.png", dpi=150)


def entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return -(counts[counts > 0] * np.log2(p)).sum()


def draw_bits():
    n, key = 197 * 768, jax.random.key(0)
    x = jax.random.normal(key, (n,))
    ratios = np.unique(np.round(np.logspace(-2, 0, 25), 3))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    sweep = jax.jit(compress)
    for i, levels in enumerate((1, 7, 255)):
        bits = np.array([int(sweep(key, x, np.float32(r), np.int32(levels))[1]) for r in ratios])
        least = []
        for r in ratios:
            q = stochastic_quantize(key, x, topk_mask(x, int(r * n + 0.5)), levels)
            kept = int(q.mask.sum())
            codes = np.asarray(q.codes)[np.asarray(q.mask)]
            counts = np.bincount(codes, minlength=levels + 1)
            header = 8 * (layout.HEADER.size + layout.CRC.size)
            header += golomb_rice.write_gamma(counts[:-1]).size
            least.append(entropy(np.array([kept, n - kept])) + kept + entropy(counts) + header)
        axes[0].plot(ratios, 32 * n / bits, color=f"C{i}", label=f"E = {levels}")
        axes[1].plot(ratios, 100 * (bits / least - 1), color=f"C{i}", label=f"E = {levels}")
    axes[0].set(xscale="log", yscale="log", xlabel="ratio ρ", ylabel="times shorter than float32")
    axes[0].axhline(20, color="0.6", lw=0.8, ls="--")
    axes[0].legend(fontsize=8)
    axes[1].set(xscale="log", xlabel="ratio ρ", ylabel="% above entropy and header", ylim=(0, 4))
    axes[1].axhline(3, color="0.6", lw=0.8, ls="--")
    figure.suptitle("Streams of Gaussian rows of 197·768 entries", fontsize=10)
    figure.savefig(FOLDER / "bits.png", dpi=150)


def main():
    FOLDER.mkdir(exist_ok=True)
    draw_lambertw()
    draw_bandwidth()
    draw_bits()


if __name__ == "__main__":
    main()
