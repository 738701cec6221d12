"""One contract for every channel model, and each model against its closed forms."""

import functools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxsplit.network import Network, as_arrays, run_network
from jaxsplit.scheduling import all_in
from jaxsplit.wireless import (
    correlated_normal,
    doppler_correlation,
    fading_channel,
    fixed_snr,
    gauss_markov,
    gauss_markov_fading,
    log_normal_shadowing,
    nakagami,
    nakagami_fading,
    no_fading,
    power_law,
    random_waypoint,
    rayleigh,
    rayleigh_fading,
    rician,
    rician_fading,
    shadowed,
    snr_density,
    trace,
    uma,
    umi,
    umi_path_loss,
    waypoint_walk,
)

DEVICES = 12
SAMPLES = 1_000_000
# Five standard errors: a correct model fails one such check in 1.7 million.
ERRORS = 5


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    lines = ["round,device,gain_linear"]
    lines += [f"{t},{n},{1e-9 * (t + 1) * (n + 1)}" for t in range(7) for n in range(DEVICES)]
    path.write_text("\n".join(lines))
    return path


def everything_moves():
    return fading_channel(waypoint_walk(), shadowed(umi_path_loss()), gauss_markov_fading())


MODELS = {
    "rayleigh": rayleigh,
    "rician": rician,
    "nakagami": nakagami,
    "gauss_markov": gauss_markov,
    "log_normal_shadowing": log_normal_shadowing,
    "random_waypoint": random_waypoint,
    "umi": umi,
    "uma": uma,
    "no_fading": lambda: fading_channel(small_scale=no_fading()),
    "everything_moves": everything_moves,
    "fixed_snr": fixed_snr,
}


@pytest.fixture(params=[*MODELS, "trace", "trace_random"])
def channel(request, trace_file):
    if request.param.startswith("trace"):
        return trace(trace_file, start="random" if "random" in request.param else "first")
    return MODELS[request.param]()


ROUNDS = 2
ROWS = 8  # runs per call: one compilation per channel serves all tests of the contract
TRACES = Counter()


def rollout(key, channel, params, scan=jax.lax.scan):
    """Final state and gains [ROUNDS, N], as the network draws them."""
    key_init, key_rounds = jax.random.split(key)
    state = channel.init(key_init, DEVICES, params)
    keys = jax.random.split(key_rounds, ROUNDS)
    return scan(lambda state, key: channel.sample(key, state, params), state, keys)


@functools.cache
def compiled(channel):
    def run(key, params):
        TRACES[channel] += 1
        return rollout(key, channel, params)

    # Little work and much code: what takes time here is the compiler.
    return jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0})


def run_rows(channel, seeds, sweep):
    """ROWS rollouts at once, each with a key and numbers of its own."""
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return compiled(channel)(keys, jax.tree.map(lambda *leaves: jnp.stack(leaves), *sweep))


def python_loop(step, state, keys):
    gains = []
    for key in keys:
        state, gain = step(state, key)
        gains.append(gain)
    return state, jnp.stack(gains)


def spec(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def assert_close(actual, expected, rtol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=0), actual, expected)


@pytest.mark.parametrize("typed", [False, True], ids=["python numbers", "arrays"])
def test_state_keeps_its_structure_and_gains_their_type(channel, typed):
    params = as_arrays(channel.params) if typed else channel.params
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: channel.init(key, DEVICES, params))
    after, gain = jax.eval_shape(lambda state: channel.sample(key, state, params), state)
    assert spec(after) == spec(state)
    assert gain.shape == (DEVICES,)
    assert gain.dtype == jnp.float32


def test_compiled_vmapped_scan_is_an_eager_loop(channel):
    params = as_arrays(channel.params)
    changed = jax.tree.map(lambda leaf: 0.9 * leaf, params)
    sweep = [params] * ROWS
    sweep[5] = changed
    states, gains = run_rows(channel, range(ROWS), sweep)
    assert gains.shape == (ROWS, ROUNDS, DEVICES)
    assert np.all((gains > 0) & np.isfinite(gains))
    eager = rollout(jax.random.key(5), channel, changed, python_loop)
    row = jax.tree.map(lambda leaf: leaf[5], (states, gains))
    # A gain is ten to the power of a sum of decibels: -150 of them, to a few ulp.
    assert_close(row, eager, 1e-4)


def test_a_sweep_over_any_number_is_one_trace(channel):
    leaves, tree = jax.tree.flatten(as_arrays(channel.params))
    for start in range(0, len(leaves), ROWS):
        sweep = [
            tree.unflatten(
                [0.9 * leaf if i == start + row else leaf for i, leaf in enumerate(leaves)]
            )
            for row in range(ROWS)
        ]
        assert np.all(np.isfinite(run_rows(channel, [3] * ROWS, sweep)[1]))
    assert TRACES[channel] == 1


def test_chance_comes_from_the_key_alone(channel, request):
    sweep = [as_arrays(channel.params)] * ROWS
    _, gains = run_rows(channel, (4, 0, 1, 2, 3, 4, 5, 6), sweep)
    _, again = run_rows(channel, range(ROWS), sweep)
    np.testing.assert_array_equal(gains[0], gains[5])  # both from seed 4, bit for bit,
    np.testing.assert_array_equal(gains[0], again[4])  # in another call and another row
    same = all(np.array_equal(gains[0], other) for other in gains[1:])
    model = request.node.callspec.id
    assert same == (model in ("fixed_snr", "trace"))
    still = np.array_equal(gains[:, 0], gains[:, 1])  # from round to round
    assert still == (model in ("fixed_snr", "no_fading"))


def test_network_runs_on_every_channel(channel):
    network = Network(DEVICES, channel, all_in())
    _, info = jax.eval_shape(
        lambda key: run_network(key, network, network.default_params(), 3), jax.random.key(0)
    )
    assert info.snr_hz.shape == (3, DEVICES)


def test_defaults_hash_and_factories_return_one_object(channel, trace_file):
    hash(channel)  # a static argument of jit
    for make in MODELS.values():
        assert make() is make()
    assert trace(trace_file) is trace(str(trace_file))


NUMBERS = [
    ("rician", "small_scale", "k_factor_db"),
    ("nakagami", "small_scale", "shape"),
    ("gauss_markov", "small_scale", "correlation"),
    ("log_normal_shadowing", "path_loss", "std_db"),
    ("everything_moves", "path_loss", "decorrelation_m"),
    ("random_waypoint", "placement", "speed_max_m_per_s"),
    ("random_waypoint", "placement", "round_s"),
    ("umi", "path_loss", "carrier_hz"),
    ("umi", "path_loss", "no_sight_std_db"),
    ("uma", "path_loss", "server_height_m"),
    ("uma", "path_loss", "device_height_m"),
    ("uma", "placement", "radius_m"),
]


@pytest.mark.parametrize(("model", "part", "name"), NUMBERS)
def test_numbers_matter(model, part, name):
    channel = MODELS[model]()
    base = as_arrays(channel.params)
    numbers = getattr(base, part)
    changed = base._replace(**{part: numbers._replace(**{name: 0.7 * getattr(numbers, name)})})
    _, gains = run_rows(channel, [6] * ROWS, [base, changed] * (ROWS // 2))
    assert not np.allclose(gains[0], gains[1], rtol=1e-3, atol=0)


def test_rayleigh_draws_what_it_always_drew():
    """Stored results rest on these bits: the key use must not change."""
    channel = rayleigh()
    state = channel.init(jax.random.key(11), 3, channel.params)
    _, gain = channel.sample(jax.random.key(12), state, channel.params)
    key_radius, key_angle = jax.random.split(jax.random.key(11))
    radius = 100.0 * jnp.sqrt(jax.random.uniform(key_radius, (3,)))
    angle = 2 * jnp.pi * jax.random.uniform(key_angle, (3,))
    place = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    distance = jnp.maximum(jnp.linalg.norm(place, axis=-1), 1.0) / 1.0
    mean_gain = 10 ** ((-30.0 - 10 * 3.0 * jnp.log10(distance)) / 10)
    np.testing.assert_array_equal(state.mean_gain, mean_gain)
    np.testing.assert_array_equal(
        gain, mean_gain * jax.random.exponential(jax.random.key(12), (3,))
    )


def test_a_composed_channel_is_the_product_of_its_parts():
    """Mean gain of the default composition over many devices: E[d^-3] over the disc."""
    channel = fading_channel(small_scale=no_fading())
    state = channel.init(jax.random.key(0), 1000, channel.params)
    _, gain = channel.sample(jax.random.key(1), state, channel.params)
    distance = np.linalg.norm(np.asarray(state.placement.position_m), axis=-1)
    np.testing.assert_allclose(gain, 1e-3 * np.maximum(distance, 1) ** -3.0, rtol=1e-4)
    # The same keys with fading: only the fading differs, and it has mean 1.
    faded = fading_channel()
    state = faded.init(jax.random.key(0), 1000, faded.params)
    _, faded_gain = faded.sample(jax.random.key(1), state, faded.params)
    fading = np.asarray(faded_gain) / np.asarray(gain)
    assert abs(fading.mean() - 1) < ERRORS / math.sqrt(1000)
    # ... and does not depend on the place.
    assert abs(np.corrcoef(fading, distance)[0, 1]) < ERRORS / math.sqrt(1000)


# --- small-scale fading against closed forms, 10^6 samples ---


def draw(fading, params=None, seed=0):
    params = fading.params if params is None else params
    state = fading.init(jax.random.key(seed), SAMPLES, params)
    _, gain = jax.jit(fading.sample)(jax.random.key(seed + 1), state, params)
    return np.asarray(gain, np.float64)


def check_law(sample, law):
    """Mean, variance and both tails against a scipy.stats law, to ERRORS standard errors."""
    mean, variance, _, kurtosis = law.stats(moments="mvsk")
    assert abs(sample.mean() - mean) < ERRORS * math.sqrt(variance / sample.size)
    fourth = (kurtosis + 3) * variance**2
    error = math.sqrt((fourth - variance**2) / sample.size)
    assert abs(sample.var() - variance) < ERRORS * error
    for share in (1e-4, 1e-3, 0.01, 0.1, 0.5):
        allowed = ERRORS * math.sqrt(share * (1 - share) / sample.size)
        assert abs((sample < law.ppf(share)).mean() - share) < allowed
        assert abs((sample > law.isf(share)).mean() - share) < allowed


def rician_law(k_factor_db):
    """2(K+1)g is noncentral chi-squared with 2 degrees of freedom and noncentrality 2K."""
    k = 10 ** (k_factor_db / 10)
    return stats.ncx2(2, 2 * k, scale=1 / (2 * (k + 1)))


def test_rayleigh_fading_is_exponential():
    check_law(draw(rayleigh_fading()), stats.expon())


@pytest.mark.parametrize("k_factor_db", [-10.0, 0.0, 9.0])
def test_rician_fading_is_noncentral_chi_squared(k_factor_db):
    fading = rician_fading()
    sample = draw(fading, fading.params._replace(k_factor_db=k_factor_db))
    check_law(sample, rician_law(k_factor_db))
    k = 10 ** (k_factor_db / 10)
    assert rician_law(k_factor_db).var() == pytest.approx((2 * k + 1) / (k + 1) ** 2)


def test_rician_fading_at_its_limits():
    fading = rician_fading()
    check_law(draw(fading, fading.params._replace(k_factor_db=-math.inf)), stats.expon())
    np.testing.assert_allclose(draw(fading, fading.params._replace(k_factor_db=math.inf)), 1)


@pytest.mark.parametrize("m", [0.5, 4.0])
def test_nakagami_fading_is_gamma(m):
    fading = nakagami_fading()
    check_law(draw(fading, fading.params._replace(shape=m)), stats.gamma(m, scale=1 / m))


@pytest.mark.parametrize(
    ("correlation", "k_factor_db"), [(0.9, -math.inf), (-0.4, -math.inf), (0.8, 3.0)]
)
def test_gauss_markov_keeps_its_law_and_its_correlation(correlation, k_factor_db):
    fading = gauss_markov_fading()
    params = fading.params._replace(correlation=correlation, k_factor_db=k_factor_db)
    state = fading.init(jax.random.key(0), SAMPLES, params)
    keys = jax.random.split(jax.random.key(1), 4)
    _, gains = jax.jit(
        lambda state: jax.lax.scan(lambda s, key: fading.sample(key, s, params), state, keys)
    )(state)
    gains = np.asarray(gains, np.float64)
    check_law(gains[0], rician_law(k_factor_db))
    check_law(gains[-1], rician_law(k_factor_db))
    k = 10 ** (k_factor_db / 10)
    z = (gains - 1) / math.sqrt((2 * k + 1) / (k + 1) ** 2)
    for lag in (1, 2, 3):
        product = z[0] * z[lag]
        expected = (2 * k * correlation**lag + correlation ** (2 * lag)) / (2 * k + 1)
        error = product.std() / math.sqrt(SAMPLES)
        assert abs(product.mean() - expected) < ERRORS * error


def test_gauss_markov_amplitude_is_an_ar1_process():
    """The complex amplitude itself: E[h_t h*_{t-k}] = ρ^k, one device over 10^5 rounds."""
    fading = gauss_markov_fading()
    rounds, rho = 100_000, 0.9

    def step(state, key):
        state, _ = fading.sample(key, state, fading.params)
        return state, state.scatter[0]

    state = fading.init(jax.random.key(2), 1, fading.params)
    keys = jax.random.split(jax.random.key(3), rounds)
    _, scatter = jax.jit(lambda state: jax.lax.scan(step, state, keys))(state)
    h = np.asarray(scatter, np.float64) @ np.array([1, 1j])
    for lag in (0, 1, 5):
        estimate = np.mean(h[lag:] * h[: rounds - lag].conj()).real
        # Bartlett: for a complex Gaussian process the estimate's variance is at most
        # Σ_j ρ^2|j| / T = (1 + ρ²)/(1 − ρ²)/T.
        error = math.sqrt((1 + rho**2) / (1 - rho**2) / rounds)
        assert abs(estimate - rho**lag) < ERRORS * error


def test_correlation_from_doppler():
    """At f_D T = 0.3827 = j_{0,1}/2π the amplitude has forgotten; standing still it has not."""
    speed = special.jn_zeros(0, 1)[0] / (2 * np.pi) * 299_792_458 / 1e9
    assert doppler_correlation(speed, 1e9, 1.0) == pytest.approx(0, abs=1e-9)
    assert doppler_correlation(0.0, 1e9, 1.0) == 1
    # J0(x) = 1 − x²/4 + x⁴/64 for small x; 1 m/s at 3 GHz over 1 ms: x = 2π · 0.0100069.
    x = 2 * np.pi * 3e9 / 299_792_458 * 1e-3
    assert doppler_correlation(1.0, 3e9, 1e-3) == pytest.approx(1 - x**2 / 4 + x**4 / 64, abs=1e-9)


# --- shadowing ---


def test_shadowing_is_normal_in_decibel():
    loss = shadowed(power_law())
    params = loss.params._replace(std_db=6.0)
    place = jnp.broadcast_to(jnp.array([30.0, 40.0]), (SAMPLES, 2))
    state = loss.init(jax.random.key(0), place, params)
    state, gain = jax.jit(loss.sample)(jax.random.key(1), state, place, params)
    clear_db = -30 - 30 * math.log10(50)
    check_law(10 * np.log10(np.asarray(gain, np.float64)) - clear_db, stats.norm(0, 6))
    _, later = jax.jit(loss.sample)(jax.random.key(2), state, place, params)
    np.testing.assert_array_equal(gain, later)  # nobody moved


def test_shadowing_forgets_with_distance():
    key_old, key_new = jax.random.split(jax.random.key(0))
    old = jax.random.normal(key_old, (SAMPLES,))
    for moved in (1.0, 20.0, 200.0):
        new = correlated_normal(key_new, old, jnp.full(SAMPLES, moved), 20.0)
        check_law(np.asarray(new, np.float64), stats.norm())
        rho = math.exp(-moved / 20)
        error = math.sqrt((1 + rho**2) / SAMPLES)
        assert abs(np.mean(np.asarray(old, np.float64) * np.asarray(new)) - rho) < ERRORS * error


# --- random waypoint ---


def second_moment_on_the_way():
    """E[ρ²] in the unit disc of a walk without pauses.

    The density at distance ρ is proportional to ∫₀^π a₁a₂(a₁ + a₂) dφ, a₁ and a₂ being the
    distances to the border along a line through the point at angle φ (Hyytiä, Lassila and
    Virtamo 2006). With a₁a₂ = 1 − ρ² and a₁ + a₂ = 2√(1 − ρ² cos²φ).
    """

    def density(rho):
        chord = integrate.quad(lambda phi: math.sqrt(1 - (rho * math.cos(phi)) ** 2), 0, math.pi)
        return rho * (1 - rho**2) * chord[0]

    total = integrate.quad(density, 0, 1)[0]
    return integrate.quad(lambda rho: rho**2 * density(rho), 0, 1)[0] / total


@jax.jit
def walk_long(params):
    """Positions of independent devices after many legs, and the farthest any device ever got."""
    walk = waypoint_walk()

    def step(state, key):
        state = walk.move(key, state, params)
        offset = state.position_m - jnp.stack(params.centre_m)[None]
        return state, jnp.linalg.norm(offset, axis=-1).max()

    state = walk.init(jax.random.key(0), 20_000, params)
    state, farthest = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 20))
    return state.position_m, farthest.max()


@pytest.mark.parametrize("pause_s", [0.0, 30.0])
def test_walkers_crowd_the_centre(pause_s):
    """The long-run law of (ρ/R)²: below the uniform 1/2, by as much as theory says."""
    params = waypoint_walk().params._replace(
        radius_m=50.0,
        centre_m=(10.0, -20.0),
        pause_s=pause_s,
        round_s=100.0,
        speed_min_m_per_s=1.0,
        speed_max_m_per_s=3.0,
    )
    position_m, farthest_m = walk_long(as_arrays(params))
    assert farthest_m <= 50 * (1 + 1e-5)
    offset = (np.asarray(position_m, np.float64) - np.array([10.0, -20.0])) / 50
    square = (offset**2).sum(axis=-1)
    on_the_way = second_moment_on_the_way()
    leg_s = 128 / (45 * math.pi) * 50 * math.log(3) / 2  # mean chord · E[1/v], v in U(1, 3)
    resting = pause_s / (pause_s + leg_s)
    expected = resting * 0.5 + (1 - resting) * on_the_way
    error = square.std() / math.sqrt(square.size)
    assert abs(square.mean() - expected) < ERRORS * error
    assert square.mean() < 0.5 - 20 * error
    # No direction is preferred.
    assert np.all(np.abs(offset.mean(axis=0)) < ERRORS * offset.std() / math.sqrt(len(offset)))


def test_speeds_are_uniform():
    walk = waypoint_walk()
    params = as_arrays(walk.params._replace(round_s=300.0, pause_s=0.0))
    # Speeds of legs are uniform; those seen at a moment, after a while, are not: a slow leg lasts
    # longer, so that a speed is seen in proportion to 1/v.
    state = walk.init(jax.random.key(0), 100_000, params)
    check_law(np.asarray(state.speed_m_per_s, np.float64), stats.uniform(0.5, 1.0))
    for seed in (1, 2, 3):
        state = walk.move(jax.random.key(seed), state, params)
    check_law(np.asarray(state.speed_m_per_s, np.float64), stats.loguniform(0.5, 1.5))


def test_a_leg_by_hand():
    walk = waypoint_walk()
    state = walk.init(jax.random.key(0), 1, walk.params)
    state = state._replace(
        position_m=jnp.array([[0.0, 0.0]]),
        waypoint_m=jnp.array([[30.0, 40.0]]),
        speed_m_per_s=jnp.array([2.0]),
        pause_s=jnp.array([3.0]),
    )
    params = walk.params._replace(round_s=8.0, pause_s=100.0)
    state = walk.move(jax.random.key(1), state, params)  # rests 3 s, walks 5 s · 2 m/s
    np.testing.assert_allclose(state.position_m, [[6.0, 8.0]], rtol=1e-6)
    assert state.pause_s == 0
    state = walk.move(jax.random.key(2), state, params._replace(round_s=25.0))
    np.testing.assert_array_equal(state.position_m, [[30.0, 40.0]])  # there after 20 s,
    np.testing.assert_allclose(state.pause_s, 95, rtol=1e-5)  # 5 s of the pause are over


def test_impossible_speeds_do_not_hang():
    walk = waypoint_walk()
    state = walk.init(jax.random.key(0), 2, walk.params)
    move = jax.jit(walk.move)
    for speed in (-1.0, 0.0, math.inf, math.nan):
        params = walk.params._replace(speed_min_m_per_s=speed, speed_max_m_per_s=speed, pause_s=0.0)
        wrong = state._replace(speed_m_per_s=jnp.full(2, speed))
        move(jax.random.key(1), wrong, as_arrays(params))


# --- fixed SNR ---


@pytest.mark.parametrize("snr_db", [17.0, [0.0, 10.0, 20.0]])
def test_fixed_snr_by_the_link(snr_db):
    channel = fixed_snr()
    params = channel.params._replace(
        snr_db=jnp.asarray(snr_db), bandwidth_hz=5e6, power_dbm=23.0, noise_dbm_per_hz=-170.0
    )
    state = channel.init(jax.random.key(0), 3, params)
    state, _ = channel.sample(jax.random.key(1), state, params)
    _, gain = channel.sample(jax.random.key(2), state, params)
    snr_hz = snr_density(gain, 23.0, -170.0)
    expected = np.broadcast_to(5e6 * 10 ** (np.asarray(snr_db) / 10), 3)
    np.testing.assert_allclose(snr_hz, expected, rtol=1e-5)


def test_fixed_snr_wants_one_value_per_device():
    channel = fixed_snr()
    params = channel.params._replace(snr_db=jnp.zeros(4))
    with pytest.raises(ValueError, match=r"snr_db has shape \(4,\): .* 3 devices, shape \(3,\)"):
        channel.init(jax.random.key(0), 3, params)
