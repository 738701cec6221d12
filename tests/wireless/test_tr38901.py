"""3GPP urban cells against TR 38.901, computed here by hand in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.wireless import (
    CellParams,
    uma_environment_height,
    uma_loss_db,
    uma_path_loss,
    uma_sight_probability,
    umi_loss_db,
    umi_path_loss,
    umi_sight_probability,
)

ERRORS = 5
MACRO = CellParams(server_height_m=25.0)

# (distance on the ground in m, carrier in GHz, with sight, without): Table 7.4.1-1 worked out on
# paper. h_BS = 10 m, h_UT = 1.5 m. Breakpoint 4 · 9 · 0.5 · f_c/c: 210 m at 3.5 GHz, 60 m at 1 GHz.
UMI_BY_HAND = [
    # d3D = 100.3606, log10 = 2.0015635; f: 20 log10 3.5 = 10.8813609, 21.3 log10 3.5 = 11.5886493
    # 32.4 + 42.0328 + 10.8814; 22.4 + 70.6552 + 11.5886
    (100.0, 3.5, 85.3142, 104.6438),
    # d3D = 500.0722, log10 = 2.6990328; bend 9.5 log10(210² + 72.25) = 9.5 · 4.6451502
    # 32.4 + 107.9613 + 10.8814 - 44.1289; 22.4 + 95.2759 + 11.5886
    (500.0, 3.5, 107.1138, 129.2645),
    # 32.4 + 80.0625 + 0 - 9.5 log10(60² + 72.25) = 9.5 · 3.5649322; 22.4 + 70.6552
    (100.0, 1.0, 78.5957, 93.0552),
]

# h_BS = 25 m, h_UT = 1.5 m, h_E = 1 m. Breakpoint 4 · 24 · 0.5 · f_c/c: 560 m at 3.5 GHz.
UMA_BY_HAND = [
    # d3D = 201.3759, log10 = 2.3040076: 28 + 50.6882 + 10.8814; 13.54 + 90.0406 + 10.8814
    (200.0, 3.5, 89.5695, 114.4620),
    # d3D = 1000.2761, log10 = 3.0001199; bend 9 log10(560² + 552.25) = 9 · 5.4971402
    # 28 + 120.0048 + 10.8814 - 49.4743; 13.54 + 117.2447 + 10.8814
    (1000.0, 3.5, 109.4119, 141.6660),
]


@pytest.mark.parametrize(("distance", "ghz", "sight", "none"), UMI_BY_HAND)
def test_umi_loss_by_hand(distance, ghz, sight, none):
    params = CellParams(carrier_hz=ghz * 1e9)
    np.testing.assert_allclose(umi_loss_db(jnp.float32(distance), params), [sight, none], atol=2e-3)


@pytest.mark.parametrize(("distance", "ghz", "sight", "none"), UMA_BY_HAND)
def test_uma_loss_by_hand(distance, ghz, sight, none):
    params = MACRO._replace(carrier_hz=ghz * 1e9)
    np.testing.assert_allclose(uma_loss_db(jnp.float32(distance), params), [sight, none], atol=2e-3)


def table_7_4_1_1(scenario, d, f_hz, h_bs, h_ut, h_e=1.0):
    """The table, line by line."""
    d3, ghz = math.hypot(d, h_bs - h_ut), f_hz / 1e9
    d_bp = 4 * (h_bs - h_e) * (h_ut - h_e) * f_hz / 3.0e8
    high = d_bp**2 + (h_bs - h_ut) ** 2
    if scenario == "umi":
        pl1 = 32.4 + 21 * math.log10(d3) + 20 * math.log10(ghz)
        pl2 = 32.4 + 40 * math.log10(d3) + 20 * math.log10(ghz) - 9.5 * math.log10(high)
        nlos = 35.3 * math.log10(d3) + 22.4 + 21.3 * math.log10(ghz) - 0.3 * (h_ut - 1.5)
    else:
        pl1 = 28.0 + 22 * math.log10(d3) + 20 * math.log10(ghz)
        pl2 = 28.0 + 40 * math.log10(d3) + 20 * math.log10(ghz) - 9 * math.log10(high)
        nlos = 13.54 + 39.08 * math.log10(d3) + 20 * math.log10(ghz) - 0.6 * (h_ut - 1.5)
    los = pl1 if d <= d_bp else pl2
    return los, max(los, nlos)


@pytest.mark.parametrize("carrier_hz", [0.5e9, 3.5e9, 28e9])
@pytest.mark.parametrize("height", [1.5, 8.0])
@pytest.mark.parametrize("scenario", ["umi", "uma"])
def test_loss_follows_the_table_everywhere(scenario, height, carrier_hz):
    distance = np.geomspace(10, 5000, 60).astype(np.float32)
    server = 10.0 if scenario == "umi" else 25.0
    params = CellParams(carrier_hz=carrier_hz, server_height_m=server, device_height_m=height)
    loss = (umi_loss_db if scenario == "umi" else uma_loss_db)(jnp.asarray(distance), params)
    expected = [table_7_4_1_1(scenario, float(d), carrier_hz, server, height) for d in distance]
    np.testing.assert_allclose(np.stack(loss, axis=-1), expected, atol=2e-3)
    assert np.all(loss[1] >= loss[0])


def test_loss_has_no_step_at_the_breakpoint():
    """PL1 and PL2 meet to 0.1 dB there for UMi (21 + 2 · 9.5 = 40); UMa likewise (22 + 18)."""
    for loss, params in ((umi_loss_db, CellParams()), (uma_loss_db, MACRO)):
        edge = 4 * (params.server_height_m - 1) * 0.5 * 3.5e9 / 3e8
        sight, _ = loss(jnp.array([0.9999, 1.0001]) * edge, params)
        assert abs(sight[1] - sight[0]) < 0.1


def test_closer_than_ten_metres_counts_as_ten():
    near, _ = umi_loss_db(jnp.array([0.0, 3.0, 10.0]), CellParams())
    np.testing.assert_array_equal(near[:2], near[2])


def test_sight_probability_by_hand():
    distance = jnp.array([1.0, 18.0, 100.0, 500.0])
    # UMi at 100 m: 0.18 + e^(-2.7778) · 0.82 = 0.18 + 0.0621765 · 0.82
    umi = [1.0, 1.0, 0.230985, 0.0360009]
    np.testing.assert_allclose(umi_sight_probability(distance), umi, rtol=1e-4)
    # UMa at 100 m: 0.18 + e^(-1.5873) · 0.82 = 0.18 + 0.2044768 · 0.82
    uma = [1.0, 1.0, 0.347671, 0.0363449]
    np.testing.assert_allclose(uma_sight_probability(distance, 1.5), uma, rtol=1e-4)
    np.testing.assert_allclose(uma_sight_probability(distance, 13.0), uma, rtol=1e-4)
    # h_UT = 23 m: C' = 1; at 100 m the factor is 1 + 1.25 e^(-2/3) = 1.641771
    high = uma_sight_probability(distance, 23.0)
    np.testing.assert_allclose(high[:3], [1.0, 1.0, 0.347671 * 1.641771], rtol=1e-4)
    everywhere = uma_sight_probability(jnp.geomspace(1.0, 5000.0, 500), 22.5)
    assert np.all((everywhere >= 0) & (everywhere <= 1))


def test_environment_height_of_high_devices():
    uniform = jnp.linspace(0, 1, 100_000, endpoint=False)
    far = jnp.full(100_000, 300.0)
    assert np.all(uma_environment_height(uniform, far, 12.9) == 1)
    assert np.all(uma_environment_height(uniform, jnp.full(100_000, 17.0), 22.5) == 1)
    height, count = np.unique(uma_environment_height(uniform, far, 22.5), return_counts=True)
    c = 0.95**1.5 * 1.25 * 27 * math.exp(-2)
    np.testing.assert_array_equal(height, [1, 12, 15, 18, 21])
    np.testing.assert_allclose(count / 1e5, [1 / (1 + c), *[c / (1 + c) / 4] * 4], atol=3e-5)


@pytest.mark.parametrize("scenario", ["umi", "uma"])
def test_cell_draws_sight_and_shadowing(scenario):
    """10^6 devices at one distance: a mixture of two normals in dB, with the standard's σ."""
    devices, distance = 1_000_000, 60.0
    if scenario == "umi":
        cell, sigma = umi_path_loss(), (4.0, 7.82)
        probability = 18 / distance + math.exp(-distance / 36) * (1 - 18 / distance)
        los, nlos = table_7_4_1_1("umi", distance, 3.5e9, 10.0, 1.5)
    else:
        cell, sigma = uma_path_loss(), (4.0, 6.0)
        probability = 18 / distance + math.exp(-distance / 63) * (1 - 18 / distance)
        los, nlos = table_7_4_1_1("uma", distance, 3.5e9, 25.0, 1.5)
    place = jnp.broadcast_to(jnp.array([36.0, 48.0]), (devices, 2))
    state = cell.init(jax.random.key(0), place, cell.params)
    sample = jax.jit(cell.sample)
    _, bare = sample(
        jax.random.key(1), state, place, cell.params._replace(sight_std_db=0.0, no_sight_std_db=0.0)
    )
    bare_db = -10 * np.log10(np.asarray(bare, np.float64))
    in_sight = np.abs(bare_db - los) < 2e-3
    assert np.all(in_sight | (np.abs(bare_db - nlos) < 2e-3))
    error = math.sqrt(probability * (1 - probability) / devices)
    assert abs(in_sight.mean() - probability) < ERRORS * error
    after, gain = sample(jax.random.key(1), state, place, cell.params)
    shadow_db = -10 * np.log10(np.asarray(gain, np.float64)) - bare_db
    for here, std in zip((in_sight, ~in_sight), sigma, strict=True):
        number = here.sum()
        assert abs(shadow_db[here].mean()) < ERRORS * std / math.sqrt(number)
        assert abs(shadow_db[here].std() - std) < ERRORS * std / math.sqrt(2 * number)
    _, later = sample(jax.random.key(2), after, place, cell.params)
    np.testing.assert_array_equal(gain, later)  # who stands still keeps his surroundings


def test_surroundings_change_with_the_way():
    cell = umi_path_loss()
    devices = 100_000
    place = jnp.broadcast_to(jnp.array([60.0, 0.0]), (devices, 2))
    state = cell.init(jax.random.key(0), place, cell.params)
    moved, _ = cell.sample(jax.random.key(1), state, place + jnp.array([[25.0, 0.0]]), cell.params)
    sight = np.corrcoef(state.sight, moved.sight)[0, 1]
    assert abs(sight - math.exp(-25 / 50)) < ERRORS / math.sqrt(devices)
    apart = np.corrcoef(moved.sight, moved.shadow)[0, 1]
    assert abs(apart) < ERRORS / math.sqrt(devices)
    shadow = np.corrcoef(state.shadow, moved.shadow)[0, 1]
    assert math.exp(-25 / 10) - 0.02 < shadow < math.exp(-25 / 13) + 0.02
