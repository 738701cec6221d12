"""`jaxsplit sweep` as its users meet it: files, table, figure, resumption, one line per error."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import xarray as xr

import jaxsplit
from jaxsplit import scheduling, wireless
from jaxsplit.cli import main
from jaxsplit.commands.report import sweep_table
from jaxsplit.options import OptionError
from jaxsplit.plots import sweep_figure
from jaxsplit.sweeps import SweepConfig

SHORT = ["--seeds", "3", "--rounds", "8", "--warmup-rounds", "2"]
AXES = ["--axes", "scheduler=greedy,aaba", "delay_budget=1e-8:4e-8:3"]


def test_the_command_writes_result_and_figure_and_resumes(tmp_path, capsys, monkeypatch):
    arguments = ["sweep", *SHORT, *AXES, "--devices", "5", "--out", str(tmp_path)]
    main(arguments)
    printed = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.nc", "sweep.png"]
    for word in ("greedy", "aaba", "4e-08", "took part", "Means over 3 seeds", "rounds", "/s"):
        assert word in printed
    result = xr.load_dataset(tmp_path / "sweep.nc")
    assert result.attrs.pop("Conventions").startswith("CF")
    same = jaxsplit.sweep(
        jaxsplit.Network(5, wireless.rayleigh(), scheduling.lyapunov(objective="bound")),
        {
            "scheduler": {"greedy": scheduling.greedy(), "aaba": scheduling.aaba()},
            "delay_budget": np.linspace(1e-8, 4e-8, 3),
        },
        seeds=3,
        num_rounds=8,
        warmup_rounds=2,
    )
    xr.testing.assert_identical(result, same)  # the setting in the attributes, too
    assert matplotlib.image.imread(tmp_path / "sweep.png").std() > 0

    monkeypatch.setattr("jaxsplit.sweeps.run._simulate", None)
    main(arguments)  # is there already
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--rounds", "9"])
    assert stop.value.code == 2
    assert "another folder: this one holds a sweep that differs in num_rounds" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"scheduler": {"greedy": scheduling.greedy()}},
        {"num_devices": [3, 5], "delay_budget": [1e-8, 2e-8], "power_dbm": [10.0, 13.0, 16.0]},
        {"bandwidth_hz": [1e7, 2e7, 4e7], "channel": {"umi": wireless.umi()}},
    ],
)
def test_any_grid_has_a_figure_and_a_table(axes):
    network = jaxsplit.Network(5, wireless.rayleigh(), scheduling.greedy())
    for seeds in (1, 2):
        result = jaxsplit.sweep(network, axes, seeds=seeds, num_rounds=3, keep_devices=False)
        figure = sweep_figure(result)
        assert all(axis.lines for axis in figure.axes)
        points = int(np.prod([result.sizes[name] for name in result.mean_delay.dims])) // seeds
        assert sweep_table(result).row_count == points


def test_values_of_axes():
    config = SweepConfig(
        axes=("scheduler.v=0.01:100:5:log", "num_devices=10,20", "scheduler=random_k:4,all_in")
    )
    axes = config.parsed_axes()
    np.testing.assert_allclose(axes["scheduler.v"], [0.01, 0.1, 1, 10, 100])
    assert axes["num_devices"] == [10, 20]
    assert axes["scheduler"] == {
        "random_k:4": scheduling.random_k(4),
        "all_in": scheduling.all_in(),
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--axes", "delay_budgt=1e-8"], ["--axes delay_budgt", "one of", "delay_budget"]),
        (["--axes", "delay_budget"], ["--axes delay_budget", "NAME=VALUES"]),
        (["--axes", "delay_budget=1e-8", "delay_budget=2e-8"], ["each name once"]),
        (["--axes", "delay_budget=fast"], ["delay_budget=fast", "a range 1e-8:6e-8:6"]),
        (["--axes", "delay_budget=1e-8:2e-8"], ["1e-8:2e-8", "a range"]),
        (["--axes", "delay_budget=1e-8:2e-8:0"], ["a range"]),
        (["--axes", "delay_budget=0:2e-8:3:log"], ["a range"]),
        (["--axes", "delay_budget=-1e-8"], ["-1e-08", "above 0"]),
        (["--axes", "num_devices=2.5"], ["2.5", "whole numbers from 1"]),
        (["--axes", "scheduler=best"], ["scheduler=best", "all_in", "random_k:4"]),
        (["--axes", "channel=trace:nosuch.csv"], ["nosuch.csv", "name a file"]),
        (["--channel", "radio"], ["--channel radio", "rayleigh", "trace:FILE"]),
        (["--scheduler", "random_k"], ["--scheduler random_k", "random_k:4"]),
        (["--scheduler", "greedy"], ["--scheduler greedy", "not in both"]),  # the default axes
        (["--devices", "5", "--axes", "num_devices=5,6"], ["--devices 5", "not in both"]),
        (["--axes", "scheduler=random_k:21"], ["--axes random_k:21", "k=21", "choose 1 to 20"]),
        (["--seeds", "0"], ["--seeds", "0", "1 or more"]),
        (["--seeds", "many"], ["--seeds", "1 or more"]),
        (["--block-size", "0"], ["--block-size", "1 or more"]),
        (["--coordinator", "here"], ["--coordinator here", "HOST:PORT"]),
        (["--processes", "2"], ["--coordinator", "all of coordinator"]),
        (["--out", "/dev/null/x"], ["--out", "folder that can be written"]),
        (["--colour", "red"], ["--colour", "jaxsplit sweep --help"]),
    ],
)
def test_bad_options_end_in_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *SHORT, *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("jaxsplit: error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in captured.err + captured.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing half-written


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["round,device,gain_db", "0,0,-90", "2,0,-90"], ["round 0", "round 2", "fill the gaps"]),
        (["round,device,gain_dbm", "0,0,-90"], ["gain_dbm", "gain_linear"]),
    ],
)
def test_a_bad_trace_ends_in_one_line(lines, words, tmp_path, capsys):
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *SHORT, "--channel", f"trace:{path}", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in words:
        assert word in line


def test_checks_name_the_option():
    with pytest.raises(OptionError, match="process=2 is not allowed: give 0 to 1"):
        SweepConfig(coordinator="localhost:1", processes=2, process=2).check()


@pytest.mark.slow
def test_sweep_of_the_readme_runs_as_it_stands(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    *_, snippet = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    names: dict = {}
    exec(snippet, names)
    assert names["result"].mean_delay.shape == (2, 3, 2, 100)
    assert "100%" in capsys.readouterr().out
