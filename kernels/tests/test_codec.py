import struct
import subprocess
import sys
import tracemalloc
import zlib
from itertools import pairwise

import constriction
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxsplit_kernels import Quantized, compressed_bits, dequantize, stochastic_quantize
from jaxsplit_kernels.bitstream import golomb_rice, layout, ref
from jaxsplit_kernels.bitstream.cases import CASES, Case, values
from jaxsplit_kernels.bitstream.codec import StreamError, decode, encode
from jaxsplit_kernels.topk.ref import topk_mask

HEADER = "<BBBBIIff"
FIELDS = ("magic", "version", "levels", "modes", "n", "kept", "low", "high")
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def quantized(x, kept, levels, seed=0):
    mask = jnp.asarray(topk_mask(x, kept))
    q = stochastic_quantize(jax.random.key(seed), jnp.asarray(x), mask, jnp.asarray(levels))
    return q, np.asarray(dequantize(q))


def by_row(q):
    """The fields of every row, in NumPy."""
    fields = [np.asarray(f) for f in q]
    n = fields[0].shape[-1]
    flat = [f.reshape(-1, n) for f in fields[:3]] + [f.reshape(-1) for f in fields[3:]]
    return [Quantized(*row) for row in zip(*flat, strict=True)]


def one_row(codes, mask, levels, low=0.5, high=2.0, sign=None):
    mask, codes = np.asarray(mask, bool), np.asarray(codes)
    sign = np.where(np.arange(mask.size) % 3 == 0, -1, 1) if sign is None else np.asarray(sign)
    return Quantized(
        np.where(mask, codes, 0).astype(np.uint8),
        np.where(mask, sign, 0).astype(np.int8),
        mask,
        np.float32(low),
        np.float32(high),
        np.int32(levels),
    )


def assert_same_bits(got, expected):
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


# -- what is written is what is counted and what is read -------------------------------------------


@each_case
def test_length_is_the_counted_number_of_bits(case):
    q, _ = quantized(values(case), case.kept, case.levels)
    for stream, row in zip(encode(q), by_row(q), strict=True):
        n, kept = row.mask.size, row.mask.sum()
        coded = row.mask if 2 * kept <= n else ~row.mask
        gaps = np.diff(np.flatnonzero(coded), prepend=-1) - 1
        bits = layout.stream_bits(
            n,
            np.int32(kept),
            np.array([(gaps // 2**k).sum() for k in range(layout.RICE_PARAMETERS)], np.int32),
            np.bincount(row.codes[row.mask], minlength=256).astype(np.int32),
            row.levels,
        )
        assert 8 * len(stream) == bits
        assert 8 * len(stream) == ref.stream_bits(row.codes, row.mask, int(row.levels))


@each_case
def test_bit_by_bit_reader_finds_the_row(case):
    q, _ = quantized(values(case), case.kept, case.levels)
    for stream, row in zip(encode(q), by_row(q), strict=True):
        read = ref.read(stream)
        for name in Quantized._fields:
            np.testing.assert_array_equal(getattr(read, name), getattr(row, name), name)


@each_case
def test_decode_equals_dequantize(case):
    q, expected = quantized(values(case), case.kept, case.levels)
    streams = encode(q)
    assert len(streams) == np.prod(case.shape[:-1])
    for stream, row in zip(streams, expected.reshape(-1, case.shape[-1]), strict=True):
        assert_same_bits(decode(stream), row)


def test_random_rows_survive():
    rows = 0

    @settings(max_examples=90, deadline=None, derandomize=True, database=None)
    @given(
        shape=st.sampled_from([(300, 1), (200, 24), (150, 129), (100, 256), (50, 1000)]),
        dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
        distribution=st.sampled_from(
            ["gaussian", "uniform", "laplace", "heavy_tails", "constant", "zeros", "mostly_zeros",
             "ties", "subnormal", "around_tiny", "huge", "first_half_large"]
        ),
        scale=st.sampled_from([1.0, 1e-3, 1e-7, 1e-30, 1e-37, 1e-44, 1e30]),
        seed=st.integers(0, 2**32 - 1),
    )  # fmt: skip
    def survive(shape, dtype, distribution, scale, seed):
        nonlocal rows
        rng = np.random.default_rng(seed)
        count, n = shape
        with np.errstate(over="ignore"):
            x = values(Case(shape, 1.0, 1, "float32", distribution), seed) * np.float32(scale)
            x = x.astype(jnp.dtype(dtype))
        kept = np.round(n * rng.choice([0, 0.01, 0.1, 0.2, 0.5, 0.9, 1, rng.uniform()], count))
        levels = rng.choice([1, 3, 7, 15, 255, rng.integers(1, 256)], count).astype(np.int32)
        q, expected = quantized(x, kept, levels, seed)
        for stream, row in zip(encode(q), expected, strict=True):
            assert_same_bits(decode(stream), row)
            rows += 1

    survive()
    assert rows >= 10_000


def test_range_with_subnormal_and_extreme_ends():
    """Hand-made ranges, which only dequantize and decode ever see."""
    tiny, largest_float = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    ends = np.array(
        [0, 1e-45, 1e-39, 0.999999 * tiny, tiny, np.nextafter(tiny, np.float32(1)), 1.5 * tiny,
         1e-37, 2.0**-20 * (1 - 2.0**-24), 2.0**-20, 2.0**-19, 1, 3e38, largest_float],
        np.float32,
    )  # fmt: skip
    for levels in (1, 3, 7, 10, 254, 255):
        codes = np.arange(levels + 1)
        for i, low in enumerate(ends):
            for high in ends[i:]:
                q = one_row(codes, np.ones(levels + 1), levels, low, high)
                assert_same_bits(decode(encode(q)[0]), np.asarray(dequantize(q)))


def test_bits_of_the_ans_code_are_enough():
    """In any order of the symbols: the first word fills at a rate that depends on it."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        levels, kept = int(rng.choice([1, 2, 3, 7, 15, 255])), int(10 ** rng.uniform(0, 4))
        p = rng.dirichlet(np.full(levels + 1, 10 ** rng.uniform(-2, 1)))
        codes = rng.choice(levels + 1, kept, p=p).astype(np.int32)
        counts = np.bincount(codes, minlength=levels + 1).astype(np.int32)
        bits = layout.ans_bits(counts)
        assert bits == ref.ans_bits(counts.tolist())
        model = constriction.stream.model.Categorical(counts.astype(float), perfect=False)
        for order in (codes, np.sort(codes), -np.sort(-codes)):
            coder = constriction.stream.stack.AnsCoder()
            coder.encode_reverse(order, model)
            words = coder.get_compressed()
            used = 32 * (words.size - 1) + int(words[-1]).bit_length() if words.size else 0
            assert used <= bits


def test_levels_are_raw_where_ans_saves_nothing():
    # ANS with one level of two takes 33 bits, its loss, and 11 for the count
    for kept, mode in [(44, 0), (48, layout.ANS_LEVELS)]:
        (stream,) = encode(one_row(np.zeros(200), np.arange(200) < kept, 1))
        assert stream[3] & layout.ANS_LEVELS == mode


def test_the_mask_is_coded_by_ans_where_it_saves_bits():
    rng = np.random.default_rng(0)
    (scattered,) = encode(one_row(np.zeros(5000), rng.random(5000) < 0.382, 1))
    (one_block,) = encode(one_row(np.zeros(5000), np.arange(5000) < 0.382 * 5000, 1))
    assert scattered[3] & ~layout.ANS_LEVELS == layout.ANS_MASK
    assert one_block[3] & layout.ANS_MASK == 0
    assert len(scattered) > len(one_block)


def test_codes_and_signs_of_dropped_entries_do_not_matter():
    rng = np.random.default_rng(0)
    q = one_row(rng.integers(0, 4, 200), rng.uniform(size=200) < 0.3, 3)
    noise = rng.integers(0, 256, 200)
    dirty = q._replace(
        codes=np.where(q.mask, q.codes, noise).astype(np.uint8),
        sign=np.where(q.mask, q.sign, 5).astype(np.int8),
    )
    assert encode(q) == encode(dirty)
    assert compressed_bits(jax.tree.map(jnp.asarray, dirty)) == 8 * len(encode(q)[0])
    assert not encode(q._replace(**{name: getattr(q, name)[None][:0] for name in q._fields}))


# The format of version 1, for ever: what these say must never change.
GOLDEN_RAW = "4a0104012d0000000b0000000000803e0000704024883310662fff555550c3430539"
GOLDEN_ANS = (
    "4a010362f4010000ad0100006f12833a00007a4401a20254095094a42529094a42529094a4252909"
    "4a42529094a42529094a42529094a42529094a42529094a42529094a42529094a42529094a425235"
    "24f139539cb88653c4fe609ea63f49196c1b838fc32571f2d4b38000e924d377ead74c758415e467"
    "6aaf369b891f65f0a96bf589fd5fdd37f0778135d6aa7cd396a2ef03f90116c48e531ecc5f981430"
    "68003aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa830f2"
    "5d33"
)
GOLDEN_ANS_MASK = (
    "4a0101c0dc050000470200000000803f000000400047b904991260258b424090aa45a95aa08129a1"
    "a488465552d0b49111954a5a0d14925540002a445a168483009849284d6b2c2d2492b49009013049"
    "2426aa5a02d141a49a168ad45a1248bae74badda1bd4e2b9b9dff0a000072f042f78af157eef8759"
    "671b52ba910133af82651bf1ce6662f2311f6ed2335042aac9393df012c1c5d55274e0b0e8815a69"
    "293b65115e087ced16cd8a1cf04e1d7f9118fa63cdf147b3a8c4b7a9e2fcdd529eb2f57a17fb9413"
    "908a269500866a09d53e904fd5e537b6bae17f8510c011e51d719cbb94f93a1fd91b97d6b591f097"
    "e143b46fb419d90fbf6218c1c339b79668aa6a5d4d6065a5642f257dc0ef177c99e7a8dbbbfa5280"
    "359c383045acec0cedfbbae4ff800000f792a19e"
)


def golden_rows():
    i, j = np.arange(500), np.arange(1500)
    return {
        "raw": (one_row(i[:45] * 7 % 5, i[:45] % 4 == 1, 4, 0.25, 3.75), GOLDEN_RAW),
        "ans": (one_row(i * i % 103 // 40, i % 7 != 3, 3, 1e-3, 1e3), GOLDEN_ANS),
        "ans_mask": (
            one_row(j % 97 == 0, (7919 * j + 104729 * j * j) % 1000003 % 1000 < 382, 1, 1, 2),
            GOLDEN_ANS_MASK,
        ),
    }


@pytest.mark.parametrize(("name", "mode"), [("raw", 0), ("ans", 0x60), ("ans_mask", 0xC0)])
def test_golden_streams(name, mode):
    q, text = golden_rows()[name]
    stream = bytes.fromhex(text)
    assert encode(q) == [stream]
    assert_same_bits(decode(stream), np.asarray(dequantize(q)))
    assert stream[3] & 0xE0 == mode


# -- how short the streams are ---------------------------------------------------------------------


def entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return -(counts[counts > 0] * np.log2(p)).sum()


def drawn(rng, distribution, n, ratio, levels):
    x = {
        "gaussian": rng.standard_normal,
        "uniform": rng.random,
        "laplace": rng.standard_exponential,
        "heavy_tails": lambda n: rng.standard_t(1.5, n),
    }[distribution](n)
    a, mask = np.abs(x), topk_mask(x, int(ratio * n + 0.5))
    low, high = a[mask].min(), a[mask].max()
    codes = np.floor((a - low) / (high - low) * levels + rng.uniform(size=n)).clip(0, levels)
    return one_row(codes, mask, levels, low, high, sign=np.where(rng.random(n) < 0.5, 1, -1))


@pytest.mark.parametrize("distribution", ["gaussian", "uniform", "laplace", "heavy_tails"])
@pytest.mark.parametrize("n", [4096, 16384, 65536])
def test_length_is_near_the_entropy(n, distribution):
    """Entropy of mask, signs and levels, with the header and the table of counts.

    What a stream may have above it: 33 bits for the start of each ANS code and 0.0075 bits per
    symbol, or the loss of the Golomb-Rice code, and a byte of padding.
    """
    rng = np.random.default_rng(0)
    for ratio in (0.01, 0.05, 0.1, 0.2, 0.214, 0.382, 0.5, 0.618, 0.9, 1.0):
        for levels in (1, 3, 7, 15, 255):
            q = drawn(rng, distribution, n, ratio, levels)
            (stream,) = encode(q)
            kept = int(q.mask.sum())
            least = (
                entropy(np.array([kept, n - kept]))
                + kept
                + entropy(np.bincount(q.codes[q.mask]))
                + 8 * (layout.HEADER.size + layout.CRC.size)
                + golomb_rice.write_gamma(
                    np.bincount(q.codes[q.mask], minlength=levels + 1)[:-1]
                ).size
            )
            # 20 of the 33 bits: rows of 4096 may keep 41 entries
            assert 8 * len(stream) <= 1.03 * least + (20 if n == 4096 else 0), (ratio, levels)


# -- damaged and forged streams --------------------------------------------------------------------


def with_crc(body):
    return body + struct.pack("<I", zlib.crc32(body))


def forged(stream, **fields):
    """The stream with other fields in its header, or another body, and the right CRC."""
    body = fields.pop("body", stream[20:-4])
    header = dict(zip(FIELDS, struct.unpack(HEADER, stream[:20]), strict=True)) | fields
    return with_crc(struct.pack(HEADER, *header.values()) + body)


def corpus():
    """Short streams of every mode."""
    rng = np.random.default_rng(0)
    rows = [
        one_row(rng.integers(0, levels + 1, n) * (rng.random(n) < skew), rng.random(n) < p, levels)
        for n, p, levels, skew in [
            (1, 1, 1, 1), (9, 0.5, 7, 1), (100, 0.1, 7, 1), (100, 0.9, 7, 1), (300, 0.6, 1, 0.1),
            (300, 0.3, 3, 0.1), (200, 1, 7, 0.05), (500, 0.4, 15, 0.3), (1000, 0.05, 255, 1),
            (1000, 0.7, 5, 0.5),
        ]
    ]  # fmt: skip
    empty = one_row(np.zeros(50), np.zeros(50), 7, 0, 0)
    streams = [encode(q)[0] for q in [*rows, empty]]
    streams.append(bytes.fromhex(GOLDEN_ANS_MASK))
    assert {s[3] & 0xE0 for s in streams} == {0, 0x20, 0x40, 0x60, 0xC0}
    return streams


def damage(rng, streams, stream):
    """One of the ways in which bytes go wrong."""
    data = bytearray(stream)
    match rng.integers(6):
        case 0:
            for bit in rng.integers(0, 8 * len(data), rng.integers(1, 9)):
                data[bit // 8] ^= 1 << bit % 8
        case 1:
            i, j = rng.integers(0, len(data), 2)
            data[i], data[j] = data[j], data[i]
        case 2:
            del data[rng.integers(len(data)) :]
        case 3:
            data += rng.bytes(rng.integers(1, 40)) if rng.integers(2) else bytes(rng.integers(1, 9))
        case 4:
            other = streams[rng.integers(len(streams))]
            data = data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
        case 5:
            i = rng.integers(len(data))
            data[i : i + 4] = rng.bytes(4)
    return bytes(data)


def test_damaged_streams_are_refused():
    rng, streams, refused = np.random.default_rng(1), corpus(), 0
    genuine = set(streams)
    while refused < 60_000:
        stream = damage(rng, streams, streams[refused % len(streams)])
        if stream not in genuine:
            with pytest.raises(StreamError):
                decode(stream)
            refused += 1


def test_forged_streams_are_refused_or_decoded():
    rng, streams, messages, rows = np.random.default_rng(2), corpus(), set(), 0
    for i in range(42_000):
        body = streams[i % len(streams)][:-4]
        if i % 3 == 0 and len(body) > 20:
            # The header stays good, so that the sections are reached.
            body = body[:20] + damage(rng, [s[20:-4] for s in streams if len(s) > 24], body[20:])
        elif i % 3 == 1:
            name = FIELDS[rng.integers(2, 8)]
            value = rng.integers(256) if name in ("levels", "modes") else 2 ** rng.integers(32)
            body = forged(body + bytes(4), **{name: value})[:-4]
        else:
            body = damage(rng, [s[:-4] for s in streams], body)
        try:
            row = decode(with_crc(body), max_elements=2000)
        except StreamError as error:
            messages.add(str(error))
        else:
            assert row.dtype == np.float32
            assert row.ndim == 1
            assert 1 <= row.size <= 2000
            rows += 1
    assert not any("\n" in message for message in messages)
    assert rows > 1000
    assert len({"".join(c for c in m if not c.isdigit())[:25] for m in messages}) > 15


RAW = encode(one_row(np.arange(20) % 6, np.arange(20) % 3 == 0, 5))[0]  # K = 7
ANS = encode(one_row(np.arange(400) % 29 == 0, np.arange(400) % 3 == 0, 1))[0]  # K = 134


def of_bits(text, n=2):
    """One of n entries is kept, E = 5, k = 0: sign, code and quotient."""
    bits = [int(b) for b in text.replace(" ", "")]
    return forged(RAW, n=n, kept=1, modes=0, body=np.packbits(bits).tobytes())


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "at least 24 bytes, got 0"),
        (RAW[:-1], "CRC-32"),
        (RAW + b"\0", "CRC-32"),
        (forged(RAW, magic=0x4B), "first byte must be 0x4a, got 0x4b"),
        (forged(RAW, version=2), "version must be 1, got 2"),
        (forged(RAW, levels=0), "levels must be from 1 to 255, got 0"),
        (forged(RAW, modes=0x81), "modes 0x81 do not fit"),
        (forged(RAW, modes=0xA0), "modes 0xa0 do not fit"),
        (forged(RAW, modes=0x80), "cannot hold 7 kept of 20"),
        (forged(RAW, n=0, kept=0), "from 1 to 67108864 entries, got 0"),
        (forged(RAW, n=2**26 + 1), "from 1 to 67108864 entries, got 67108865"),
        (forged(RAW, kept=21), "21 of 20 entries"),
        (forged(RAW, low=3.0), "no range"),
        (forged(RAW, low=-1.0), "no range"),
        (forged(RAW, low=-0.0), "no range"),
        (forged(RAW, high=float("inf")), "no range"),
        (forged(RAW, high=float("nan")), "no range"),
        (forged(RAW, low=float("nan")), "no range"),
        (forged(RAW, kept=0), "no range of 0"),
        (forged(RAW, kept=0, low=float("nan"), high=float("nan")), "no range of 0"),
        (forged(RAW, modes=0x20), "do not fit 7 kept of 20"),
        (forged(RAW, kept=11), "do not fit 11 kept of 20"),
        (forged(RAW, modes=26), "Rice parameter must be less than 26, got 26"),
        (forged(RAW, modes=0x40, kept=0, low=0, high=0), "ANS code of no levels"),
        (forged(RAW, body=b""), "cannot hold 7 kept"),
        (forged(RAW, modes=25), "cannot hold 7 kept"),
        (forged(ANS, body=ANS[20:24]), "cannot hold 134 kept"),
        (forged(ANS, body=b"\x02\x20" + ANS[22:54]), "125 bits are left where a section takes 167"),
        (forged(ANS, body=b"\x00\x80\x80" + ANS[23:-4]), "counts of the levels exceed the 134"),
        (forged(ANS, body=bytes(4) + ANS[24:-4]), "count begins with more than 26 zeros"),
        (forged(ANS, body=ANS[20:45] + b"\x55" + ANS[46:-4]), "declared counts"),
        (forged(ANS, body=ANS[20:-14] + bytes(10)), "ones for 134 gaps"),
        (of_bits("0 110 1"), "code is 6, must be at"),
        (of_bits("0 101 001"), "lead to entry 2 of 2"),
        (of_bits("0 101 0000"), "0 ones for 1 gaps"),
        (of_bits("0 101 1001"), "2 ones for 1 gaps"),
        (of_bits(24 * "0"), "20 bits are left.*at most 9"),
        (of_bits("0 101 0001 00000000", n=9), "8 bits of padding"),
    ],
)  # fmt: skip
def test_messages_of_decode(stream, message):
    with pytest.raises(StreamError, match=message) as error:
        decode(stream)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("decode: ")


def test_only_bytes_are_decoded():
    with pytest.raises(TypeError, match=r"must be bytes, got list; pass one stream"):
        decode(encode(golden_rows()["raw"][0]))
    for kind in (bytearray, memoryview):
        np.testing.assert_array_equal(decode(kind(RAW)), decode(RAW))


def peak_bytes(stream, **options):
    tracemalloc.start()
    try:
        with pytest.raises(StreamError):
            decode(stream, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_max_elements_holds_before_anything_is_allocated():
    with pytest.raises(StreamError, match="20 entries, more than max_elements = 19"):
        decode(RAW, max_elements=19)
    assert decode(RAW, max_elements=20).size == 20
    large = forged(RAW, n=2**26, kept=1, modes=25, low=1, high=1)
    assert peak_bytes(large, max_elements=2**26 - 1) < 50_000
    # Too few bytes for what the header claims, within max_elements.
    for modes, kept in [(0, 2**25), (0x20, 2**26), (0x20, 2**26 - 1), (0x40, 2**25), (0x60, 2**26)]:
        assert peak_bytes(forged(RAW, n=2**26, kept=kept, modes=modes)) < 50_000
    # A long stream of a short row, all ones: no multiple of its length for nothing.
    assert peak_bytes(forged(RAW, body=b"\xff" * 10**6)) < 50_000


def test_memory_is_a_small_multiple_of_stream_and_row():
    rng = np.random.default_rng(0)
    for p, levels in [(0.01, 7), (0.5, 7), (0.5, 1), (1.0, 255)]:
        q = one_row(rng.integers(0, levels + 1, 10**6), rng.random(10**6) < p, levels)
        (stream,) = encode(q)
        tracemalloc.start()
        row = decode(stream)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 16 * len(stream) + 12 * row.nbytes


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": np.full(8, 4, np.uint8)}, r"codes must be at most levels = 3, got 4 in row 0"),
        ({"sign": np.zeros(8, np.int8)}, "sign must be -1 or \\+1 where an entry is kept, got 0"),
        ({"sign": np.full(8, -128, np.int8)}, "sign must be -1 or \\+1"),
        ({"levels": np.int32(0)}, "levels must be from 1 to 255, got 0 in row 0; take"),
        ({"levels": np.int32(256)}, "levels must be from 1 to 255, got 256"),
        ({"low": np.float32(3)}, "low and high must satisfy.*got 3.0 and 2.0 in row 0"),
        ({"high": np.float32(np.inf)}, "low and high must satisfy"),
        ({"high": np.float32(np.nan)}, "low and high must satisfy"),
        ({"low": np.float32(-1)}, "low and high must satisfy"),
        ({"mask": np.zeros(8, bool)}, "both be 0 where nothing is kept"),
        ({"codes": np.zeros(8, np.int32)}, "encode: q.codes must be uint8"),
        ({"low": np.zeros(1, np.float32)}, "encode: q.low must be float32 of shape"),
    ],
)
def test_messages_of_encode(fields, message):
    q = one_row(np.arange(8) % 4, np.ones(8), 3)
    with pytest.raises(ValueError, match=message) as error:
        encode(q._replace(**fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("n", [0, 2**26 + 1])
def test_rows_have_1_to_2_to_the_26_entries(n):
    codes = np.broadcast_to(np.uint8(0), (1, n))  # without memory
    ends = np.zeros(1, np.float32)
    q = Quantized(codes, codes.view(np.int8), codes.view(bool), ends, ends, np.ones(1, np.int32))
    with pytest.raises(ValueError, match=f"from 1 to 67108864 entries, got {n}; split"):
        encode(q)


def test_traced_rows_are_refused():
    q = jax.tree.map(jnp.asarray, one_row(np.arange(8) % 4, np.ones(8), 3))
    with pytest.raises(ValueError, match="concrete arrays, got traced ones; call encode outside"):
        jax.jit(encode)(q)


def test_constriction_is_needed_by_the_ans_code_only(monkeypatch):
    q = golden_rows()
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert decode(encode(q["raw"][0])[0]).size == 45
    for call in (lambda: encode(q["ans"][0]), lambda: decode(bytes.fromhex(GOLDEN_ANS))):
        with pytest.raises(ImportError, match=r"pip install 'jaxsplit-kernels\[codec\]'"):
            call()


def test_import_does_not_load_constriction():
    code = "import sys, jaxsplit_kernels.bitstream.codec; print('constriction' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "False"


def test_cases_are_few_and_differ():
    assert len(CASES) <= 32
    cases = sorted(map(str, CASES.values()))
    assert all(a != b for a, b in pairwise(cases))
