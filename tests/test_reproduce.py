"""`jaxsplit reproduce` as its users meet it, on a tiny checkpoint."""

import json

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from tiny_checkpoints import command, shared_folder, tiny_folder  # noqa: F401

from jaxsplit.commands import reproduce as module
from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.commands.reproduce import ReproduceConfig, load_experiments, with_settings
from jaxsplit.options import OptionError

SMALL = [
    "rounds=4", "evaluate_every=2", "devices=4", "warmup_rounds=0", "max_length=None",
    "policies=all_in,lyapunov_bound,lyapunov_count,greedy,aaba", "batch_size=4",
]  # fmt: skip


def reproduce(figure, out, *, data, settings=(), seeds=2):
    model = tiny_folder() / ("bert" if figure == "fedft-fig3" else "vit")
    command(
        "reproduce", figure, "--seeds", seeds, "--data", *data, "--out", out,
        "--set", f"model={model}", *SMALL, *settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Figure 3 on texts; figure 5 on pictures, two policies of it."""
    root = tmp_path_factory.mktemp("results")
    texts, pictures = tiny_folder() / "SST-2", tiny_folder() / "pictures"
    reproduce("fedft-fig3", root / "fedft-fig3", data=[texts])
    few = ["max_test=None", "policies=all_in,greedy"]
    reproduce("fedft-fig5", root / "fedft-fig5", data=[pictures], settings=few, seeds=1)
    return root


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_figure_leaves_result_drawing_verdicts_log_and_weights(results, capsys):
    out = results / "fedft-fig3"
    names = {path.rsplit("/", 1)[0] if "/" in path else path for path in files_of(out)}
    assert {"fedft-fig3.log", "fedft-fig3.md", "fedft-fig3.nc", "fedft-fig3.png"} <= names
    assert matplotlib.image.imread(out / "fedft-fig3.png").std() > 0
    result = xr.load_dataset(out / "fedft-fig3.nc")
    assert result.sizes == {
        "data": 1, "delay_budget": 1, "policy": 6, "seed": 2, "round": 4, "eval_round": 3,
        "device": 4,
    }  # fmt: skip
    assert result.policy.values.tolist()[-1] == "heads_only"
    setting = json.loads(result.attrs["setting"])
    assert (setting["scale"], setting["options"]["rounds"]) == ("laptop", 4)
    assert result.attrs["trainable_parameters"] < result.attrs["total_parameters"]
    assert (result.up_bits > result.down_bits).all()
    verdicts = (out / "fedft-fig3.md").read_text()
    assert verdicts.startswith("# FedFT Fig. 3")
    assert verdicts.count("\n| ") > 10
    weights = [name for name in files_of(out) if name.endswith("seed1.safetensors")]
    assert len(weights) == 6
    # Each part is a run of its own, which `jaxsplit export` takes.
    cards = [name for name in files_of(out) if name.endswith("run.json")]
    assert len(cards) == 2
    command("export", "--run", (out / cards[0]).parent, "--out", results / "peft")
    assert (results / "peft" / "adapter_config.json").exists()


def test_frozen_adapters_stay_where_they_started(results):
    result = xr.load_dataset(results / "fedft-fig3" / "fedft-fig3.nc").isel(data=0, delay_budget=0)
    frozen, tuned = (result.sel(policy=name) for name in ("heads_only", "lyapunov_bound"))
    np.testing.assert_array_equal(frozen.scheduled, tuned.scheduled)
    np.testing.assert_array_equal(frozen.loss[:, 0], tuned.loss[:, 0])  # the same first batch
    assert (frozen.loss[:, -1] != tuned.loss[:, -1]).all()


def test_all_in_runs_once_for_all_budgets(results):
    result = xr.load_dataset(results / "fedft-fig5" / "fedft-fig5.nc").isel(data=0)
    budgets = result.delay_budget.values
    np.testing.assert_allclose(budgets * 1e9, [5, 10, 25, 50, 90])
    assert result.delay_budget.attrs["units"] == "s/bit"
    all_in = result.accuracy.sel(policy="all_in")
    assert (all_in == all_in.isel(delay_budget=0)).all()
    verdicts = (results / "fedft-fig5" / "fedft-fig5.md").read_text()
    assert "the runs lack lyapunov_count, lyapunov_bound, aaba" in verdicts
    scheduled = result.num_scheduled.sel(policy="greedy").mean(("seed", "round"))
    assert scheduled[-1] > scheduled[0]
    log = (results / "fedft-fig5" / "fedft-fig5.log").read_text()
    assert log.count("all_in-seed0 after 0 rounds") == 1
    assert log.count("greedy-seed0 after 0 rounds") == 5


def test_finished_runs_are_drawn_and_judged_anew_without_running(results, monkeypatch, capsys):
    out = results / "fedft-fig3"
    before = (out / "fedft-fig3.nc").read_bytes()
    for name in ("fedft-fig3.png", "fedft-fig3.md"):
        (out / name).unlink()
    runner = load_experiments().runner
    monkeypatch.setattr(runner, "fine_tune", None)  # running again would fail
    reproduce("fedft-fig3", out, data=[tiny_folder() / "SST-2"])
    assert (out / "fedft-fig3.nc").read_bytes() == before
    assert (out / "fedft-fig3.png").exists()
    capsys.readouterr()
    for options, words in (
        ({"seeds": 3}, "seeds (2 there, 3 here)"),
        ({"settings": ["batch_size=2"]}, "batch_size (4 there, 2 here)"),
    ):
        with pytest.raises(SystemExit) as stop:
            reproduce("fedft-fig3", out, data=[tiny_folder() / "SST-2"], **options)
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
    assert (out / "fedft-fig3.nc").read_bytes() == before


@pytest.mark.slow
def test_variants_of_a_run_and_two_figures_of_the_same_runs(tmp_path, capsys):
    model, data = tiny_folder() / "vit", tiny_folder() / "pictures"
    options = [
        "--seeds", 1, "--data", data, "--out", tmp_path, "--set", f"model={model}", "cut=1",
        "codec_ratio=0.2", "rounds=2", "evaluate_every=2", "devices=4", "local_steps=2",
        "max_test=None", "batch_size=4",
    ]  # fmt: skip
    command("reproduce", "sft-fig7", *options)
    result = xr.load_dataset(tmp_path / "sft-fig7.nc").isel(data=0)
    assert result.codec_levels.values.tolist() == [1, 3, 7, 31]
    assert (result.codec_ratio == 0.2).all()
    sent = result.sent_up_bits.sum(("round", "device")).isel(seed=0)
    assert (np.diff(sent) > 0).all()  # more levels, more bits
    before = (tmp_path / "sft-fig7.nc").read_bytes()
    command("reproduce", "sft-fig3", *options)
    assert (tmp_path / "sft-fig7.nc").read_bytes() == before
    assert "too few for 10 terms" in (tmp_path / "sft-fig3.md").read_text()
    for name in ("sft-fig3.png", "sft-fig7.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fedft-fig9"], ["error: figure fedft-fig9", "fedft-fig3", "fedft-fig6", "sft-table3"]),
        (["sft-fig7", "--set", "codec_levels=5"], ["--set codec_levels=5", "one of 255, 1, 3, 7"]),
        (["sft-fig5", "--set", "policies=greedy,aaba"], ["--set policies=greedy,aaba", "one pol"]),
        (["fedft-fig3", "--scale", "huge"], ["--scale", "laptop", "paper"]),
        (["fedft-fig3", "--seeds", "0"], ["--seeds 0", "1 or more"]),
        (["sft-table3", "--seeds", "2"], ["--seeds 2", "nothing: sft-table3 is counted"]),
        (["fedft-fig3", "--set", "round=5"], ["--set round=5", "rounds"]),
        (["fedft-fig3", "--set", "rounds=5", "--set", "seeds=1"], ["--set is given 2 times"]),
        (["fedft-fig3", "--set", "rounds=0"], ["--rounds 0", "1 or more"]),
        (["fedft-fig3", "--set", "rounds=many"], ["--set rounds=many", "whole number"]),
        (["fedft-fig3", "--set", "optimizer=lion"], ["--set optimizer=lion", "--optimizer"]),
        (["fedft-fig3", "--data", "nosuch"], ["--data nosuch", "no data set"]),
        (["fedft-fig6", "--set", "rounds=5"], ["--set rounds=5", "fedft-fig6 does not"]),
    ],
    ids=str,
)
def test_wrong_options_end_in_one_line(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command("reproduce", *arguments, "--out", tmp_path / "out")
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured.err
    (line,) = captured.err.strip().splitlines()
    for word in words:
        assert word in line
    assert not list((tmp_path / "out").glob("*"))


def test_data_that_is_not_there_is_left_out_unless_asked_for(tmp_path, capsys, monkeypatch):
    """Of the paper's three data sets one is here."""
    monkeypatch.setenv("JAXSPLIT_DATA", str(tiny_folder()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(load_experiments().runner, "_learned", lambda *_: pytest.fail("ran"))
    runner = load_experiments().runner
    figure = runner.FIGURES["fedft-fig3"]
    config = ReproduceConfig(
        figure="fedft-fig3", settings=(f"model={tiny_folder() / 'bert'}", *SMALL), out=tmp_path
    )
    scale = runner._asked_for(config, figure.scales["laptop"])
    with runner.progress_bars(runner.Console()) as bars:
        prepared = runner._prepare(config, scale, bars)
    assert list(prepared) == ["sst2"]
    text = capsys.readouterr().out
    assert "mrpc is left out" in text
    assert "qnli is left out" in text


def test_settings_are_typed():
    config = FineTuneConfig(model="m", data="d")
    changed = with_settings(
        config,
        ("rounds=7", "policies=greedy,aaba", "max-length=None", "augment=True", "model=/a=b"),
    )
    assert (changed.rounds, changed.policies) == (7, ("greedy", "aaba"))
    assert (changed.max_length, changed.augment, changed.model) == (None, True, "/a=b")
    assert with_settings(changed, ("augment=False",)).augment is False
    with pytest.raises(OptionError, match="set='rounds'"):
        with_settings(config, ("rounds",))


def test_the_wheel_carries_the_experiments(tmp_path, monkeypatch):
    """Without a checkout the copy in the package is loaded; without either it says so."""
    import tomllib

    root = module._PACKAGE.parent
    hatch = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]
    assert hatch["build"]["targets"]["wheel"]["force-include"] == {
        "experiments": "jaxsplit/_experiments"
    }
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "site-packages" / "jaxsplit")
    monkeypatch.delitem(module.sys.modules, module._NAME)
    with pytest.raises(FileNotFoundError, match=r"no experiments in .*: install again"):
        load_experiments()
    copy = tmp_path / "site-packages" / "jaxsplit" / "_experiments"
    copy.mkdir(parents=True)
    (copy / "runner.py").touch()
    (copy / "__init__.py").write_text("FIGURES = {'copied': None}")
    assert list(load_experiments().FIGURES) == ["copied"]
    monkeypatch.delitem(module.sys.modules, module._NAME)
