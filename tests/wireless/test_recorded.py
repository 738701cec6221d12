"""Recorded channels: both file forms, the replay, and one clear line per fault."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from jaxsplit.wireless import read_trace, trace

GAIN = np.array([[1e-9, 2e-9], [3e-9, 4e-9], [5e-9, 6e-9]])


def netcdf(path, gain=GAIN, units="1", dims=("round", "device"), name="gain", rounds=None):
    data = xr.DataArray(gain, dims=dims, name=name)
    if units is not None:
        data = data.assign_attrs(units=units)
    if rounds is not None:
        data = data.assign_coords(round=rounds)
    data.to_dataset().to_netcdf(path, engine="h5netcdf")
    return path


def csv(path, *lines, header="round,device,gain_linear"):
    path.write_text("\n".join([header, *lines]))
    return path


ROWS = [f"{t},{n},{GAIN[t, n]}" for t in range(3) for n in range(2)]


def test_every_form_holds_the_same_gains(tmp_path):
    decibel = 10 * np.log10(GAIN)
    lines = [f"{t},{n},{decibel[t, n]}" for t in range(3) for n in range(2)]
    files = [
        netcdf(tmp_path / "a.nc"),
        netcdf(tmp_path / "b.nc", decibel, "dB"),
        netcdf(tmp_path / "c.nc", GAIN.T, dims=("device", "round"), rounds=[7, 8, 9]),
        csv(tmp_path / "d.csv", *ROWS),
        csv(tmp_path / "e.csv", *reversed(lines), "", header="round, device, gain_db"),
    ]
    for file in files:
        read = read_trace(file)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, GAIN, rtol=1e-6)


def replay(channel, key, rounds=5):
    state = channel.init(key, 2, channel.params)
    keys = jax.random.split(key, rounds)
    return jax.lax.scan(lambda s, k: channel.sample(k, s, channel.params), state, keys)[1]


def test_replay_wraps_around(tmp_path):
    gains = replay(trace(netcdf(tmp_path / "a.nc")), jax.random.key(0))
    np.testing.assert_allclose(gains, GAIN[[0, 1, 2, 0, 1]], rtol=1e-6)


def test_random_start_keeps_the_order(tmp_path):
    channel = trace(netcdf(tmp_path / "a.nc"), start="random")
    firsts = set()
    for seed in range(20):
        gains = replay(channel, jax.random.key(seed))
        first = int(np.argmin(np.abs(GAIN[:, 0] - float(gains[0, 0]))))
        np.testing.assert_allclose(gains, GAIN[(first + np.arange(5)) % 3], rtol=1e-6)
        firsts.add(first)
    assert firsts == {0, 1, 2}


def test_offset_in_decibel(tmp_path):
    channel = trace(netcdf(tmp_path / "a.nc"))
    state = channel.init(jax.random.key(0), 2, channel.params)
    _, gain = channel.sample(jax.random.key(0), state, channel.params._replace(offset_db=20.0))
    np.testing.assert_allclose(gain, 100 * GAIN[0], rtol=1e-5)


def test_a_changed_file_is_read_again(tmp_path):
    path = csv(tmp_path / "a.csv", "0,0,1e-9", "0,1,2e-9")
    before = trace(path)
    csv(path, "0,0,1.00e-8", "0,1,2e-8")
    assert trace(path) is not before
    np.testing.assert_allclose(replay(trace(path), jax.random.key(0), 1), [[1e-8, 2e-8]], rtol=1e-6)


def changed(at, value):
    gain = GAIN.copy()
    gain[at] = value
    return gain


FAULTS = {
    "nan": ({"gain": changed((1, 0), np.nan)}, "round 1, device 0 is NaN or missing"),
    "zero": ({"gain": changed((2, 1), 0.0)}, "round 2, device 1 is 0 in units of '1'"),
    "negative": ({"gain": changed((0, 1), -90.0)}, "is -90 in units of '1': .* check .* the unit"),
    "underflow": ({"gain": changed((0, 1), -500.0), "units": "dB"}, "is -500 in units of 'dB'"),
    "infinite": ({"gain": changed((0, 1), np.inf), "units": "dB"}, "is inf in units of 'dB'"),
    "no unit": ({"units": None}, "units=None: set the attribute to '1' .* or 'dB'"),
    "wrong unit": ({"units": "dBm"}, "units='dBm'"),
    "dims": ({"dims": ("time", "device")}, r"dims \('time', 'device'\): rename"),
    "name": ({"name": "h"}, r"holds \['h'\]: name the variable 'gain'"),
    "gap": ({"rounds": [0, 1, 3]}, "round 1 is followed by round 3: .* fill the gaps"),
    "order": ({"rounds": [0, 2, 1]}, "round 0 is followed by round 2"),
    "dates": ({"rounds": np.array(["a", "b", "c"])}, "number them 0, 1, 2"),
    "empty": ({"gain": np.zeros((0, 2))}, r"shape \(0, 2\) is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_netcdf_file(tmp_path, fault):
    wrong, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as error:
        trace(netcdf(tmp_path / "a.nc", **wrong))
    assert "a.nc" in str(error.value)
    assert "\n" not in str(error.value)


CSV_FAULTS = {
    "missing pair": (ROWS[:3] + ROWS[4:], "round 1, device 1 is NaN or missing"),
    "gap": (ROWS[:2] + ROWS[4:], "round 0 is followed by round 2"),
    "twice": ([*ROWS, "0,1,1e-9"], "round 0, device 1 stands there twice"),
    "word": ([*ROWS, "3,0,loud"], "line 8 is '3,0,loud': write two whole numbers and a gain"),
    "columns": ([*ROWS, "3,0"], "line 8 is '3,0'"),
    "fraction": ([*ROWS, "3.5,0,1e-9"], "line 8"),
    "nan": ([*ROWS, "3,0,nan", "3,1,1"], "round 3, device 0 is NaN"),
    "negative": ([*ROWS, "3,0,-1", "3,1,1"], "round 3, device 0 is -1"),
    "empty": ([], "is empty"),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_faults_of_a_csv_file(tmp_path, fault):
    lines, message = CSV_FAULTS[fault]
    with pytest.raises(ValueError, match=message) as error:
        trace(csv(tmp_path / "a.csv", *lines))
    assert "\n" not in str(error.value)


def test_other_faults(tmp_path):
    with pytest.raises(ValueError, match="header is 'round,device,gain': write 'round,device,gai"):
        trace(csv(tmp_path / "a.csv", *ROWS, header="round,device,gain"))
    with pytest.raises(ValueError, match=r"suffix '\.txt' is unknown: use \.nc or \.csv"):
        trace(csv(tmp_path / "a.txt", *ROWS))
    with pytest.raises(FileNotFoundError):
        trace(tmp_path / "none.nc")
    channel = trace(netcdf(tmp_path / "a.nc"))
    with pytest.raises(ValueError, match=r"num_devices=3, but .* holds 2: simulate 2"):
        channel.init(jax.random.key(0), 3, channel.params)
    with pytest.raises(ValueError, match="start='last' is unknown: choose one of"):
        trace(tmp_path / "a.nc", start="last")
    assert jnp.isfinite(replay(channel, jax.random.key(0))).all()
