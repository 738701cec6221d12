"""Exactness and speed of topk_mask, compress, compressed_bits, encode and decode.

``python benchmarks/compress.py`` checks the numerics first and exits with 1 if a check fails;
then it times against lax.top_k and against the same pipeline in PyTorch, and writes
results/compress-<device>.json beside itself. Needs constriction, and torch for its rows of the
table.
"""

import os
import platform
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxsplit_kernels import (
    compress,
    compressed_bits,
    decode,
    dequantize,
    encode,
    stochastic_quantize,
    topk_mask,
)
from jaxsplit_kernels._random import counter_bits, key_words
from jaxsplit_kernels.bitstream import golomb_rice, layout
from jaxsplit_kernels.bitstream.kernel import gap_quotients
from jaxsplit_kernels.topk import ref
from timing import RUNS, compiled, medians, row, save, table

try:
    import torch
except ImportError:
    torch = None

ENTRIES = 197 * 768  # a ViT-B/16 sample cut after a block
BATCH, RATIO, LEVELS = 64, 0.2, 7
KEY = jax.random.key(0)


# -- exactness -------------------------------------------------------------------------------------


def checks():
    """Yield (what, passed)."""
    x = jax.random.normal(KEY, (8, ENTRIES))
    tied = jnp.round(4 * x)
    for name, rows in (("Gaussian rows", x), ("rows with ties", tied)):
        k = jnp.int32(0.1 * ENTRIES)
        expected = ref.topk_mask(np.asarray(rows), int(k))
        yield f"topk_mask is exact, {name}", bool((jax.jit(topk_mask)(rows, k) == expected).all())

    q = stochastic_quantize(KEY, x, topk_mask(x, round(RATIO * ENTRIES)), LEVELS)
    x_hat, bits = jax.jit(compress)(KEY, x, RATIO, LEVELS)
    yield "compress equals its stages", bool((x_hat == dequantize(q)).all())
    streams = encode(q)
    yield "bits are those of the streams", bits.tolist() == [8 * len(s) for s in streams]
    yield (
        "compressed_bits equals compress's",
        bool((compressed_bits(q) == bits).all()),
    )
    yield (
        "decode(encode(q)) equals dequantize(q)",
        bool((np.stack([decode(s) for s in streams]) == dequantize(q)).all()),
    )
    keys = jax.random.split(KEY, 1000)
    mean = sum(jax.jit(compress)(key, x[:1, :5000], RATIO, LEVELS)[0] for key in keys) / len(keys)
    kept = jnp.where(topk_mask(x[:1, :5000], 1000), x[:1, :5000], 0)
    step = (jnp.abs(kept).max() - jnp.abs(kept[kept != 0]).min()) / LEVELS
    yield "unbiased, 5 sigma", bool(jnp.abs(mean - kept).max() < 2.5 * step / len(keys) ** 0.5)


# -- length --------------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "Gaussian": jax.random.normal,
    "uniform": jax.random.uniform,
    "Laplace": jax.random.laplace,
    "Student t, 1.5 degrees": partial(jax.random.t, df=1.5),
}


def excess():
    """Yield (row length, greatest length of a stream over entropy and header, where).

    Entropy of zero order of mask, signs and levels; header with CRC-32 and table of counts.
    """
    for n in (4096, 16_384, 65_536, ENTRIES):
        yield (
            n,
            *max(
                (
                    over_entropy(draw(KEY, shape=(n,)), ratio, levels),
                    f"{name}, ratio {ratio}, E {levels}",
                )
                for name, draw in DISTRIBUTIONS.items()
                for ratio in (0.01, 0.02, 0.05, 0.1, 0.2, 0.214, 0.3, 0.382, 0.5, 0.618, 0.9, 1.0)
                for levels in (1, 3, 7, 15, 255)
            ),
        )


def over_entropy(x, ratio, levels):
    q = stochastic_quantize(KEY, x, topk_mask(x, int(ratio * x.size + 0.5)), levels)
    kept = int(q.mask.sum())
    counts = np.bincount(np.asarray(q.codes)[np.asarray(q.mask)], minlength=levels + 1)
    least = entropy(np.array([kept, x.size - kept])) + kept + entropy(counts)
    least += 8 * (layout.HEADER.size + layout.CRC.size)
    least += golomb_rice.write_gamma(counts[:-1]).size
    return float(compressed_bits(q) / least)


def entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return float(-(counts[counts > 0] * np.log2(p)).sum())


# -- peers -----------------------------------------------------------------------------------------


def top_k_and_scatter(x, k):
    _, index = lax.top_k(jnp.abs(x), k)
    rows = lax.broadcasted_iota(jnp.int32, index.shape, 0)
    return jnp.zeros(x.shape, bool).at[rows, index].set(True)


def approx_max_k_and_scatter(x, k):
    _, index = lax.approx_max_k(jnp.abs(x), k)
    rows = lax.broadcasted_iota(jnp.int32, index.shape, 0)
    return jnp.zeros(x.shape, bool).at[rows, index].set(True)


def torch_pipeline(x, ratio, levels, is_sorted):
    """Top-K, stochastic quantization, values put back: without any count of bits."""
    k = int(ratio * x.shape[-1] + 0.5)
    kept, index = torch.topk(x.abs(), k, dim=-1, sorted=is_sorted)
    low, high = kept.amin(-1, keepdim=True), kept.amax(-1, keepdim=True)
    step = ((high - low) / levels).clamp_min(1e-30)
    code = ((kept - low) / step + torch.rand_like(kept)).floor_().clamp_(0, levels)
    values = (low + code * step) * torch.gather(x, -1, index).sign()
    return torch.zeros_like(x).scatter_(-1, index, values)


def quotients_by_scan(mask):
    """Sums of gap >> k with one cumulative maximum over the row, as one would write it first."""
    index = lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    last = lax.cummax(jnp.where(mask, index, -1), axis=1)
    before = jnp.pad(last[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    gap = jnp.where(mask, index - before - 1, 0)
    return jnp.stack([(gap >> k).sum(-1) for k in range(26)], axis=-1)


# -- speed -----------------------------------------------------------------------------------------


def speed():
    """Yield (what, figures)."""
    jax.clear_caches()
    x = jax.random.normal(KEY, (BATCH, ENTRIES))
    few, k = x[:8], ENTRIES // 10
    ours, compile_s = compiled(topk_mask, few, jnp.int32(k))
    for name, peer in (("top_k", top_k_and_scatter), ("approx_max_k", approx_max_k_and_scatter)):
        theirs, _ = compiled(partial(peer, k=k), few)
        yield (
            f"topk_mask, 8 rows, k = 10 % traced, against {name} + scatter",
            row(*medians(ours, theirs), compile_s),
        )

    ours, compile_s = compiled(compress, KEY, x, jnp.float32(RATIO), jnp.int32(LEVELS))
    if torch:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        tensor = torch.from_numpy(np.array(x))
        for is_sorted in (True, False):
            theirs = partial(torch_pipeline, tensor, RATIO, LEVELS, is_sorted)
            yield (
                f"compress, {BATCH} rows, with bits, against PyTorch, sorted={is_sorted}, without",
                row(*medians(ours, theirs), compile_s),
            )
    copy, _ = compiled(lambda x: x + 1, x)
    yield (
        "compress against one pass that reads and writes x (the limit)",
        row(*medians(ours, copy), compile_s),
    )
    fine, _ = compiled(compress, KEY, x, jnp.float32(RATIO), jnp.int32(255))
    yield "compress with E = 7 against E = 255", row(*medians(ours, fine), compile_s)
    staged, _ = compiled(stages, KEY, x)
    yield "compress against its four stages under one jit", row(*medians(ours, staged), compile_s)

    mask = topk_mask(x, round(RATIO * ENTRIES))
    ours, compile_s = compiled(gap_quotients, mask, jnp.zeros(BATCH, bool))
    theirs, _ = compiled(quotients_by_scan, mask)
    yield "Golomb-Rice lengths against a cumulative maximum", row(*medians(ours, theirs), compile_s)

    q = stochastic_quantize(KEY, x, mask, LEVELS)
    counted, compile_s = compiled(compressed_bits, q)
    yield "compressed_bits against encode", row(*medians(counted, partial(encode, q)), compile_s)
    words = key_words(KEY)
    hashed, compile_s = compiled(lambda words: counter_bits(words, x.shape) >> 8, words)
    drawn, _ = compiled(lambda key: jax.random.bits(key, x.shape) >> 8, KEY)
    yield "random bits by hash against jax.random.bits", row(*medians(hashed, drawn), compile_s)
    streams = encode(q)
    yield (
        "encode against decode",
        row(*medians(partial(encode, q), lambda: [decode(s) for s in streams]), 0.0),
    )


def stages(key, x):
    q = stochastic_quantize(key, x, topk_mask(x, round(RATIO * ENTRIES)), LEVELS)
    return dequantize(q), compressed_bits(q)


def main():
    device = jax.devices()[0].device_kind
    record = {
        "device": device,
        "machine": platform.machine(),
        "jax": jax.__version__,
        "torch": torch.__version__ if torch else None,
        "shape": [BATCH, ENTRIES],
        "ratio": RATIO,
        "levels": LEVELS,
        "runs": RUNS,
        "over_entropy": {},
        "speed": {},
    }
    passed = True
    for what, good in checks():
        passed &= good
        print(f"{what:45} {'ok' if good else 'FAILED'}", flush=True)
    if not passed:
        sys.exit(1)
    print()
    for n, worst, where in excess():
        record["over_entropy"][n] = round(worst, 4)
        print(f"rows of {n:6}: stream <= {worst:.4f} x (entropy + header)   {where}", flush=True)
    table(f"{device}, float32, rows of {ENTRIES}", speed(), record["speed"])
    save("compress", record)


if __name__ == "__main__":
    main()
