import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxsplit_kernels import Quantized, dequantize, stochastic_quantize, topk_mask
from jaxsplit_kernels._random import counter_bits, key_words
from jaxsplit_kernels.bitstream import cases
from jaxsplit_kernels.quantize import ref

FINITE = [
    name for name, case in cases.CASES.items() if case.distribution not in ("nan", "infinite")
]


def quantized(case, key=0):
    x = cases.values(case)
    mask = topk_mask(x, case.kept)
    return x, mask, stochastic_quantize(jax.random.key(key), x, mask, case.levels)


@pytest.mark.parametrize("name", FINITE)
def test_equals_reference(name):
    case = cases.CASES[name]
    x, _, q = quantized(case, key=3)
    n = case.shape[-1]
    bits = counter_bits(key_words(jax.random.key(3)), case.shape)
    uniform = np.asarray(bits).astype(np.float64).reshape(-1, n) / 2**32
    x = np.asarray(x, np.float32).reshape(-1, n)
    if case.distribution in ("subnormal", "around_tiny"):  # XLA flushes subnormal numbers
        x = np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)
    fields = (np.asarray(f).reshape(-1, *f.shape[len(case.shape) - 1 :]) for f in q)
    values = np.asarray(dequantize(q)).reshape(-1, n)
    for i, (codes, sign, kept, low, high, levels) in enumerate(zip(*fields, strict=True)):
        expected, rises = ref.stochastic_quantize(x[i], kept, case.levels, uniform[i])
        # float32 errs by less than levels * 1e-6 in the probability to go up
        clear = np.abs(rises - uniform[i]) > 1e-6 * case.levels
        same = (codes == expected) | (np.minimum(rises, 1 - rises) < 1e-6 * case.levels)
        assert same[clear].all()
        assert np.mean(codes == expected) > 0.99
        assert levels == case.levels
        np.testing.assert_array_equal(sign, np.where(kept, np.where(np.signbit(x[i]), -1, 1), 0))
        truth = ref.dequantize(codes, sign, kept, low, high, case.levels)
        np.testing.assert_allclose(
            values[i], truth, rtol=3e-7, atol=np.finfo(np.float32).tiny, strict=False
        )


@pytest.mark.parametrize("name", FINITE)
def test_grid_points_stay(name):
    _, mask, q = quantized(cases.CASES[name])
    again = stochastic_quantize(jax.random.key(9), dequantize(q), mask, cases.CASES[name].levels)
    np.testing.assert_array_equal(again.codes, q.codes)
    np.testing.assert_array_equal(dequantize(again), dequantize(q))


@pytest.mark.parametrize("levels", [1, 2, 7, 100, 255])
@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1.0, 1e38])
def test_unbiased(levels, scale):
    draws = 4000
    x = scale * jax.random.uniform(jax.random.key(1), (200,), minval=-1, maxval=1)
    mask = jnp.abs(x) > 0.3 * scale
    keys = jax.random.split(jax.random.key(2), draws)
    values = jax.vmap(lambda key: dequantize(stochastic_quantize(key, x, mask, levels)))(keys)
    values = np.asarray(values, np.float64) / scale
    error = values.mean(0) - np.where(mask, np.asarray(x, np.float64) / scale, 0)
    step = (np.abs(x[mask]).max() - np.abs(x[mask]).min()) / scale / levels
    # 200 entries, each a mean of variance at most step^2 / 4: five standard deviations
    assert np.abs(error).max() < 5 * step / 2 / np.sqrt(draws) + 3e-7
    assert np.abs(error.mean()) < 5 * step / 2 / np.sqrt(draws * 200) + 3e-7
    assert (np.abs(values - np.asarray(x) / scale)[:, mask] <= step * (1 + 1e-5)).all()


def test_rounding_of_neighbours_and_keys_is_independent():
    """The 2 x 2 table of two roundings, for neighbours, distant entries, and neighbouring keys."""
    n = 1 << 20
    bits = np.stack(
        [counter_bits(jnp.array([k, 7], jnp.uint32), (n,)) for k in (5, 6, 5 ^ 1 << 31)]
    )
    bits = np.concatenate(
        [bits, np.asarray(counter_bits(jnp.array([5, 8], jnp.uint32), (n,)))[None]]
    )
    for p in (0.5, 0.1):
        up = bits < p * 2**32
        sigma = p * (1 - p) / np.sqrt(n)
        assert np.abs(up.mean(-1) - p).max() < 5 * np.sqrt(p * (1 - p) / n)
        for a, b in ((0, 1), (0, 2), (0, 3), (1, 2)):
            assert abs(np.mean((up[a] - p) * (up[b] - p))) < 5 * sigma
        for lag in (1, 2, 3, 64, 192, 768, 1024, 4096):
            assert abs(np.mean((up[0, lag:] - p) * (up[0, :-lag] - p))) < 5 * sigma


def test_every_bit_of_the_hash_is_fair_and_each_input_bit_reaches_it():
    words = jnp.array([123, 456], jnp.uint32)
    n = 1 << 16
    bits = np.asarray(counter_bits(words, (n,)))
    ones = [(bits >> j & 1).mean() for j in range(32)]
    np.testing.assert_allclose(ones, 0.5, atol=5 / 2 / np.sqrt(n))
    for flip in range(16):  # of the position
        changed = bits ^ bits[np.arange(n) ^ 1 << flip]
        flips = [(changed >> j & 1).mean() for j in range(32)]
        np.testing.assert_allclose(flips, 0.5, atol=5 / np.sqrt(2 * n))


def test_bits_are_uniform():
    histogram = np.bincount(
        np.asarray(counter_bits(jnp.array([1, 2], jnp.uint32), (100, 10_000))).ravel() >> 22,
        minlength=1024,
    )
    expected = 1e6 / 1024
    chi2 = ((histogram - expected) ** 2 / expected).sum()
    assert abs(chi2 - 1023) < 5 * np.sqrt(2 * 1023)


def test_all_levels_occur():
    x = jnp.linspace(-1, 1, 5001)
    q = stochastic_quantize(jax.random.key(0), x, jnp.ones(5001, bool), 255)
    assert np.unique(q.codes).tolist() == list(range(256))


def test_rows_that_are_not_finite_come_out_as_nan():
    for name in ("nan", "infinite"):
        _, mask, q = quantized(cases.CASES[name])
        assert np.isnan(dequantize(q)[mask]).all()
        np.testing.assert_array_equal(dequantize(q)[~mask], 0)
        assert np.isnan(q.low).all()
        assert np.isnan(q.high).all()
        assert (np.asarray(q.codes) == 0).all()


def test_rows_without_range():
    x = jnp.array([[0.7, -0.7, 0.7, 0.1], [1.0, 2.0, 3.0, 4.0], [0.0, -0.0, 0.0, 0.0]])
    mask = jnp.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    q = stochastic_quantize(jax.random.key(0), x, mask, 7)
    np.testing.assert_array_equal(q.codes, 0)
    np.testing.assert_array_equal(q.low, np.float32([0.7, 0, 0]))
    np.testing.assert_array_equal(q.high, q.low)
    np.testing.assert_array_equal(dequantize(q), np.where(mask, x, 0))


def test_one_trace_for_every_level_and_levels_per_row():
    traces = 0

    @jax.jit
    def f(levels):
        nonlocal traces
        traces += 1
        return stochastic_quantize(jax.random.key(0), x, mask, levels)

    x = cases.values(cases.Case((3, 500), 0.5, 7))
    mask = topk_mask(x, 250)
    levels = (1, 7, 255)
    single = [f(np.int32(e)) for e in levels]
    assert traces == 1
    assert [int(q.codes.max()) for q in single] == list(levels)
    assert [int(f(np.int32(e)).levels[0]) for e in (-5, 0, 300)] == [1, 1, 255]
    together = stochastic_quantize(jax.random.key(0), x, mask, np.array(levels))
    for i, q in enumerate(single):
        np.testing.assert_array_equal(together.codes[i], q.codes[i])


def test_jit_vmap_and_dtypes():
    x = cases.values(cases.Case((3, 400), 0.5, 7))
    mask = topk_mask(x, 100)
    keys = jax.random.split(jax.random.key(0), 3)
    rows = jax.jit(jax.vmap(stochastic_quantize, in_axes=(0, 0, 0, None)), static_argnums=3)(
        keys, x, mask, 7
    )
    for i in range(3):
        jax.tree.map(
            np.testing.assert_array_equal,
            Quantized(*(field[i] for field in rows)),
            stochastic_quantize(keys[i], x[i], mask[i], 7),
        )
    half = jnp.asarray(x, jnp.bfloat16)
    jax.tree.map(
        np.testing.assert_array_equal,
        stochastic_quantize(keys[0], half, mask, 7),
        stochastic_quantize(keys[0], half.astype(jnp.float32), mask, 7),
    )


def test_old_and_new_keys_of_any_implementation():
    x, mask = jnp.linspace(0.1, 1, 50), jnp.ones(50, bool)
    for key in (jax.random.PRNGKey(0), jax.random.key(0), jax.random.key(0, impl="rbg")):
        assert stochastic_quantize(key, x, mask, 7).codes.shape == (50,)


X, M = np.ones((2, 4), np.float32), np.ones((2, 4), bool)


@pytest.mark.parametrize(
    ("x", "mask", "levels", "message"),
    [
        (np.arange(4), M[0], 7, "x must have a floating dtype"),
        (np.ones((3, 0), np.float32), True, 7, "x must have rows"),
        (X, M, 0, "levels must be from 1 to 255, got 0"),
        (X, M, 256, "levels must be from 1 to 255, got 256; for b bits"),
        (X, M, 3.0, "levels must be an integer"),
        (X, M, np.array([1, 2, 3]), r"levels must broadcast to shape \(2,\)"),
        (X, M.astype(np.int32), 7, "mask must be boolean, got int32; pass topk_mask"),
        (X, M[:, :3], 7, r"mask must broadcast to shape \(2, 4\), got shape \(2, 3\)"),
    ],
)
def test_bad_input(x, mask, levels, message):
    with pytest.raises(ValueError, match=f"^stochastic_quantize: {message}"):
        stochastic_quantize(jax.random.key(0), x, mask, levels)


def test_bad_fields():
    q = stochastic_quantize(jax.random.key(0), X, M, 7)
    with pytest.raises(ValueError, match=r"^dequantize: q\.codes must be uint8 of shape"):
        dequantize(q._replace(codes=q.codes.astype(jnp.int32)))
    with pytest.raises(ValueError, match=r"^dequantize: q.low must be float32 of shape \(2,\)"):
        dequantize(q._replace(low=q.low[:1]))


def test_concrete_arguments_are_checked_under_jit_too():
    with pytest.raises(ValueError, match="levels must be from 1 to 255, got 0"):
        jax.jit(lambda x: stochastic_quantize(jax.random.key(0), x, M, 0))(X)
    with pytest.raises(ValueError, match="k must be from 0 to the row length 4, got 5"):
        jax.jit(lambda x: topk_mask(x, 5))(X)
