"""What a sweep computes, keeps, resumes and refuses."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from workers import slow

import jaxsplit
from jaxsplit import Network, sweep
from jaxsplit.catalogue import CHANNELS
from jaxsplit.network import run_keys, run_network
from jaxsplit.options import OptionError
from jaxsplit.scheduling import LyapunovParams, aaba, all_in, greedy, lyapunov, random_k
from jaxsplit.sweeps import DiskFullError, over_seeds
from jaxsplit.sweeps import run as module
from jaxsplit.sweeps.grid import make_grid
from jaxsplit.sweeps.program import compile_blocks, scenario_stages
from jaxsplit.sweeps.summary import Sums
from jaxsplit.wireless import fixed_snr, rayleigh, shannon_rate, trace, umi

SMALL = Network(6, rayleigh(), greedy())
BUDGETS = [10e-9, 25e-9, 60e-9]


def small_sweep(**options):
    settings = {"seeds": 5, "num_rounds": 12, "block_size": 4}
    return sweep(SMALL, {"delay_budget": BUDGETS}, **(settings | options))


@pytest.fixture(scope="module")
def whole():
    return small_sweep(keep_rounds=True)


# -- what it computes ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [lyapunov(objective="bound"), all_in(), random_k(2)])
def test_the_summary_is_that_of_the_rounds(scheduler):
    """Every variable against float64 statistics of `run_network`, after a warm-up."""
    network, rounds, warmup = Network(5, rayleigh(), scheduler), 40, 7
    result = sweep(
        network,
        {"bandwidth_hz": [20e6, 5e6]},
        seeds=[3, 8],
        num_rounds=rounds,
        warmup_rounds=warmup,
        keep_rounds=True,
        params=network.default_params()._replace(server_power_dbm=20.0),
    )
    for bandwidth_hz in (20e6, 5e6):
        params = network.default_params()._replace(bandwidth_hz=bandwidth_hz)
        for seed in (3, 8):
            state, info = jax.jit(run_network, static_argnums=(1, 3, 4))(
                run_keys(seed).network, network, params, rounds, warmup
            )
            got = result.sel(bandwidth_hz=bandwidth_hz, seed=seed)
            count = np.asarray(info.mask.sum(axis=1), float)
            delay, queue = np.asarray(info.delay, float), np.asarray(info.queue, float)
            taken = np.asarray(info.mask.sum(axis=0), float)
            sent = np.asarray(info.transmission_energy_per_bit, float)
            computed = np.asarray(info.computation_energy_per_bit, float)
            best = np.asarray(info.snr_hz, float).max(axis=1)
            least = 1 / (bandwidth_hz * np.log2(1 + best / bandwidth_hz))
            budget = params.delay_budget
            mask, share_hz = np.asarray(info.mask), np.asarray(info.bandwidth_hz, float)
            down_hz = 10 * np.asarray(info.snr_hz, float)  # a server 10 dB above the devices
            down_rate = share_hz * np.log2(1 + down_hz / np.where(mask, share_hz, 1))
            down = np.where(mask, 1 / np.where(mask, down_rate, 1), 0).max(axis=1)
            expected = {
                "mean_scheduled": count.mean(),
                "mean_inverse_scheduled": (1 / count).mean(),
                "mean_delay": delay.mean(),
                "max_delay": delay.max(),
                "mean_squared_excess": ((delay - budget) ** 2).mean(),
                "part_over_budget": (delay > budget).mean(),
                "mean_downlink_delay": down.mean(),
                "mean_least_delay": least.mean(),
                "is_feasible": least.mean() < budget,
                "initial_queue": queue[0],
                "mean_queue": queue.mean(),
                "max_queue": queue.max(),
                "final_queue": float(state.queue),
                "jain_participation": taken.sum() ** 2 / (5 * (taken**2).sum()),
                "part_participating": (taken > 0).mean(),
                "transmission_energy_per_bit": sent.sum(axis=1).mean(),
                "computation_energy_per_bit": computed.sum(axis=1).mean(),
                "part_ambiguous": np.asarray(info.is_ambiguous).mean(),
                "part_empty": 0.0,
                "participation": taken,
                "device_transmission_energy_per_bit": sent.mean(axis=0),
                "device_computation_energy_per_bit": computed.mean(axis=0),
                "num_scheduled": count,
                "delay": delay,
                "queue": queue,
            }
            assert set(expected) == set(got.data_vars)
            for name, value in expected.items():
                # Two programs: float32 rounding, of queues relative to what flows through them.
                atol = 1e-5 * delay.max() if "queue" in name else 0
                np.testing.assert_allclose(
                    got[name].values.astype(float), value, rtol=2e-5, atol=atol, err_msg=name
                )


def test_energy_is_power_times_time_and_cycles():
    """On an equal split of a fixed SNR all is known: P/rate and κ C f² per scheduled device."""
    network = Network(4, fixed_snr(), aaba(min_devices=4))
    result = sweep(network, {}, seeds=1, num_rounds=3).squeeze()
    _, info = run_network(jax.random.key(0), network, network.default_params(), 1)
    rate = 5e6 * np.log2(1 + float(info.snr_hz[0, 0]) / 5e6)
    np.testing.assert_allclose(result.transmission_energy_per_bit, 4 * 0.01 / rate, rtol=1e-5)
    np.testing.assert_allclose(result.computation_energy_per_bit, 4 * 1e-28 * 12 * 1e18, rtol=1e-5)
    np.testing.assert_allclose(result.mean_delay, 1 / rate, rtol=1e-5)


def test_axes_are_dimensions_in_a_fixed_order(whole):
    result = sweep(
        SMALL,
        {
            "channel.radius_m": [50.0, 100.0],
            "scheduler": {"greedy": greedy(), "all": all_in()},
            "num_devices": [6, 3],
            "delay_budget": BUDGETS,
        },
        seeds=5,
        num_rounds=12,
    )
    dims = ("num_devices", "scheduler", "channel.radius_m", "delay_budget", "seed")
    assert result.mean_delay.dims == dims
    assert result.mean_delay.shape == (2, 2, 2, 3, 5)
    same = result.sel({"num_devices": 6, "scheduler": "greedy", "channel.radius_m": 100.0})
    for name in ("mean_delay", "mean_scheduled", "participation", "final_queue"):
        np.testing.assert_allclose(same[name], whole[name], rtol=1e-5)
    # What a smaller network lacks is NaN; numbers are float64; units are told.
    assert result.participation.sel(num_devices=3)[..., 3:].isnull().all()
    assert not result.participation.sel(num_devices=3)[..., :3].isnull().any()
    assert result.mean_delay.dtype == np.float64
    assert result.mean_delay.units == "s/bit"
    assert result.delay_budget.units == "s/bit"
    assert float(result.bandwidth_hz) == 20e6  # not swept, but told
    setting = json.loads(result.attrs["setting"])
    assert setting["axes"]["scheduler"] == ["greedy", "all"]
    assert setting["seeds"] == "0 to 4"


def test_own_numbers_of_choices_and_base():
    """A chosen scheduler brings its own numbers, the rest come from `params`."""
    network = Network(5, rayleigh(), lyapunov())
    params = network.default_params()._replace(
        power_dbm=20.0, scheduler=LyapunovParams(v=30.0), delay_budget=10e-9
    )
    options = {"seeds": 3, "num_rounds": 30, "params": params}
    given = sweep(network, {}, **options)
    eager = lyapunov()._replace(params=LyapunovParams(v=30.0))
    chosen = sweep(network, {"scheduler": {"eager": eager, "calm": lyapunov()}}, **options)
    np.testing.assert_array_equal(chosen.sel(scheduler="eager").max_queue, given.max_queue)
    assert (chosen.sel(scheduler="calm").mean_queue < given.mean_queue).all()
    assert float(given.power_dbm) == 20.0


@pytest.mark.slow
def test_the_learning_run_has_the_same_network(scheme, world):
    from jaxsplit.data import Dataset

    data = Dataset(*(np.asarray(a) for a in (world.inputs, world.labels) * 2))
    network = Network(6, rayleigh(), lyapunov())
    run = jaxsplit.run(
        [4], network, scheme, world.backbone, data, num_rounds=4, warmup_rounds=2, evaluate_every=4
    )
    swept = sweep(network, {}, seeds=[4], num_rounds=4, warmup_rounds=2, keep_rounds=True)
    np.testing.assert_array_equal(run.num_scheduled, swept.num_scheduled)
    np.testing.assert_allclose(run.delay, swept.delay, rtol=1e-5)


def test_statistics_over_seeds(whole):
    statistics = over_seeds(whole)
    for budget in BUDGETS:
        samples = whole.mean_delay.sel(delay_budget=budget).values
        mean, low, high = statistics.mean_delay.sel(delay_budget=budget).values
        half = 2.7764451051977987 * samples.std(ddof=1) / np.sqrt(5)  # t of 4 degrees, 97.5 %
        np.testing.assert_allclose([mean, low, high], samples.mean() + half * np.array([0, -1, 1]))
    assert statistics.mean_delay.dtype == np.float64
    assert statistics.mean_delay.units == "s/bit"
    one = over_seeds(whole.isel(seed=[0]))
    assert one.mean_delay.sel(statistic="low").isnull().all()
    broken = whole.assign(mean_delay=whole.mean_delay.where(whole.seed != 2))
    assert over_seeds(broken).mean_delay.isnull().all()  # NaN is seen, not left out


def test_one_bad_point_spoils_no_other():
    """A radio beyond float32 gives NaN or infinity there, and the same bits elsewhere."""
    options = {"seeds": 2, "num_rounds": 5, "block_size": 4}
    both = sweep(SMALL, {"power_dbm": [10.0, 1e5]}, **options)
    alone = sweep(SMALL, {"power_dbm": [10.0, 11.0]}, **options)
    assert not np.isfinite(both.mean_delay.sel(power_dbm=1e5)).any()
    xr.testing.assert_equal(
        both.sel(power_dbm=10.0).drop_vars("power_dbm"),
        alone.sel(power_dbm=10.0).drop_vars("power_dbm"),
    )


def test_sums_of_many_terms_keep_their_digits():
    """10⁶ float32 terms under jit: the plain sum loses three digits, this one none."""
    terms = jnp.asarray(np.random.default_rng(0).random(1_000_000), jnp.float32)

    @jax.jit
    def both(terms):
        def body(i, carry):
            total, plain = carry
            return total.add(terms[i]), plain + terms[i]

        zero = jnp.float32(0)
        return jax.lax.fori_loop(0, terms.size, body, (Sums(zero, zero), zero))

    total, plain = both(terms)
    exact = np.asarray(terms, np.float64).sum()
    assert abs(float(total.value) / exact - 1) < 1.2e-7
    assert abs(float(plain) / exact - 1) > 1e-6
    infinite = Sums(jnp.float32(1), jnp.float32(0)).add(jnp.inf).add(jnp.float32(1))
    assert np.isinf(infinite.value)


# -- what it costs ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rounds():
    grid = make_grid(SMALL, {"delay_budget": BUDGETS}, 5, None)
    (program,) = grid.programs()
    needed = [
        compile_blocks(
            scenario_stages(program, rounds, keep_rounds), ["delay_budget"], jax.devices(), 16
        ).bytes_per_device
        for rounds, keep_rounds in ((10, False), (1_000_000, False), (1_000_000, True))
    ]
    assert needed[0] == needed[1]
    assert needed[2] > 16 * 12 * 1_000_000  # where they are kept they show


def test_numbers_and_seeds_share_a_program(monkeypatch):
    compiled = []
    real = module.compile_blocks
    monkeypatch.setattr(module, "compile_blocks", lambda *a: compiled.append(a) or real(*a))
    axes = {"delay_budget": BUDGETS, "bandwidth_hz": [1e7, 2e7], "num_devices": [3, 4]}
    sweep(SMALL, axes, seeds=3, num_rounds=2)
    assert len(compiled) == 2  # one per number of devices


def test_progress_counts_every_round():
    heard = []
    small_sweep(warmup_rounds=2, progress=lambda *report: heard.append(report))
    assert heard[:2] == [("compiling", 0, 1), ("compiling", 1, 1)]
    simulated = [done for stage, done, _ in heard if stage == "simulating"]
    assert simulated == sorted(simulated)
    assert heard[-1] == ("simulating", 4 * 4 * 14, 4 * 4 * 14)


# -- long-run delay --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rayleigh", *slow(set(CHANNELS) - {"rayleigh"})])
def test_long_run_delay_keeps_the_budget_for_every_v_and_channel(name):
    """Mean delay <= 1.01 τ̄ where T >= 100 Q_T/τ̄, Q_T/T falls as T grows, and too tight is told.

    The budget is 1.5 times the mean delay of the best device alone in the hardest of the cells, or
    0.3 times that of the easiest. With v = 0.1 the queue comes near 0 now and then, where P1 takes
    even the weakest device and waits long for it: such jumps have no mean, and Q_T/T need not fall.
    """
    network, seeds, rounds = Network(10, CHANNELS[name](), lyapunov()), 3, 5000
    params = network.default_params()

    @jax.jit
    @jax.vmap
    def least_delay(seed):
        _, info = run_network(run_keys(seed).network, network_of_all, params_of_all, 300)
        return jnp.mean(1 / shannon_rate(jnp.float32(20e6), jnp.max(info.snr_hz, axis=1)))

    network_of_all = Network(10, network.channel, aaba(min_devices=10))
    params_of_all = network_of_all.default_params()
    alone = np.asarray(least_delay(jnp.arange(seeds)))
    budgets = [1.5 * float(alone.max()), 0.3 * float(alone.min())]
    result = sweep(
        network,
        {"scheduler.v": [0.1, 1.0, 10.0], "delay_budget": budgets},
        params=params,
        seeds=seeds,
        num_rounds=rounds,
        keep_rounds=True,
    )
    fits, tight = result.isel(delay_budget=0), result.isel(delay_budget=1)
    assert fits.is_feasible.all()
    assert not tight.is_feasible.any()
    assert (tight.mean_delay > tight.delay_budget).all()

    early = (fits.queue.sel(round=500) / 500 / budgets[0]).mean("seed")
    late = fits.final_queue / rounds / budgets[0]
    steady = {"scheduler.v": [1.0, 10.0]}
    assert (late.sel(steady).mean("seed") <= early.sel(steady)).all()
    excess = fits.mean_delay / budgets[0] - 1
    assert (excess <= late + 1e-5).all()  # on every path
    assert (excess.where(late <= 0.01, 0) <= 0.01).all()
    assert (late.sel(steady) <= 0.01).all()


# -- interruption ----------------------------------------------------------------------------------


def test_a_finished_sweep_is_not_run_again(whole, tmp_path, monkeypatch):
    first = small_sweep(keep_rounds=True, out=tmp_path)
    xr.testing.assert_identical(first.drop_attrs(deep=False), whole.drop_attrs(deep=False))
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.nc"]
    monkeypatch.setattr(module, "_simulate", None)
    xr.testing.assert_identical(small_sweep(keep_rounds=True, out=tmp_path), first)


KILLED = """
import sys, time
import jaxsplit
from jaxsplit.scheduling import greedy
from jaxsplit.sweeps.store import FolderStore
from jaxsplit.wireless import rayleigh

put = FolderStore.put
def slow_put(self, place, block):
    put(self, place, block)
    time.sleep(0.5)
FolderStore.put = slow_put
jaxsplit.sweep(
    jaxsplit.Network(6, rayleigh(), greedy()), {"delay_budget": [10e-9, 25e-9, 60e-9]},
    seeds=5, num_rounds=12, block_size=4, keep_rounds=True, out=sys.argv[1],
)
"""


def test_a_killed_sweep_resumes_to_the_same_bits(whole, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    until = time.monotonic() + 120
    blocks = tmp_path / ".blocks"
    while len(list(blocks.glob("*.npz"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = sorted(blocks.glob("*.npz"))
    assert 2 <= len(kept) < 4
    kept[0].write_bytes(kept[0].read_bytes()[:-200])  # and one of them is damaged
    (blocks / ".0000-half-written.npz").write_bytes(b"PK")

    heard = []
    resumed = small_sweep(
        keep_rounds=True, out=tmp_path, progress=lambda *report: heard.append(report)
    )
    missing = 4 - (len(kept) - 1)
    assert heard[-1] == ("simulating", missing * 4 * 12, missing * 4 * 12)
    xr.testing.assert_identical(resumed.drop_attrs(deep=False), whole.drop_attrs(deep=False))


def test_a_resumed_sweep_may_have_other_devices_but_no_other_setting(tmp_path, monkeypatch):
    put = module.FolderStore.put

    def interrupted(self, place, block):
        if place == (0, 2):
            raise KeyboardInterrupt
        put(self, place, block)

    monkeypatch.setattr(module.FolderStore, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_sweep(out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    for change, word in (
        ({"num_rounds": 13}, "num_rounds"),
        ({"seeds": 6}, "seeds"),
        ({"block_size": 5}, "block_size"),
        ({"params": SMALL.default_params()._replace(power_dbm=11.0)}, "network"),
    ):
        with pytest.raises(OptionError, match=f"another folder: .*differs in .*{word}"):
            small_sweep(out=tmp_path, **change)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.npz")} == before
    monkeypatch.setattr(module.FolderStore, "put", put)
    assert small_sweep(out=tmp_path, block_size=None).sizes["seed"] == 5


def test_a_disk_too_full_for_the_result_keeps_all_blocks(whole, tmp_path, monkeypatch):
    def full(dataset, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = module.save
    monkeypatch.setattr(module, "save", full)
    with pytest.raises(DiskFullError, match="no space is left"):
        small_sweep(keep_rounds=True, out=tmp_path)
    monkeypatch.setattr(module, "save", real)
    heard = []
    small_sweep(keep_rounds=True, out=tmp_path, progress=lambda *report: heard.append(report))
    assert heard[-1] == ("simulating", 0, 0)


def test_a_full_disk_keeps_what_was_done(whole, tmp_path, monkeypatch):
    savez, calls = np.savez, []

    def full(path, **block):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        savez(path, **block)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DiskFullError, match=r"no space is left .* the same command goes on"):
        small_sweep(keep_rounds=True, out=tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    resumed = small_sweep(keep_rounds=True, out=tmp_path)
    assert len(calls) == 5
    xr.testing.assert_identical(resumed.drop_attrs(deep=False), whole.drop_attrs(deep=False))


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"delay_budgt": [1e-8]}, ["delay_budgt", "one of", "delay_budget, "]),
        ({"scheduler.v": [1.0]}, ["scheduler.v", "channel.radius_m"]),  # greedy has none
        ({"delay_budget": []}, ["delay_budget=[]", "one or more numbers above 0"]),
        ({"delay_budget": [0.0]}, ["delay_budget=[0.0]", "above 0"]),
        ({"delay_budget": 1e-8}, ["delay_budget=1e-08", "one or more"]),
        ({"power_dbm": [1.0, float("nan")]}, ["nan", "numbers"]),
        ({"power_dbm": [1.0, 1.0]}, ["each once"]),
        ({"power_dbm": ["loud"]}, ["loud", "numbers"]),
        ({"num_devices": [0]}, ["num_devices=[0]", "whole numbers from 1"]),
        ({"num_devices": 5}, ["num_devices=5", "whole numbers from 1"]),
        ({"num_devices": [2.5]}, ["2.5", "whole numbers from 1"]),
        ({"scheduler": [greedy()]}, ["scheduler=", "a dict of labels"]),
        ({"scheduler": {}}, ["scheduler={}", "a dict of labels"]),
    ],
)
def test_bad_axes_are_named(axes, words, tmp_path):
    with pytest.raises(OptionError) as error:
        sweep(SMALL, axes, seeds=2, num_rounds=2, out=tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, ["seeds=0", "1 or more"]),
        ({"seeds": []}, ["seeds=[]"]),
        ({"seeds": [1, 1]}, ["different"]),
        ({"seeds": [-1]}, ["from 0"]),
        ({"seeds": [2**32]}, ["2³²"]),
        ({"num_rounds": 0}, ["num_rounds=0", "1 or more"]),
        ({"warmup_rounds": -1}, ["warmup_rounds=-1", "0 or more"]),
        ({"block_size": 0}, ["block_size=0", "1 or more"]),
        ({"out": "/dev/null/x"}, ["out=", "folder that can be written"]),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(OptionError) as error:
        small_sweep(**options)
    for word in words:
        assert word in str(error.value)


def test_too_much_is_refused_before_it_starts(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"takes 1\.\d TiB of memory.*GiB that are free"):
        small_sweep(seeds=10**9, block_size=None)
    sizes, real = [], module.compile_blocks

    def recorded(*arguments):
        program = real(*arguments)
        sizes.append(program.bytes_per_device)
        return program

    monkeypatch.setattr(module, "compile_blocks", recorded)
    fits = small_sweep(block_size=None)
    monkeypatch.setattr(module, "device_bytes", lambda devices: sizes[0] / 2)
    with pytest.raises(OptionError, match=r"block_size=15.*takes .*B of memory and .* are free"):
        small_sweep(block_size=15)
    smaller = small_sweep(block_size=None)
    assert sizes[-1] <= sizes[0] / 2
    assert json.loads(smaller.attrs["setting"])["block_size"] < 15
    np.testing.assert_allclose(smaller.mean_delay, fits.mean_delay, rtol=1e-5)
    monkeypatch.setattr(module, "device_bytes", lambda devices: 10.0)
    with pytest.raises(OptionError, match="block_size=1 is not allowed: give fewer scenarios or"):
        small_sweep(block_size=None)
    monkeypatch.undo()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("jaxsplit.sweeps.limits.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OptionError, match=r"out=.*a disk with .* free \(there are 1e\+03 B\)"):
        small_sweep(out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_result_is_left_alone(tmp_path):
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    before = (tmp_path / "sweep.nc").read_bytes()
    with pytest.raises(OptionError, match="another folder"):
        small_sweep(out=tmp_path)
    assert (tmp_path / "sweep.nc").read_bytes() == before


def test_a_trace_of_other_devices_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("round,device,gain_db\n0,0,-90\n0,1,-80\n")
    with pytest.raises(OptionError, match=r"axes='trace' .*num_devices=6, but .* holds 2"):
        sweep(SMALL, {"channel": {"trace": trace(path), "umi": umi()}}, seeds=2, num_rounds=2)
