import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
from jaxsplit_kernels.bitstream import cases
from jaxsplit_kernels.bitstream.kernel import gap_quotients
from jaxsplit_kernels.bitstream.layout import RICE_PARAMETERS
from jaxsplit_kernels.compress import ref
from jaxsplit_kernels.compress.kernel import kept_per_row

SENT = {name: case for name, case in cases.CASES.items() if case.ratio}  # K is at least 1
KEY = jax.random.key(5)


def stages(key, case):
    x = cases.values(case)
    q = stochastic_quantize(key, x, topk_mask(x, case.kept), case.levels)
    return q, dequantize(q).astype(x.dtype), compressed_bits(q)


@pytest.mark.parametrize("name", SENT)
def test_equals_its_stages_and_the_real_stream(name):
    case = SENT[name]
    x_hat, bits = compress(KEY, cases.values(case), case.ratio, case.levels)
    q, expected, expected_bits = stages(KEY, case)
    assert x_hat.dtype == case.dtype
    np.testing.assert_array_equal(x_hat.astype(jnp.float32), expected.astype(jnp.float32))
    np.testing.assert_array_equal(bits, expected_bits)
    streams = encode(q)
    assert np.ravel(bits).tolist() == [8 * len(stream) for stream in streams]
    for stream, row in zip(streams, dequantize(q).reshape(len(streams), -1), strict=True):
        np.testing.assert_array_equal(decode(stream), row)


@pytest.mark.parametrize("name", ["batch", "odd_length", "E_1", "E_255", "one_dropped", "ties"])
def test_equals_the_reference(name):
    case = SENT[name]
    x = cases.values(case)
    x_hat, bits = compress(KEY, x, case.ratio, case.levels)
    uniform = np.asarray(counter_bits(key_words(KEY), x.shape)) / 2**32
    rows = [a.reshape(-1, case.shape[-1]) for a in (x, uniform, np.asarray(x_hat))]
    for row, u, values, count in zip(*rows, np.ravel(bits), strict=True):
        expected, expected_bits = ref.compress(row, case.ratio, case.levels, u)
        same = np.isclose(values, expected, rtol=1e-6, atol=0)
        # where float32 and float64 disagree on a rounding that hangs on its last digits
        assert (~same).sum() <= 1
        assert abs(count - expected_bits) <= 8 * (~same).sum()


@pytest.mark.parametrize("n", [1, 31, 127, 128, 129, 4095, 4096, 4097, 10_000])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.1, 0.5, 1.0])
def test_quotients_of_gaps(n, density):
    mask = np.random.default_rng(n).uniform(size=(3, n)) < density
    dropped = np.array([False, True, False])
    got = jax.jit(gap_quotients)(mask, dropped)
    for row, complement, sums in zip(mask, dropped, got, strict=True):
        gaps = np.diff(np.flatnonzero(row != complement), prepend=-1) - 1
        assert sums.tolist() == [int((gaps >> k).sum()) for k in range(RICE_PARAMETERS)]


def test_gradient_is_the_identity():
    x = cases.values(cases.Case((3, 100), 0.2, 7))
    weight = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)

    def loss(x):
        return (weight * compress(KEY, x, 0.2, 7)[0]).sum()

    np.testing.assert_array_equal(jax.grad(loss)(x), weight)
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(x), weight)
    np.testing.assert_array_equal(
        jax.jvp(lambda x: compress(KEY, x, 0.2, 7)[0], (x,), (weight,))[1], weight
    )
    # ratio, levels, the bits and the key have none, also as arguments that are traced

    def total(x, ratio):
        x_hat, bits = compress(KEY, x, ratio, 7)
        return x_hat.sum() + bits.sum().astype(jnp.float32)

    slope = jax.grad(total, argnums=(0, 1))(x, 0.2)
    np.testing.assert_array_equal(slope[0], np.ones_like(x))
    assert slope[1] == 0
    half = jnp.asarray(x, jnp.bfloat16)
    assert jax.grad(lambda x: compress(KEY, x, 0.2, 7)[0].sum())(half).dtype == jnp.bfloat16


def test_one_trace_for_a_sweep():
    traces = 0

    @jax.jit
    def f(ratio, levels):
        nonlocal traces
        traces += 1
        return compress(KEY, x, ratio, levels)

    case = cases.Case((2, 600), 0.5, 7)
    x = cases.values(case)
    for ratio, levels in ((0.5, 7), (0.1, 255), (1.0, 1)):
        x_hat, bits = f(ratio, levels)
        expected, expected_bits = compress(KEY, x, ratio, levels)
        np.testing.assert_array_equal(x_hat, expected)
        np.testing.assert_array_equal(bits, expected_bits)
    assert traces == 1


def test_vmap_over_devices_equals_a_loop():
    x = cases.values(cases.Case((4, 3, 200), 0.2, 7))
    keys = jax.random.split(KEY, 4)
    ratio, levels = np.float32([0.1, 0.2, 0.5, 1.0]), np.array([1, 7, 100, 255])
    x_hat, bits = jax.vmap(compress)(keys, x, ratio, levels)
    for i in range(4):
        expected, expected_bits = compress(keys[i], x[i], ratio[i], levels[i])
        np.testing.assert_array_equal(x_hat[i], expected)
        np.testing.assert_array_equal(bits[i], expected_bits)
    rows, row_bits = compress(KEY, x, ratio[:, None], levels[:, None])
    assert (np.asarray(rows != 0).sum(-1) == np.array([20, 40, 100, 200])[:, None]).all()
    assert row_bits.shape == (4, 3)


def test_mean_over_keys_is_the_kept_part():
    x = jax.random.normal(KEY, (300,))
    x_hat = jax.vmap(lambda key: compress(key, x, 0.5, 3)[0])(jax.random.split(KEY, 4000))
    kept = jnp.where(topk_mask(x, 150), x, 0)
    step = (jnp.abs(x).max() - jnp.abs(x[kept != 0]).min()) / 3
    assert jnp.abs(x_hat.mean(0) - kept).max() < 5 * step / 2 / math.sqrt(4000)


@pytest.mark.parametrize("n", [1, 5, 10, 15, 97, 151_296])
def test_kept_entries_are_rounded_half_up(n):
    traced = jax.jit(kept_per_row, static_argnums=1)
    for ratio, k in expected_kept(n):
        assert kept_per_row(ratio, (n,)) == k
        assert traced(ratio, (n,)) == k


def expected_kept(n):
    ratios = (1e-6, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0)
    return [(ratio, min(max(math.floor(ratio * n + 0.5), 1), n)) for ratio in ratios]


def test_as_many_entries_are_kept():
    n = 97
    x = np.linspace(1, 2, n, dtype=np.float32)
    traced = jax.jit(compress)
    for ratio, k in expected_kept(n):
        assert (compress(KEY, x, ratio, 7)[0] != 0).sum() == k
        assert (traced(KEY, x, ratio, 7)[0] != 0).sum() == k


def test_traced_arguments_are_clipped():
    x = cases.values(cases.Case((50,), 0.2, 7))
    f = jax.jit(compress)
    for outside, inside in (((-1.0, 7), (1e-9, 7)), ((2.0, 7), (1.0, 7)), ((0.5, 999), (0.5, 255))):
        np.testing.assert_array_equal(f(KEY, x, *outside)[0], f(KEY, x, *inside)[0])


@pytest.mark.parametrize(
    ("x", "ratio", "levels", "message"),
    [
        (np.arange(4), 0.2, 7, "x must have a floating dtype"),
        (np.ones((3, 0), np.float32), 0.2, 7, "x must have rows"),
        (np.float32(1), 0.2, 7, "x must have rows"),
        (np.ones(4, np.float32), 0.0, 7, r"ratio must be a float in \(0, 1\], got 0.0; pass 1.0"),
        (np.ones(4, np.float32), 1.1, 7, r"ratio must be a float in \(0, 1\], got 1.1"),
        (np.ones(4, np.float32), math.nan, 7, r"ratio must be a float in \(0, 1\], got nan"),
        (np.ones(4, np.float32), np.float32(2), 7, "ratio must be a float in"),
        (np.ones(4, np.float32), np.int32(1), 7, "ratio must be a float in"),
        (np.ones((2, 4), np.float32), np.float32([0.1] * 3), 7, "ratio must broadcast to shape"),
        (np.ones(4, np.float32), 0.2, 0, "levels must be from 1 to 255, got 0"),
        (np.ones(4, np.float32), 0.2, 2.0, "levels must be an integer"),
        (np.broadcast_to(np.float32(1), 2**26 + 1), 0.2, 7, "a row may have at most 2"),
    ],
)
def test_bad_input(x, ratio, levels, message):
    with pytest.raises(ValueError, match=f"^compress: {message}"):
        jax.eval_shape(lambda: compress(KEY, x, ratio, levels))


def test_bad_fields():
    q, _, _ = stages(KEY, cases.Case((2, 50), 0.2, 7))
    with pytest.raises(ValueError, match=r"^compressed_bits: q\.mask must be bool of shape"):
        compressed_bits(q._replace(mask=q.codes))


@pytest.mark.parametrize("jitted", [False, True])
def test_under_vmap_it_is_what_the_decoder_gets(jitted):
    """Levels shared by all rows: a division by them must not become another rounding."""
    x = jax.random.normal(jax.random.key(0), (3, 4, 200))
    keys = jax.random.split(jax.random.key(1), 3)

    def send(key, x):
        return compress(key, x, 0.2, 7)[0]

    batched = jax.vmap(send)
    x_hat = (jax.jit(batched) if jitted else batched)(keys, x)
    for key, rows, sent in zip(keys, x, x_hat, strict=True):
        streams = encode(stochastic_quantize(key, rows, topk_mask(rows, 40), 7))
        np.testing.assert_array_equal(np.stack([decode(stream) for stream in streams]), sent)
