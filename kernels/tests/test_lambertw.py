from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jaxsplit_kernels import lambertw, lambertw_exp, lambertwm1_negexp
from jaxsplit_kernels.lambertw import cases, ref

mpmath.mp.dps = 40
W0, WM1 = partial(lambertw, branch=0), partial(lambertw, branch=-1)
FAMILY = {
    "W0": (W0, (-0.36, -0.3, -1e-3, 1e-3, 0.7, 19.0, 21.0, 1e6)),
    "W-1": (WM1, (-0.36, -0.3, -0.2, -1e-3, -1e-20)),
    "exp": (lambertw_exp, (-30.0, -1.0, 0.5, 2.9, 3.1, 60.0, 1e4)),
    "negexp": (lambertwm1_negexp, (1e-6, 0.01, 0.5, 3.0, 200.0, 1e5)),
}
each_branch = pytest.mark.parametrize("branch", [0, -1])
each_member = pytest.mark.parametrize("name", FAMILY)


def ulps(got, truth):
    """Distance in units in the last place of got's format."""
    spacing = np.spacing(np.abs(truth).astype(got.dtype)).astype(np.float64)
    return np.abs(got.astype(np.float64) - truth) / spacing


def exact(z, branch):
    w = np.array([float(mpmath.lambertw(mpmath.mpf(float(a)), branch).real) for a in z])
    # The float nearest to -1/e lies outside the domain: the convention is -1.
    return np.where(z.astype(np.float64) <= -cases.INV_E, -1.0, w)


def jitted(function, x):
    return np.asarray(jax.jit(function)(jnp.asarray(x)))


@each_branch
def test_reference_equals_mpmath(branch):
    z = np.concatenate(
        [cases.domain(np.float32, branch, 1500), cases.next_to_branch_point(np.float32, 20)]
    )
    np.testing.assert_allclose(ref.lambertw(z, branch), exact(z, branch), rtol=1e-13)


@each_branch
def test_float32_within_4_ulp(branch):
    z = np.concatenate(
        [
            cases.domain(np.float32, branch, 1_000_000),
            cases.next_to_branch_point(np.float32, 2000),
        ]
    )
    assert ulps(jitted(partial(lambertw, branch=branch), z), ref.lambertw(z, branch)).max() <= 4


@each_branch
def test_float64_within_4_ulp(branch):
    z = np.concatenate(
        [cases.domain(np.float64, branch, 3000), cases.next_to_branch_point(np.float64, 200)]
    )
    with jax.enable_x64(True):
        got = jitted(partial(lambertw, branch=branch), z)
    assert got.dtype == np.float64
    assert ulps(got, exact(z, branch)).max() <= 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_branch
def test_edges(branch, dtype):
    z, w = np.array(cases.EDGES[branch]).astype(dtype).T
    point = np.asarray(-cases.INV_E, dtype)
    with jax.enable_x64(dtype == "float64"):
        function = jax.jit(partial(lambertw, branch=branch))
        np.testing.assert_array_equal(function(jnp.asarray(z)), w)
        assert function(jnp.asarray(point)) == -1
        assert np.isnan(function(jnp.asarray(np.nextafter(point, np.asarray(-1, dtype)))))
        slope = jax.grad(function)
        assert slope(jnp.asarray(point)) == (np.inf if branch == 0 else -np.inf)


def test_slope_at_the_ends_of_the_domain():
    assert jax.grad(W0)(0.0) == 1
    assert jax.grad(W0)(jnp.inf) == 0
    assert jax.grad(jax.grad(W0))(0.0) == -2
    assert jax.grad(WM1)(-0.0) == jax.grad(WM1)(0.0) == -jnp.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_branch
def test_jvp_equals_the_implicit_formula(branch, dtype):
    z = np.concatenate(
        [cases.domain(dtype, branch, 20_000), cases.next_to_branch_point(dtype, 50)[1:]]
    )
    if branch == -1:
        z = z[np.abs(z) > 10 * np.finfo(dtype).tiny]  # W' ~ 1/z would overflow
    with jax.enable_x64(dtype == np.float64):
        function = partial(lambertw, branch=branch)
        slope = jitted(lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1], z)
    # In float64 the reference's own exp(-W) errs by |W| ulp.
    expected = ref.derivative(z, branch)
    normal = np.abs(expected) >= np.finfo(dtype).tiny
    np.testing.assert_allclose(slope[normal], expected[normal], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_branch
def test_second_derivative(branch, dtype):
    z = np.concatenate(
        [cases.next_to_branch_point(dtype, 30)[1:], np.linspace(-0.367, -0.01, 200).astype(dtype)]
    )
    if branch == 0:
        z = np.concatenate([z, np.linspace(0, 30, 100).astype(dtype)])
    with jax.enable_x64(dtype == np.float64):
        second = jitted(jax.vmap(jax.grad(jax.grad(partial(lambertw, branch=branch)))), z)
    slope, w = ref.derivative(z, branch), ref.lambertw(z, branch)
    # The two terms of W'' = -W'^2 (1 + 1 / (1 + W)) cancel at W = -2: the error is theirs.
    reciprocal = slope * np.exp(w)
    expected = -(slope**2) * (1 + reciprocal)
    assert (np.abs(second - expected) <= 1e-5 * slope**2 * (1 + np.abs(reciprocal))).all()


def test_exp_and_negexp_within_4_ulp():
    x = np.concatenate([np.linspace(-80, 8, 800), np.geomspace(8, 1e30, 700)]).astype(np.float32)
    u = np.concatenate([[0.0], np.geomspace(1e-37, 1e30, 1500)]).astype(np.float32)
    tiny = np.geomspace(1e-300, 1e-40, 50)

    def omega(a):
        a = mpmath.mpf(float(a))
        if a < 3:
            return float(mpmath.lambertw(mpmath.exp(a)).real)
        return float(mpmath.findroot(lambda w: w + mpmath.log(w) - a, a - mpmath.log(a)))

    def below(a):
        a = mpmath.mpf(float(a))
        root = mpmath.sqrt(2 * a)
        if a < 1e-12:
            return float(-1 - root - root**2 / 3 - root**3 / 36)
        start = root + root**2 / 3 if a < 1 else a + mpmath.log(2 + a)
        return float(-1 - mpmath.findroot(lambda v: v - mpmath.log1p(v) - a, start))

    omega_x, below_u = np.array([omega(a) for a in x]), np.array([below(a) for a in u])
    assert ulps(jitted(lambertw_exp, x), omega_x).max() <= 4
    assert ulps(jitted(lambertwm1_negexp, u), below_u).max() <= 4
    with jax.enable_x64(True):
        assert ulps(jitted(lambertw_exp, x.astype(np.float64)), omega_x).max() <= 4
        assert ulps(jitted(lambertwm1_negexp, u.astype(np.float64)), below_u).max() <= 4
        slope = jitted(jax.vmap(jax.grad(lambertwm1_negexp)), tiny)
    np.testing.assert_allclose(slope, -1 / np.sqrt(2 * tiny), rtol=1e-12)


def test_exp_and_negexp_edges():
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(lambertw_exp(jnp.array([inf, -inf, nan])), [inf, 0, nan])
    np.testing.assert_array_equal(
        lambertwm1_negexp(jnp.array([0.0, inf, -1.0, nan])), [-1, -inf, nan, nan]
    )
    slopes = jax.vmap(jax.grad(lambertw_exp))(jnp.array([inf, -inf, 1.0]))
    np.testing.assert_allclose(slopes, [1, 0, 0.5])
    slopes = jax.vmap(jax.grad(lambertwm1_negexp))(jnp.array([0.0, inf]))
    np.testing.assert_array_equal(slopes, [-inf, -1])


# -- the contract of the family --------------------------------------------------------------------


@each_member
def test_jit_vmap_and_loop_agree(name):
    function, points = FAMILY[name]
    x = jnp.array(points, jnp.float32)
    eager = np.asarray(function(x))
    np.testing.assert_array_equal(eager, jax.jit(function)(x))
    np.testing.assert_array_equal(eager, jax.vmap(function)(x))
    np.testing.assert_array_max_ulp(eager, np.array([function(a) for a in x]), maxulp=1)
    assert function(x[:, None, None]).shape == (len(points), 1, 1)
    assert function(x[:0]).shape == (0,)


@each_member
def test_gradients_equal_finite_differences(name):
    function, points = FAMILY[name]
    with jax.enable_x64(True):
        for a in points:
            step = 1e-5 * (cases.INV_E + a if a < 0 and name in ("W0", "W-1") else abs(a))
            step = min(step, abs(a) * 1e-5)
            for order in (function, jax.grad(function)):
                slope = (order(a + step) - order(a - step)) / (2 * step)
                np.testing.assert_allclose(jax.grad(order)(a), slope, rtol=1e-5)
            forward = jax.jvp(function, (a,), (1.0,))[1]
            np.testing.assert_allclose(forward, jax.grad(function)(a), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@each_member
def test_dtype_is_kept(name, dtype):
    function, points = FAMILY[name]
    x = jnp.array(points[1:4], dtype)
    assert function(x).dtype == x.dtype
    assert jax.vmap(jax.grad(function))(x).dtype == x.dtype
    wide = function(x.astype(jnp.float32)).astype(dtype)
    np.testing.assert_array_equal(function(x).astype(jnp.float32), wide.astype(jnp.float32))


def test_branch_point_of_float16_is_its_nearest_float():
    point = np.float16(-cases.INV_E)
    assert W0(jnp.asarray(point)) == -1
    assert np.isnan(W0(jnp.asarray(np.nextafter(point, np.float16(-1)))))


@each_member
def test_one_trace_per_shape(name):
    function, points = FAMILY[name]
    traces = []

    @jax.jit
    def counted(x):
        traces.append(x.shape)
        return function(x)

    x = jnp.array(points, jnp.float32)
    for y in (x, x + 0, x[:2], x[1:3], jnp.full_like(x, jnp.nan)):
        counted(y)
    assert traces == [x.shape, (2,)]


@each_member
def test_nan_of_one_element_stays_there(name):
    function, points = FAMILY[name]
    x = jnp.array((*points, jnp.nan), jnp.float32)
    value, slope = jax.vmap(jax.value_and_grad(function))(x)
    assert np.isfinite(value[:-1]).all()
    assert np.isfinite(slope[:-1]).all()
    assert np.isnan(value[-1])
    assert np.isnan(slope[-1])


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", [1, -2, 0.5, None])
def test_other_branches_are_refused(branch):
    with pytest.raises(ValueError, match="branch must be 0 or -1"):
        lambertw(1.0, branch)


@each_member
@pytest.mark.parametrize("x", [1, np.arange(3), np.array([True]), np.array([1 + 1j], np.complex64)])
def test_only_real_floats_are_accepted(name, x):
    function, _ = FAMILY[name]
    with pytest.raises(ValueError, match=r"(z|x|u) must (be real|have a floating dtype).*pass"):
        jax.jit(function)(x)
