"""Compression of rows as a training step sees it: the values that arrive, and their bits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._random import key_words
from .._rows import broadcast_rows, is_within, magnitude_bits, rows
from ..bitstream.kernel import check_length, stream_bits
from ..quantize.kernel import checked_levels, grid_of, range_of, rounded_codes
from ..topk.kernel import cut_of


def compress(key: Any, x: Any, ratio: Any, levels: Any) -> tuple[jax.Array, jax.Array]:
    r"""Send each row through top-K, stochastic quantization and the lossless code.

    $K = \lfloor \rho n + 1/2 \rfloor$ entries are kept, at least one; their magnitudes are rounded
    at random to E + 1 levels, and the bits are those of the stream that `encode` writes (SFT, (9),
    (10)). Equal, bit by bit, to `topk_mask`, `stochastic_quantize`, `dequantize` and
    `compressed_bits` one after another.

    Args:
        key: a JAX random key.
        x: real floating array [..., n], n <= 2^26; each row of the last axis is one stream.
        ratio: rho, the part of the entries that is kept, 0 < rho <= 1, of a shape that broadcasts
            to ``x.shape[:-1]``. May be traced, then it is clipped to that range.
        levels: E, an integer from 1 to 255; b bits are $E = 2^b - 1$. May be traced, then it is
            clipped to that range. A sweep over both is one trace.

    Returns:
        x_hat, like ``x``; and bits, int32 of shape ``x.shape[:-1]``. The gradient of x_hat is that
        of the identity (straight through); the bits have none.

    Raises:
        ValueError: ``x`` is not real floating, empty, of rank 0 or its rows are too long; ``ratio``
            or ``levels`` is out of range or does not broadcast.

    Example:
        >>> import jax
        >>> from jaxsplit_kernels import compress
        >>> x = jax.random.normal(jax.random.key(0), (4, 10_000))
        >>> x_hat, bits = compress(jax.random.key(1), x, ratio=0.2, levels=7)
        >>> print((x_hat != 0).sum(axis=-1))
        [2000 2000 2000 2000]
        >>> print((32 * 10_000 / bits > 20).all())
        True

    References:
        *Split fine-tuning for large language models in wireless networks*, arXiv:2501.09237.
    """
    x = rows("compress", x)
    check_length("compress", x.shape[-1])
    k = kept_per_row(ratio, x.shape)
    levels = checked_levels("compress", levels, x.shape[:-1])
    return _compress(key_words(key), x, k, levels)


@jax.custom_jvp
@jax.jit
def _compress(
    words: jax.Array, x: jax.Array, k: jax.Array, levels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    value = x.astype(jnp.float32)
    # Half precision has the same patterns in float32; its passes over the row read half as much.
    cut = cut_of(value if x.dtype == jnp.float64 else x, k)
    kept = cut.kept(magnitude_bits(value))
    low, high = range_of(cut.least, cut.greatest)
    grid = grid_of(low, high, levels)
    codes = jnp.where(
        kept & jnp.isfinite(high)[..., None], rounded_codes(words, jnp.abs(value), grid), 0
    )
    magnitude = grid.point(codes.astype(jnp.float32)) / grid.scale
    x_hat = jnp.where(kept, jnp.copysign(magnitude, value), 0)
    return x_hat.astype(x.dtype), stream_bits(codes, kept, levels)


@_compress.defjvp
def _straight_through(primals: Any, tangents: Any) -> Any:
    x_hat, bits = _compress(*primals)
    return (x_hat, bits), (tangents[1], np.zeros(bits.shape, jax.dtypes.float0))


def kept_per_row(ratio: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return K = clip(floor(ratio n + 1/2), 1, n), int32 [...]; a ValueError names a bad ratio."""
    length = shape[-1]
    if isinstance(ratio, (int, float)):  # exactly, in float64
        if not 0 < ratio <= 1:
            raise ValueError(_bad_ratio(ratio))
        return jnp.full(shape[:-1], max(math.floor(ratio * length + 0.5), 1), jnp.int32)
    array = jnp.asarray(ratio)
    least_positive = float(np.finfo(np.float64).smallest_subnormal)
    if not jnp.issubdtype(array.dtype, jnp.floating) or not is_within(ratio, least_positive, 1):
        raise ValueError(_bad_ratio(ratio))
    product = jnp.clip(array, 0, 1).astype(jnp.float32) * length
    whole = jnp.floor(product)  # + 1/2 would round above 2^23
    whole = jnp.where(product - whole >= 0.5, whole + 1, whole)
    k = jnp.clip(whole.astype(jnp.int32), 1, length)
    return broadcast_rows("compress", "ratio", k, shape[:-1])


def _bad_ratio(ratio: Any) -> str:
    return (
        f"compress: ratio must be a float in (0, 1], got {ratio!r}; pass 1.0 to keep every entry."
    )
