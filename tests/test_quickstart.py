"""The quickstart as its users meet it: Python API, command line, files, errors."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from safetensors import safe_open

import jaxsplit
from jaxsplit.cli import main
from jaxsplit.commands import comparison
from jaxsplit.commands import quickstart as module
from jaxsplit.commands.learning_options import POLICIES
from jaxsplit.commands.quickstart import QuickstartConfig, foundation_model, quickstart
from jaxsplit.federated.chunk import run_chunk

SHORT = {"rounds": 12, "seeds": 2, "evaluate_every": 5, "warmup_rounds": 20}


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "backbones"
    foundation_model(cache_folder=folder)
    return folder


@pytest.fixture
def user_cache(cache_folder, monkeypatch):
    """Let the user's cache folder be the one that already holds the backbone."""
    monkeypatch.setattr(module.platformdirs, "user_cache_path", lambda name: cache_folder.parent)


@pytest.fixture(scope="module")
def result(cache_folder):
    before = run_chunk._cache_size()  # other tests may have filled it
    result = quickstart(QuickstartConfig(**SHORT), cache_folder=cache_folder)
    assert run_chunk._cache_size() <= before + 1  # one trace for five policies and two seeds
    return result


def test_result_is_labelled(result):
    assert result.sizes == {
        "policy": 5, "seed": 2, "round": 12, "eval_round": 4, "device": 20,
    }  # fmt: skip
    assert list(result.policy.values) == list(POLICIES)
    assert result.eval_round.values.tolist() == [0, 5, 10, 12]
    assert result.accuracy.dims == ("policy", "seed", "eval_round")
    assert result.delay.attrs["units"] == "s/bit"
    assert all(variable.attrs["long_name"] for variable in result.data_vars.values())
    assert json.loads(result.attrs["configuration"])["rounds"] == 12
    assert json.loads(result.attrs["versions"])["jaxsplit"] == jaxsplit.__version__
    assert result.attrs["device_kind"]


def test_numbers_hang_together(result):
    payload = result.attrs["up_bits"] + result.attrs["down_bits"]
    assert payload == 32 * (16 * 17 * 32 + 2 * 16 * 32)
    np.testing.assert_allclose(result.delay_s, result.delay * payload, rtol=1e-4)
    np.testing.assert_allclose(result.time_s, np.cumsum(result.delay_s, axis=-1), rtol=1e-5)
    assert np.all(result.eval_time_s[..., 0] == 0)
    np.testing.assert_allclose(result.eval_time_s[..., -1], result.time_s[..., -1])
    np.testing.assert_array_equal(result.num_scheduled, result.scheduled.sum("device"))
    assert np.all(result.num_scheduled.sel(policy="all_in") == 20)
    np.testing.assert_array_equal(result.participation, result.scheduled.sum("round"))
    assert np.all(result.jain_participation.sel(policy="all_in") == 1)
    # 10 mW for the part of the round in which the device sends; 1.2 nJ for each bit it sends.
    sending_s = result.delay_s * result.attrs["up_bits"] / payload
    energy = result.transmission_energy_j.sel(policy="all_in").max("device")
    np.testing.assert_allclose(energy, 0.01 * sending_s.sel(policy="all_in"), rtol=1e-4)
    np.testing.assert_allclose(
        result.computation_energy_j, 1.2e-9 * result.attrs["up_bits"] * result.scheduled, rtol=1e-5
    )
    np.testing.assert_allclose(result.device_accuracy.mean("device"), result.accuracy, rtol=1e-5)
    assert np.isfinite(result.loss).all()


def test_policies_are_paired(result):
    """Before round 0 all policies stand at the same point, and seeds differ."""
    start = result.accuracy.isel(eval_round=0)
    assert np.all(start == start.isel(policy=0))
    assert np.all(result.loss.isel(round=0).std("seed") > 0)


def test_runs_are_reproducible_and_do_not_retrace(cache_folder, result):
    config = QuickstartConfig(**(SHORT | {"seeds": 1, "policies": ("greedy", "aaba")}))
    before = run_chunk._cache_size()
    again = quickstart(config, cache_folder=cache_folder)
    for name in ("accuracy", "loss", "delay", "queue"):
        np.testing.assert_array_equal(
            again[name].values, result[name].sel(policy=["greedy", "aaba"]).isel(seed=[0]).values
        )
    quickstart(
        QuickstartConfig(
            **(SHORT | {"seeds": 3, "policies": ("greedy",), "delay_budget_ns_per_bit": 40.0}),
            adapter_learning_rate=0.05,
        ),
        cache_folder=cache_folder,
    )
    assert run_chunk._cache_size() == before  # another number of seeds, other numbers: no trace


def test_the_backbone_is_cached(cache_folder, monkeypatch):
    files = list(cache_folder.iterdir())
    assert len(files) == 1
    assert files[0].suffix == ".safetensors"
    with safe_open(files[0], "numpy") as file:
        assert float(file.metadata()["test_accuracy"]) > 0.85  # on digits 0-4
    monkeypatch.setattr(module, "pretrain", None)  # a second training would fail
    first, second = (foundation_model(cache_folder=cache_folder) for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))


def test_a_damaged_cache_is_trained_anew(cache_folder, tmp_path, monkeypatch):
    (whole,) = cache_folder.iterdir()
    damaged = tmp_path / whole.name
    damaged.write_bytes(whole.read_bytes()[:1000])
    params = foundation_model(cache_folder=cache_folder)
    monkeypatch.setattr(module, "pretrain", lambda *_, **__: (params, 0.9))
    again = foundation_model(cache_folder=tmp_path)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert len(damaged.read_bytes()) > 1000  # mended


def test_command_line_writes_a_result_and_a_figure(user_cache, tmp_path, capsys):
    out = tmp_path / "deep" / "folder"
    main([
        "quickstart", "--out", str(out), "--rounds", "5", "--seeds", "2", "--evaluate-every", "5",
        "--policies", "all_in", "greedy", "--warmup-rounds", "0", "--devices", "5",
    ])  # fmt: skip
    assert files_of(out) == ["quickstart.log", "quickstart.nc", "quickstart.png"]
    assert (out / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    with xr.open_dataset(out / "quickstart.nc") as loaded:
        assert loaded.sizes["device"] == 5
        assert loaded.queue.isel(round=0).max() == 0  # no warm-up
    text = capsys.readouterr().out
    for word in ("final test accuracy", "mean 1/K", "simulated time", "compile, s", "all in"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], ["--rounds", "0", "whole number, 1 or more"]),
        (["--rounds", "many"], ["--rounds", "many", "whole number, 1 or more"]),
        (["--rounds", "1.5"], ["--rounds", "1.5", "whole number, 1 or more"]),
        (["--seeds", "-1"], ["--seeds", "-1", "whole number, 1 or more"]),
        (["--devices", "0"], ["--devices", "0", "whole number, 1 or more"]),
        (["--devices", "718"], ["--devices", "718", "1 to 717", "training samples"]),
        (["--bandwidth-hz", "-1"], ["--bandwidth-hz", "-1", "above 0"]),
        (["--bandwidth-hz", "nan"], ["--bandwidth-hz", "nan", "finite number above 0"]),
        (["--bandwidth-hz", "inf"], ["--bandwidth-hz", "inf", "finite number above 0"]),
        (["--power-dbm", "nan"], ["--power-dbm", "nan", "finite"]),
        (["--delay-budget-ns-per-bit", "0"], ["--delay-budget-ns-per-bit", "0", "above 0"]),
        (["--delay-budget-ns-per-bit"], ["--delay-budget-ns-per-bit", "above 0"]),
        (["--policies", "best"], ["--policies", "best", "all_in", "greedy"]),
        (["--policies", "aaba", "aaba"], ["--policies", "aaba", "each once"]),
        (["--warmup-rounds", "-3"], ["--warmup-rounds", "-3", "0 or more"]),
        (["--out", "/dev/null/x"], ["--out", "/dev/null/x", "folder that can be written"]),
        (["--colour", "red"], ["--colour"]),
    ],
)
def test_bad_options_end_in_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["quickstart", *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("jaxsplit: error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in captured.err + captured.out
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize("arguments", [[], ["nosuch"]])
def test_unknown_commands_are_named(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "quickstart" in lines[0]


def test_divergence_and_interruption_write_nothing(user_cache, tmp_path, monkeypatch, capsys):
    for failure, code, words in (
        (jaxsplit.NonFiniteError("the training loss is nan in round 3"), 1, "round 3"),
        (KeyboardInterrupt(), 130, "the same command resumes"),
        (OSError(28, "No space left on device"), 1, "No space left"),
    ):

        def fail(*_, failure=failure, **__):
            raise failure

        monkeypatch.setattr("jaxsplit.cli.quickstart", fail)
        with pytest.raises(SystemExit) as stop:
            main(["quickstart", "--out", str(tmp_path)])
        assert stop.value.code == code
        assert words in capsys.readouterr().err
        assert files_of(tmp_path) == ["quickstart.log"]
        assert f"stopped: {type(failure).__name__}" in (tmp_path / "quickstart.log").read_text()


def test_an_interrupted_run_resumes(user_cache, tmp_path, monkeypatch, capsys):
    """Ctrl-C during the second policy; the same command then runs only what is missing."""
    arguments = ["quickstart", "--rounds", "6", "--seeds", "2", "--evaluate-every", "3"]
    arguments += ["--policies", "greedy", "aaba"]
    main([*arguments, "--out", str(tmp_path / "whole")])

    ran, real_run = [], comparison.run

    def counting_run(seeds, network, *args, **options):
        ran.append(network.scheduler)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return real_run(seeds, network, *args, **options)

    monkeypatch.setattr(comparison, "run", counting_run)
    out = tmp_path / "interrupted"
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(out)])
    assert stop.value.code == 130
    assert files_of(out) == [".checkpoints", "quickstart.log"]
    assert "stopped: KeyboardInterrupt" in (out / "quickstart.log").read_text()
    capsys.readouterr()
    main([*arguments, "--out", str(out)])
    assert "greedy-seed1 goes on after 6 rounds" in capsys.readouterr().out
    assert files_of(out) == ["quickstart.log", "quickstart.nc", "quickstart.png"]
    whole, resumed = (
        xr.load_dataset(folder / "quickstart.nc").drop_vars(["compile_s", "run_s"])
        for folder in (tmp_path / "whole", out)
    )
    xr.testing.assert_equal(whole, resumed)


def test_a_diverging_run_says_where(cache_folder):
    config = QuickstartConfig(
        **(SHORT | {"seeds": 1}), policies=("all_in",), adapter_learning_rate=1e30
    )
    where = r"loss of device \d+ is \w+ in round \d+ of seed 0: lower the learning rates"
    with pytest.raises(jaxsplit.NonFiniteError, match=where):
        quickstart(config, cache_folder=cache_folder)


@pytest.mark.parametrize(
    ("policy", "power_dbm"), [("all_in", 1e5), *((policy, -1e5) for policy in POLICIES)]
)
def test_impossible_radio_says_so(policy, power_dbm, cache_folder):
    config = QuickstartConfig(**(SHORT | {"seeds": 1}), policies=(policy,), power_dbm=power_dbm)
    with pytest.raises(
        jaxsplit.NonFiniteError, match=r"the delay is (nan|inf) in round 0 of seed 0"
    ):
        quickstart(config, cache_folder=cache_folder)


@pytest.mark.slow
def test_python_example_of_the_readme_is_the_quickstart(user_cache):
    """The README's snippet is at most 15 lines, runs as it stands, and gives the same numbers."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", readme, flags=re.S)[1]
    lines = [line for line in snippet.splitlines() if line.strip()]
    assert len(lines) <= 15
    names: dict = {}
    exec(snippet, names)
    result = names["result"]
    same = quickstart(QuickstartConfig(policies=("lyapunov_bound",))).isel(policy=0)
    for name in ("accuracy", "loss", "time_s", "queue"):
        np.testing.assert_array_equal(result[name], same[name])
    learnt = result.accuracy.isel(eval_round=-1) - result.accuracy.isel(eval_round=0)
    assert (learnt > 0.3).all()  # of new digits, under every seed
