import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxsplit_kernels import topk_mask
from jaxsplit_kernels.bitstream import cases
from jaxsplit_kernels.topk import ref


def test_reference_by_hand():
    x = np.array([2.0, -3.0, np.nan, 2.0, -0.0, np.inf, -2.0])
    for k, kept in ((0, []), (1, [2]), (2, [2, 5]), (4, [0, 1, 2, 5]), (5, [0, 1, 2, 3, 5])):
        assert np.flatnonzero(ref.topk_mask(x, k)).tolist() == kept


@pytest.mark.parametrize("name", cases.CASES)
def test_equals_reference(name):
    case = cases.CASES[name]
    x = cases.values(case)
    np.testing.assert_array_equal(topk_mask(x, case.kept), ref.topk_mask(x, case.kept))


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 256, 1000])
@pytest.mark.parametrize("distribution", ["gaussian", "ties", "zeros", "constant"])
def test_every_k(n, distribution):
    x = cases.values(cases.Case((n,), 1.0, 7, distribution=distribution))
    k = np.unique(np.linspace(0, n, 60).astype(int))
    rows = np.broadcast_to(x, (k.size, n))
    mask = topk_mask(rows, k)
    np.testing.assert_array_equal(mask, ref.topk_mask(rows, k))
    np.testing.assert_array_equal(mask.sum(-1), k)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jax.random.normal(jax.random.key(0), (3, 500), dtype)
        # patterns that differ in the last bits only
        x = x.at[:, :9].set(3 + jnp.finfo(dtype).eps * jnp.arange(9, dtype=dtype))
        for k in (1, 3, 9, 100):
            expected = ref.topk_mask(np.asarray(x, np.float64), k)
            np.testing.assert_array_equal(topk_mask(x, k), expected)


def test_extremes_of_the_format():
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([0.0, tiny, -2 * tiny, huge, -np.inf, np.nan, 1.0], np.float32)
    for k in range(8):
        np.testing.assert_array_equal(topk_mask(x, k), ref.topk_mask(x, k))


def test_one_trace_for_every_k():
    traces = 0

    @jax.jit
    def f(x, k):
        nonlocal traces
        traces += 1
        return topk_mask(x, k)

    x = np.linspace(-1, 1, 64, dtype=np.float32)
    assert [int(f(x, k).sum()) for k in (0, 1, 20, 64)] == [0, 1, 20, 64]
    assert traces == 1


def test_traced_k_is_clipped():
    x = np.arange(5, dtype=np.float32)
    f = jax.jit(topk_mask)
    assert [int(f(x, k).sum()) for k in (-3, 2, 9)] == [0, 2, 5]


def test_vmap_equals_rows():
    x = cases.values(cases.Case((4, 3, 200), 0.2, 7, distribution="ties"))
    k = np.array([3, 0, 50, 200])
    expected = ref.topk_mask(x, k[:, None])
    np.testing.assert_array_equal(jax.vmap(topk_mask)(x, k), expected)
    np.testing.assert_array_equal(topk_mask(x, k[:, None]), expected)
    swapped = jax.vmap(topk_mask, in_axes=(1, None))(np.swapaxes(x, 0, 1), 7)
    np.testing.assert_array_equal(swapped, ref.topk_mask(x, 7))


def test_no_gradient_through_the_mask():
    x = cases.values(cases.Case((50,), 0.2, 7))
    gradient = jax.grad(lambda x: jnp.where(topk_mask(x, 10), x, 0).sum())(x)
    np.testing.assert_array_equal(gradient, ref.topk_mask(x, 10))


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (np.arange(4), 2, "x must have a floating dtype"),
        (np.ones(4, np.complex64), 2, "x must be real"),
        (np.float32(1), 1, "x must have rows .* got shape \\(\\)"),
        (np.ones((3, 0), np.float32), 0, "x must have rows .* got shape \\(3, 0\\)"),
        (np.ones(4, np.float32), 5, "k must be from 0 to the row length 4, got 5; pass min"),
        (np.ones(4, np.float32), -1, "k must be from 0"),
        (np.ones((2, 4), np.float32), np.array([1, 5]), "k must be from 0 to the row length 4"),
        (np.ones(4, np.float32), 0.5, "k must be an integer, got 0.5"),
        (np.ones((2, 4), np.float32), np.array([1, 2, 3]), r"k must broadcast to shape \(2,\)"),
    ],
)
def test_bad_input(x, k, message):
    with pytest.raises(ValueError, match=f"^topk_mask: {message}"):
        topk_mask(x, k)
