import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jaxsplit_kernels import bandwidth_for_rate
from jaxsplit_kernels.bandwidth import cases, ref

POINTS = ((1e6, 3e6), (1e3, 1e9), (5e5, 3.6e5), (2.0, 30.0), (1e-3, 1e9))


def exact(rate, snr_hz):
    """Equation (25) as printed, in 80 digits."""
    with mpmath.workdps(80):
        bits = mpmath.mpf(float(rate)) * mpmath.log(2)
        c = bits / mpmath.mpf(float(snr_hz))
        return float(-bits / (c + mpmath.lambertw(-c * mpmath.exp(-c), -1).real))


def test_reference_equals_mpmath():
    rate, snr_hz = cases.feasible(np.float32, 1000)
    truth = np.array([exact(*point) for point in zip(rate, snr_hz, strict=True)])
    np.testing.assert_allclose(ref.bandwidth_for_rate(rate, snr_hz), truth, rtol=1e-8)


def test_float32_under_jit():
    rate, snr_hz = cases.feasible(np.float32, 1_000_000)
    got = jax.jit(bandwidth_for_rate)(rate, snr_hz)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, ref.bandwidth_for_rate(rate, snr_hz), rtol=2e-6)


def test_float64_under_jit():
    rate, snr_hz = cases.feasible(np.float64, 1000)
    truth = np.array([exact(*point) for point in zip(rate, snr_hz, strict=True)])
    with jax.enable_x64(True):
        got = jax.jit(bandwidth_for_rate)(rate, snr_hz)
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, truth, rtol=2e-15)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scales_of_units_do_not_matter(scale):
    rate, snr_hz = (np.array(a, np.float32) for a in zip(*POINTS, strict=True))
    rate, snr_hz = rate * np.float32(scale), snr_hz * np.float32(scale)
    np.testing.assert_allclose(
        bandwidth_for_rate(rate, snr_hz), ref.bandwidth_for_rate(rate, snr_hz), rtol=2e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges(dtype):
    rate, snr_hz, bandwidth = np.array(cases.EDGES, dtype).T
    with jax.enable_x64(dtype == "float64"):
        np.testing.assert_array_equal(jax.jit(bandwidth_for_rate)(rate, snr_hz), bandwidth)


def test_the_rate_comes_back():
    rate, snr_hz = cases.feasible(np.float64, 10_000)
    with jax.enable_x64(True):
        b = np.asarray(bandwidth_for_rate(rate, snr_hz))
    np.testing.assert_allclose(b * np.log1p(snr_hz / b) / np.log(2), rate, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_equal_the_closed_form(dtype):
    rate, snr_hz = cases.feasible(np.dtype(dtype).type, 1000)
    rate, snr_hz = rate[rate / snr_hz > 1e-9], snr_hz[rate / snr_hz > 1e-9]
    with jax.enable_x64(dtype == "float64"):
        slopes = jax.jit(jax.vmap(jax.grad(bandwidth_for_rate, argnums=(0, 1))))(rate, snr_hz)
    for k in range(0, rate.size, 10):
        with mpmath.workdps(60):
            b = mpmath.mpf(exact(rate[k], snr_hz[k]))
            v = mpmath.log1p(mpmath.mpf(float(snr_hz[k])) / b)
            curvature = v - 1 + mpmath.exp(-v)
            expected = (mpmath.log(2) / curvature, -mpmath.exp(-v) / curvature)
        for slope, truth in zip(slopes, expected, strict=True):
            assert float(slope[k]) == pytest.approx(float(truth), rel=1e-5)


def test_gradients_equal_finite_differences_twice():
    with jax.enable_x64(True):
        for point in POINTS:
            for argnum in (0, 1):
                first = jax.grad(bandwidth_for_rate, argnums=argnum)
                for order in (bandwidth_for_rate, first):
                    slope = jax.grad(order, argnums=argnum)(*point)
                    h = 1e-5 * point[argnum]
                    low, high = list(point), list(point)
                    low[argnum] -= h
                    high[argnum] += h
                    expected = (order(*high) - order(*low)) / (2 * h)
                    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_gradients_at_the_edges():
    assert jax.grad(bandwidth_for_rate)(0.0, 1e6) == 0
    assert jax.grad(bandwidth_for_rate, argnums=1)(0.0, 1e6) == 0
    assert jax.grad(bandwidth_for_rate)(1e7, 1e6) == jnp.inf


def test_jit_vmap_and_loop_agree():
    rate, snr_hz = (jnp.array(a, jnp.float32) for a in zip(*POINTS, strict=True))
    eager = np.asarray(bandwidth_for_rate(rate, snr_hz))
    np.testing.assert_array_equal(eager, jax.jit(bandwidth_for_rate)(rate, snr_hz))
    np.testing.assert_array_equal(eager, jax.vmap(bandwidth_for_rate)(rate, snr_hz))
    loop = np.array([bandwidth_for_rate(y, s) for y, s in zip(rate, snr_hz, strict=True)])
    np.testing.assert_array_max_ulp(eager, loop, maxulp=1)


def test_broadcasts_and_keeps_the_dtype():
    snr_hz = jnp.array([[1e6, 2e6, 3e6]], jnp.float32)
    assert bandwidth_for_rate(1e5, snr_hz).shape == (1, 3)
    assert bandwidth_for_rate(jnp.array([1e5, 2e5], jnp.float32)[:, None], snr_hz).shape == (2, 3)
    assert bandwidth_for_rate(jnp.full(3, 1e5, jnp.float32), snr_hz).shape == (1, 3)
    assert jax.vmap(bandwidth_for_rate, (None, 0))(1e5, snr_hz[0]).shape == (3,)
    half = bandwidth_for_rate(jnp.array(2.0, jnp.bfloat16), jnp.array(30.0, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_one_trace_per_shape():
    traces = []

    @jax.jit
    def counted(rate, snr_hz):
        traces.append(snr_hz.shape)
        return bandwidth_for_rate(rate, snr_hz)

    snr_hz = jnp.array([1e6, 2e6], jnp.float32)
    for rate in (1e5, 2e5, jnp.nan):
        counted(rate, snr_hz)
    assert traces == [(2,)]


@pytest.mark.parametrize(("rate", "snr_hz", "name"), [(1, 2.0, "rate"), (1.0, 2, "snr_hz")])
def test_integers_are_refused(rate, snr_hz, name):
    with pytest.raises(ValueError, match=rf"{name} must have a floating dtype.*pass"):
        bandwidth_for_rate(rate, snr_hz)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        bandwidth_for_rate(jnp.ones(2), jnp.ones(3))
