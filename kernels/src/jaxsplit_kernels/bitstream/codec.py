"""Streams of quantized rows on the host: `encode` and `decode`. The format is in `layout`."""

import zlib
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .._rows import INF_BITS, TINY_BITS, is_concrete
from ..quantize import Quantized
from ..quantize.kernel import check_quantized
from . import golomb_rice, layout

_LEAST_BYTES = layout.HEADER.size + layout.CRC.size
_MOST_ZEROS = (layout.MAX_ELEMENTS + 1).bit_length() - 1  # of a count in gamma code


class StreamError(ValueError):
    """The bytes are no stream: damaged, cut short, of another version, or of too long a row.

    Example:
        >>> from jaxsplit_kernels import StreamError, decode
        >>> try:
        ...     decode(bytes(100))
        ... except StreamError as error:
        ...     print(str(error).split(";")[0])
        decode: the CRC-32 of the content is 0xbaf465ae, must be 0x00000000
    """


def encode(q: Quantized) -> list[bytes]:
    r"""Return the stream of each row: header, mask, signs and levels, without loss.

    A row of n entries with K kept takes 24 bytes, K signs, a Golomb-Rice or an ANS code of the mask
    (about $n H_2(K / n)$ bits with the binary entropy $H_2$) and its K levels in $\lceil\log_2
    (E + 1) \rceil$ bits each, or fewer by ANS with the row's own frequencies: SFT's lossless stage.
    The format is versioned; `compressed_bits` gives the number of bits without the stream.

    Args:
        q: quantized rows [..., n], from `stochastic_quantize`; concrete arrays, on the host or on a
            device. Codes and signs of entries that are not kept do not matter.

    Returns:
        One stream per row, leading axes in C order.

    Raises:
        ValueError: ``q`` is traced, its fields do not fit each other, or a row is not what
            `stochastic_quantize` could give.
        ImportError: an ANS code is the shorter one and constriction is not installed.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsplit_kernels import Quantized, decode, encode
        >>> q = Quantized(
        ...     codes=jnp.array([0, 0, 2], jnp.uint8),
        ...     sign=jnp.array([1, 0, -1], jnp.int8),
        ...     mask=jnp.array([True, False, True]),
        ...     low=jnp.float32(0.5),
        ...     high=jnp.float32(1.5),
        ...     levels=jnp.int32(4),
        ... )
        >>> (stream,) = encode(q)
        >>> len(stream)
        26
        >>> print(decode(stream))
        [ 0.5  0.  -1. ]

    References:
        *Split fine-tuning for large language models in wireless networks*, arXiv:2501.09237.
        S. W. Golomb, *Run-length encodings*, 1966; R. F. Rice, *Some practical universal noiseless
        coding techniques*, 1979.
        J. Duda, *Asymmetric numeral systems*, arXiv:1311.2540.
    """
    if not all(is_concrete(field) for field in q):
        raise ValueError(
            "encode: q must hold concrete arrays, got traced ones; call encode outside jit and "
            "vmap, or compressed_bits inside."
        )
    check_quantized("encode", q)
    n = q.codes.shape[-1]
    if not 1 <= n <= layout.MAX_ELEMENTS:
        raise ValueError(
            f"encode: rows must have from 1 to {layout.MAX_ELEMENTS} entries, got {n}; "
            "split longer rows."
        )
    codes, sign, mask, low, high, levels = (np.asarray(field) for field in q)
    rows = zip(
        codes.reshape(-1, n),
        sign.reshape(-1, n),
        mask.reshape(-1, n),
        low.reshape(-1),
        high.reshape(-1),
        levels.reshape(-1),
        strict=True,
    )
    return [_encode_row(i, *row) for i, row in enumerate(rows)]


def decode(stream: bytes, *, max_elements: int = layout.MAX_ELEMENTS) -> np.ndarray:
    """Return the row of a stream from `encode`, bit for bit as `dequantize` gives it.

    Safe on bytes from anywhere: they end in a row or in a StreamError, with memory of a small
    multiple of the stream and of ``max_elements``.

    Args:
        stream: bytes-like, one stream.
        max_elements: the longest row that may be allocated.

    Returns:
        float32 array [n].

    Raises:
        StreamError: the bytes are not a stream of this version, or its row is longer than
            ``max_elements``.
        TypeError: ``stream`` is not bytes-like.
        ImportError: the stream needs constriction, which is not installed.

    Example:
        >>> from jaxsplit_kernels import decode
        >>> decode(b"no stream")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        jaxsplit_kernels.bitstream.codec.StreamError: decode: a stream has at least 24 bytes...
    """
    if not isinstance(stream, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"decode: stream must be bytes, got {type(stream).__name__}; "
            "pass one stream of encode's list."
        )
    stream = bytes(stream)
    header = _read_header(stream, max_elements)
    bits = _Bits(np.frombuffer(stream, np.uint8)[layout.HEADER.size : -layout.CRC.size])
    counts = _read_counts(bits, header)
    signs = bits.take(header.kept)
    codes = _read_codes(bits, header, counts)
    mask = _read_mask(bits, header)

    points = grid_points(header.low, header.high, header.levels)
    row = np.zeros(header.length, np.float32)
    row[mask] = np.concatenate([points, -points])[codes + signs * np.int32(points.size)]
    return row


def grid_points(low: np.float32, high: np.float32, levels: int) -> np.ndarray:
    """Return the points 0 .. E of a row's grid, float32: the arithmetic of `quantize.kernel.Grid`.

    XLA takes subnormal numbers for zero and gives zero for them, NumPy does neither by itself.
    """
    if np.isnan(low):
        return np.full(levels + 1, np.nan, np.float32)
    tiny = np.uint32(TINY_BITS).view(np.float32)
    low, high = (np.float32(0) if x < tiny else x for x in (low, high))
    scale = np.float32(2.0**100) if high < np.float32(2.0**-20) else np.float32(1)
    low, high = low * scale, high * scale
    step = (high - low) / np.float32(levels)
    leading = (step.view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)
    rest = step - leading
    e = np.arange(levels, dtype=np.float32)
    points = np.append(np.minimum((low + e * leading) + e * rest, high), high)
    # Compared before the division, which would round up to the least normal number.
    return np.where(points < tiny * scale, np.float32(0), points) / scale


# -- encode ----------------------------------------------------------------------------------------


def _encode_row(
    row: int,
    codes: np.ndarray,
    sign: np.ndarray,
    mask: np.ndarray,
    low: np.float32,
    high: np.float32,
    levels: np.int32,
) -> bytes:
    n, positions = mask.size, np.flatnonzero(mask)
    codes, sign = codes[positions], sign[positions]
    _check_row(row, codes, sign, low, high, levels)

    kept = np.int32(positions.size)
    level_mode, table, level_bits = _write_levels(codes, kept, levels)
    mask_mode, mask_bits = _write_mask(mask, kept)
    modes = level_mode | mask_mode
    header = layout.HEADER.pack(layout.MAGIC, layout.VERSION, levels, modes, n, kept, low, high)
    parts = [table, (sign < 0).view(np.uint8), level_bits, mask_bits]
    body = header + np.packbits(np.concatenate(parts)).tobytes()
    return body + layout.CRC.pack(zlib.crc32(body))


def _write_levels(
    codes: np.ndarray, kept: np.int32, levels: np.int32
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the mode, and the bits of the table of counts and of the levels."""
    counts = np.bincount(codes, minlength=layout.MAX_LEVELS + 1).astype(np.int32)
    if layout.ans_level_bits(counts, levels) < layout.raw_level_bits(kept, levels):
        table = golomb_rice.write_gamma(counts[:levels])
        return layout.ANS_LEVELS, table, _write_ans(codes, counts[: levels + 1])
    width = int(layout.bit_length(levels))
    return 0, np.zeros(0, np.uint8), golomb_rice.write_fixed(codes, width)


def _write_mask(mask: np.ndarray, kept: np.int32) -> tuple[int, np.ndarray]:
    """Return the mode, Rice parameter included, and the bits of the mask."""
    n = mask.size
    mode = layout.DROPPED_GAPS if 2 * int(kept) > n else 0
    gaps = golomb_rice.gaps_of(np.flatnonzero(~mask if mode else mask))
    rice = layout.gap_bits(n, kept, golomb_rice.quotient_sums(gaps))
    if layout.ans_mask_bits(n, kept) < rice.min():
        return layout.ANS_MASK, _write_ans(mask, np.array([n - kept, kept], np.int32))
    k = int(np.argmin(rice))
    return mode | k, np.concatenate(golomb_rice.write(gaps, k))


def _check_row(
    row: int,
    codes: np.ndarray,
    sign: np.ndarray,
    low: np.float32,
    high: np.float32,
    levels: np.int32,
) -> None:
    fix = f"in row {row}; take q from stochastic_quantize."
    if not 1 <= levels <= layout.MAX_LEVELS:
        raise ValueError(
            f"encode: levels must be from 1 to {layout.MAX_LEVELS}, got {levels} {fix}"
        )
    if codes.size and codes.max() > levels:
        raise ValueError(
            f"encode: codes must be at most levels = {levels}, got {codes.max()} {fix}"
        )
    if not (np.abs(sign) == 1).all():
        raise ValueError(
            "encode: sign must be -1 or +1 where an entry is kept, got "
            f"{sign[np.abs(sign) != 1][0]} {fix}"
        )
    if not _is_range(low, high, codes.size):
        raise ValueError(
            "encode: low and high must satisfy 0 <= low <= high < inf, or both be NaN, or both be "
            f"0 where nothing is kept, got {low} and {high} {fix}"
        )


def _is_range(low: np.float32, high: np.float32, kept: int) -> bool:
    """Whether rows with ``kept`` entries have such ranges. Patterns: -0.0 is no end of a range."""
    low_bits, high_bits = int(low.view(np.uint32)), int(high.view(np.uint32))
    if kept == 0:
        return low_bits == high_bits == 0
    return low_bits <= high_bits < INF_BITS or bool(np.isnan(low) and np.isnan(high))


# -- decode ----------------------------------------------------------------------------------------


class _Header(NamedTuple):
    levels: int
    modes: int
    length: int
    kept: int
    low: np.float32
    high: np.float32

    @property
    def rice(self) -> int:
        return self.modes & layout.RICE_MASK

    @property
    def gaps(self) -> int:
        return min(self.kept, self.length - self.kept)


class _Bits:
    """The sections of a stream, taken one after another; unpacked only if they are all there."""

    def __init__(self, data: np.ndarray):
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return 8 * self.data.size - self.at

    def take(self, count: int) -> np.ndarray:
        """Return the next bits, uint8."""
        if count > self.left:
            raise _error(f"{self.left} bits are left where a section takes {count}")
        first, skip = divmod(self.at, 8)
        self.at += count
        last = (self.at + 7) // 8
        return np.unpackbits(self.data[first:last])[skip : skip + count]

    def take_gamma(self) -> int:
        """Return the next number in Elias' gamma code of itself plus one."""
        zeros = 0
        while not self.take(1)[0]:
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise _error(f"a count begins with more than {_MOST_ZEROS} zeros")
        return int("".join(map(str, (1, *self.take(zeros)))), base=2) - 1


def _error(what: str) -> StreamError:
    return StreamError(f"decode: {what}; the stream is damaged or forged, fetch it again.")


def _read_header(stream: bytes, max_elements: int) -> _Header:
    if len(stream) < _LEAST_BYTES:
        raise StreamError(
            f"decode: a stream has at least {_LEAST_BYTES} bytes, got {len(stream)}; "
            "pass all bytes of it."
        )
    body = memoryview(stream)[: -layout.CRC.size]
    (expected,) = layout.CRC.unpack(stream[-layout.CRC.size :])
    crc = zlib.crc32(body)
    if crc != expected:
        raise _error(f"the CRC-32 of the content is {crc:#010x}, must be {expected:#010x}")
    magic, version, levels, modes, length, kept, _, _ = layout.HEADER.unpack_from(stream)
    # From their patterns: a signalling NaN would not survive the way through a Python float.
    low, high = np.frombuffer(stream, "<f4", 2, layout.HEADER.size - 8).astype(np.float32)
    if magic != layout.MAGIC:
        raise StreamError(
            f"decode: the first byte must be {layout.MAGIC:#04x}, got {magic:#04x}; "
            "pass a stream of encode."
        )
    if version != layout.VERSION:
        raise StreamError(
            f"decode: version must be {layout.VERSION}, got {version}; "
            "use the release that wrote the stream."
        )
    if levels == 0:
        raise _error(f"levels must be from 1 to {layout.MAX_LEVELS}, got 0")
    if not 1 <= length <= layout.MAX_ELEMENTS:
        raise _error(f"rows have from 1 to {layout.MAX_ELEMENTS} entries, got {length}")
    if length > max_elements:
        raise StreamError(
            f"decode: the row has {length} entries, more than max_elements = {max_elements}; "
            "pass a larger max_elements if the stream's origin is trusted."
        )
    if kept > length:
        raise _error(f"{kept} of {length} entries are kept")
    if not _is_range(low, high, kept):
        raise _error(f"low = {low} and high = {high} are no range of {kept} kept entries")
    header = _Header(levels, modes, length, kept, low, high)
    if modes & layout.ANS_MASK:
        fits = not modes & (layout.RICE_MASK | layout.DROPPED_GAPS)
    else:
        fits = bool(modes & layout.DROPPED_GAPS) == (2 * kept > length)
    if not fits:
        raise _error(f"modes {modes:#04x} do not fit {kept} kept of {length} entries")
    if header.rice >= layout.RICE_PARAMETERS:
        raise _error(
            f"the Rice parameter must be less than {layout.RICE_PARAMETERS}, got {header.rice}"
        )
    if modes & layout.ANS_LEVELS:
        if kept == 0:
            raise _error("the ANS code of no levels is empty, yet its mode is set")
        least = levels
    else:
        least = kept * levels.bit_length()
    least += kept
    if modes & layout.ANS_MASK:
        least += int(layout.ans_mask_bits(length, np.int32(kept)))
    else:
        least += header.gaps * (header.rice + 1)
    if least > 8 * (len(stream) - _LEAST_BYTES):
        raise _error(f"{len(stream)} bytes cannot hold {kept} kept of {length} entries")
    return header


def _read_counts(bits: _Bits, header: _Header) -> np.ndarray | None:
    """Return how often each level 0 .. E occurs, int32, if the levels are coded by ANS."""
    if not header.modes & layout.ANS_LEVELS:
        return None
    counts = [bits.take_gamma() for _ in range(header.levels)]
    rest = header.kept - sum(counts)
    if rest < 0:
        raise _error(f"the counts of the levels exceed the {header.kept} kept entries")
    return np.array([*counts, rest], np.int32)


def _read_codes(bits: _Bits, header: _Header, counts: np.ndarray | None) -> np.ndarray:
    """Return the codes of the kept entries, int32."""
    if counts is not None:
        return _read_ans(bits, counts)
    width = header.levels.bit_length()
    codes = golomb_rice.read_fixed(bits.take(header.kept * width), width, header.kept)
    if header.kept and codes.max() > header.levels:
        raise _error(f"a code is {codes.max()}, must be at most {header.levels}")
    return codes.astype(np.int32)


def _read_mask(bits: _Bits, header: _Header) -> np.ndarray:
    """Return the mask, bool [n]."""
    if header.modes & layout.ANS_MASK:
        counts = np.array([header.length - header.kept, header.kept], np.int32)
        mask = _read_ans(bits, counts).astype(np.bool_)
        if bits.left >= 8 or bits.take(bits.left).any():
            raise _error("what follows the mask is no padding")
        return mask
    coded = np.zeros(header.length, np.bool_)
    coded[_read_positions(bits, header)] = True
    return ~coded if header.modes & layout.DROPPED_GAPS else coded


def _read_positions(bits: _Bits, header: _Header) -> np.ndarray:
    """Return the positions that the gaps lead to; all that is left is the quotients and padding."""
    remainders = bits.take(header.gaps * header.rice)
    # Before anything is unpacked: a row holds no more than this, however long the stream is.
    most = header.gaps + (header.length - header.gaps >> header.rice) + 7
    if bits.left > most:
        raise _error(f"{bits.left} bits are left for the quotients, the row has at most {most}")
    unary = bits.take(bits.left)
    if np.count_nonzero(unary) != header.gaps:
        raise _error(f"the quotients hold {np.count_nonzero(unary)} ones for {header.gaps} gaps")
    ones = np.flatnonzero(unary)
    padding = unary.size - (int(ones[-1]) + 1 if ones.size else 0)
    if padding >= 8:
        raise _error(f"{padding} bits of padding, must be less than 8")
    positions = golomb_rice.positions_of(golomb_rice.read(remainders, ones, header.rice))
    if header.gaps and positions[-1] >= header.length:
        raise _error(f"the gaps lead to entry {positions[-1]} of {header.length}")
    return positions


# -- the ANS code ----------------------------------------------------------------------------------


def _write_ans(symbols: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the coder's words as one number, lowest bit first, zeros up to `ans_bits`."""
    constriction = _constriction("encode")
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), _model(constriction, counts))
    words = coder.get_compressed().astype("<u4")
    size = int(layout.ans_bits(counts))
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return np.pad(bits, (0, max(size - bits.size, 0)))[:size]


def _read_ans(bits: _Bits, counts: np.ndarray) -> np.ndarray:
    """Return the symbols, int32; refuse what an encoder cannot have written."""
    constriction = _constriction("decode")
    packed = np.packbits(bits.take(int(layout.ans_bits(counts))), bitorder="little")
    words = np.pad(packed, (0, -packed.size % 4)).view("<u4").astype(np.uint32)
    used = np.flatnonzero(words)
    coder = constriction.stream.stack.AnsCoder(words[: used[-1] + 1 if used.size else 0])
    symbols = coder.decode(_model(constriction, counts), int(counts.sum()))
    if not coder.is_empty() or (np.bincount(symbols, minlength=counts.size) != counts).any():
        raise _error("the ANS code does not give symbols of the declared counts")
    return np.asarray(symbols)


def _model(constriction: Any, counts: np.ndarray) -> Any:
    return constriction.stream.model.Categorical(counts.astype(np.float64), perfect=False)


def _constriction(function: str) -> Any:
    try:
        return import_module("constriction")  # it has no types
    except ImportError:
        raise ImportError(
            f"{function}: the ANS code needs constriction; pip install 'jaxsplit-kernels[codec]'"
        ) from None
