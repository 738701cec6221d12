"""Stochastic quantization of the kept magnitudes of a row, in JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._random import counter_bits, key_words
from .._rows import INF_BITS, NAN_BITS, TINY_BITS, broadcast_rows, is_within, magnitude_bits, rows

MAX_LEVELS = 255


class Quantized(NamedTuple):
    r"""Sparse, quantized rows: what a stream holds.

    The kept entry $i$ of a row stands for $s_i\,Q_{c_i}$ with the grid
    $Q_e = s_{min} + e\,(s_{max} - s_{min}) / E$, e = 0 .. E; the others stand for 0 (SFT, (10)).

    Attributes:
        codes: uint8 [..., n], the grid points c_i; 0 where not kept.
        sign: int8 [..., n], -1 or +1; 0 where not kept.
        mask: bool [..., n], the kept entries.
        low: float32 [...], s_min, the smallest kept magnitude of a row; 0 if none is kept.
        high: float32 [...], s_max, the largest.
        levels: int32 [...], E.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxsplit_kernels import Quantized, stochastic_quantize
        >>> q = stochastic_quantize(jax.random.key(0), jnp.ones((2, 5)), True, levels=7)
        >>> print(Quantized(*(field.shape for field in q)).low)  # one per row
        (2,)
    """

    codes: jax.Array
    sign: jax.Array
    mask: jax.Array
    low: jax.Array
    high: jax.Array
    levels: jax.Array


def stochastic_quantize(key: Any, x: Any, mask: Any, levels: Any) -> Quantized:
    r"""Round the kept magnitudes of each row at random to a grid of E + 1 points; unbiased.

    $|x|$ between $Q_e$ and $Q_{e+1}$ goes up with probability
    $(|x| - Q_e) / (Q_{e+1} - Q_e)$, where $Q_e = s_{min} + e\,(s_{max} - s_{min}) / E$ spans the
    kept magnitudes of the row (SFT, (10)): the mean of the result is $x$. A magnitude on the grid
    stays there. b bits per entry are $E = 2^b - 1$.

    Args:
        key: a JAX random key.
        x: real floating array [..., n]; computed in float32.
        mask: bool array that broadcasts to the shape of ``x``, the entries to keep.
        levels: E, an integer from 1 to 255, of a shape that broadcasts to ``x.shape[:-1]``. May be
            traced, then it is clipped to that range: a sweep over E is one trace.

    Returns:
        The quantized rows. A row of equal magnitudes has all codes 0; a row with nothing kept has
        low = high = 0; NaN or infinity among the kept makes every kept entry of its row NaN.

    Raises:
        ValueError: ``x`` is not real floating, empty or of rank 0; ``mask`` is not boolean or does
            not broadcast; ``levels`` is not an integer or out of range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxsplit_kernels import dequantize, stochastic_quantize, topk_mask
        >>> x = jnp.array([0.5, -4.0, 0.1, 2.0, -1.0, 3.0])
        >>> q = stochastic_quantize(jax.random.key(0), x, topk_mask(x, 4), levels=3)
        >>> print(q.codes)  # grid 1, 2, 3, 4: every kept magnitude is on it
        [0 3 0 1 0 2]
        >>> print(dequantize(q))
        [ 0. -4.  0.  2. -1.  3.]

    References:
        *Split fine-tuning for large language models in wireless networks*, arXiv:2501.09237, (10).
    """
    x = rows("stochastic_quantize", x)
    mask = _checked_mask(mask, x.shape)
    levels = checked_levels("stochastic_quantize", levels, x.shape[:-1])
    return _quantize(key_words(key), x.astype(jnp.float32), mask, levels)


def dequantize(q: Quantized) -> jax.Array:
    r"""Return the values that quantized rows stand for, $s_i\,Q_{c_i}$, and 0 where not kept.

    The arithmetic is exact enough to define the format: every backend and ``decode`` on the host
    give the same float32, with or without fused multiply-add.

    Args:
        q: quantized rows, from `stochastic_quantize` or `compress`'s parts.

    Returns:
        float32 array of the shape of ``q.codes``.

    Raises:
        ValueError: the fields of ``q`` do not fit each other.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsplit_kernels import Quantized, dequantize
        >>> q = Quantized(
        ...     codes=jnp.array([0, 0, 2], jnp.uint8),
        ...     sign=jnp.array([1, 0, -1], jnp.int8),
        ...     mask=jnp.array([True, False, True]),
        ...     low=jnp.float32(0.5),
        ...     high=jnp.float32(1.5),
        ...     levels=jnp.int32(4),
        ... )
        >>> print(dequantize(q))
        [ 0.5  0.  -1. ]
    """
    check_quantized("dequantize", q)
    return _dequantize(q)


@jax.jit
def _quantize(words: jax.Array, x: jax.Array, mask: jax.Array, levels: jax.Array) -> Quantized:
    bits = magnitude_bits(x)
    high_bits = jnp.max(jnp.where(mask, bits, 0), axis=-1)
    low_bits = jnp.min(jnp.where(mask, bits, high_bits[..., None]), axis=-1)
    low, high = range_of(low_bits, high_bits)
    codes = rounded_codes(words, jnp.abs(x), grid_of(low, high, levels))
    codes = jnp.where(mask & jnp.isfinite(high)[..., None], codes, 0)
    sign = jnp.where(mask, jnp.where(jnp.signbit(x), jnp.int8(-1), jnp.int8(1)), jnp.int8(0))
    return Quantized(codes, sign, mask, low, high, levels)


@jax.jit
def _dequantize(q: Quantized) -> jax.Array:
    grid = grid_of(q.low, q.high, q.levels)
    magnitude = grid.point(q.codes.astype(jnp.float32)) / grid.scale
    return jnp.where(q.mask, q.sign.astype(jnp.float32) * magnitude, 0)


# -- the grid --------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """The E + 1 points of each row, in units that keep every product below away from underflow.

    Attributes:
        scale: power of two by which magnitudes are multiplied first, [..., 1], as all below.
        low: the least point, scaled.
        high: the greatest point, scaled.
        leading: the 16 leading bits of (high - low) / E, so that times a code it is exact.
        rest: its other bits, likewise. Where no product rounds, a fused multiply-add gives what a
            multiplication and an addition give: the grid is the same in every program.
        levels: E, float32.
    """

    scale: jax.Array
    low: jax.Array
    high: jax.Array
    leading: jax.Array
    rest: jax.Array
    levels: jax.Array

    def point(self, e: jax.Array) -> jax.Array:
        """Return the scaled point e, a whole number in float32; exactly low, high at the ends."""
        inner = jnp.minimum((self.low + e * self.leading) + e * self.rest, self.high)
        return jnp.where(e == self.levels, self.high, inner)


def grid_of(low: jax.Array, high: jax.Array, levels: jax.Array) -> Grid:
    """Return the grid of each row from its range [...] and its E [...]."""
    low, high, steps = low[..., None], high[..., None], levels[..., None].astype(jnp.float32)
    # XLA divides by what is the same for many rows as a product with the reciprocal, which rounds
    # to another grid than the decoder's. The sign bit of a magnitude, 0, makes it each row's own.
    steps = steps + (lax.bitcast_convert_type(high, jnp.uint32) >> 31).astype(jnp.float32)
    scale = jnp.where(high < 2.0**-20, jnp.float32(2.0**100), jnp.float32(1))
    low, high = low * scale, high * scale
    step = (high - low) / steps
    leading = lax.bitcast_convert_type(
        lax.bitcast_convert_type(step, jnp.uint32) & jnp.uint32(0xFFFFFF00), jnp.float32
    )
    return Grid(scale, low, high, leading, step - leading, steps)


def range_of(low_bits: jax.Array, high_bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (low, high) of rows from the patterns of the least and the greatest kept magnitude.

    NaN unless both are finite; subnormal numbers are zero, as XLA's arithmetic takes them.
    """
    finite = high_bits < INF_BITS

    def value(bits: jax.Array) -> jax.Array:
        bits = jnp.where(finite, jnp.where(bits < TINY_BITS, 0, bits), NAN_BITS)
        return lax.bitcast_convert_type(bits, jnp.float32)

    return value(low_bits), value(high_bits)


def rounded_codes(words: jax.Array, magnitude: jax.Array, grid: Grid) -> jax.Array:
    """Return the code of every magnitude, uint8; meaningless outside the range of the grid.

    The nearest point is safe to find in float32, and its order to the magnitude says which two
    points are the neighbours: a magnitude on the grid has distance 0 from the lower one.
    """
    m = magnitude * grid.scale
    step = grid.leading + grid.rest
    per_step = jnp.where(step > 0, 1 / jnp.where(step > 0, step, 1), 0)
    nearest = jnp.clip(jnp.round((m - grid.low) * per_step), 0, grid.levels)
    point = grid.point(nearest)
    is_below = m < point
    lower = jnp.where(is_below, nearest - 1, nearest)
    lower_point = jnp.where(is_below, grid.point(nearest - 1), point)
    upper_point = jnp.where(is_below, point, grid.point(nearest + 1))
    uniform = (counter_bits(words, m.shape) >> 8).astype(jnp.float32) * 2.0**-24
    rises = uniform * (upper_point - lower_point) < m - lower_point
    return jnp.where(rises, lower + 1, lower).astype(jnp.uint8)


# -- the check of input ----------------------------------------------------------------------------


def check_quantized(function: str, q: Quantized) -> None:
    """Raise a ValueError unless the dtypes and shapes of ``q`` belong together."""
    rows = q.codes.shape[:-1]
    expected = {
        "codes": (jnp.uint8, q.codes.shape),
        "sign": (jnp.int8, q.codes.shape),
        "mask": (jnp.bool_, q.codes.shape),
        "low": (jnp.float32, rows),
        "high": (jnp.float32, rows),
        "levels": (jnp.int32, rows),
    }
    for name, (dtype, shape) in expected.items():
        field = getattr(q, name)
        if field.dtype != dtype or field.shape != shape or not q.codes.ndim:
            raise ValueError(
                f"{function}: q.{name} must be {jnp.dtype(dtype).name} of shape {(*shape,)} for "
                f"codes of shape {q.codes.shape}, got {field.dtype} of shape {field.shape}; "
                "take q from stochastic_quantize."
            )


def checked_levels(function: str, levels: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return E as int32 of the given shape, clipped to 1 .. 255 if traced; raise a ValueError."""
    array = jnp.asarray(levels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"{function}: levels must be an integer from 1 to {MAX_LEVELS}, got {levels!r} of "
            f"{array.dtype}; for b bits pass 2**b - 1."
        )
    if not is_within(levels, 1, MAX_LEVELS):
        raise ValueError(
            f"{function}: levels must be from 1 to {MAX_LEVELS}, got {levels!r}; "
            "for b bits pass 2**b - 1."
        )
    return broadcast_rows(
        function, "levels", jnp.clip(array, 1, MAX_LEVELS).astype(jnp.int32), shape
    )


def _checked_mask(mask: Any, shape: tuple[int, ...]) -> jax.Array:
    array = jnp.asarray(mask)
    if array.dtype != jnp.bool_:
        raise ValueError(
            f"stochastic_quantize: mask must be boolean, got {array.dtype}; pass topk_mask(x, k)."
        )
    return broadcast_rows("stochastic_quantize", "mask", array, shape)
