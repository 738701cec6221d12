"""The scripts that run SFT beyond its figures: what compression costs, and both papers combined."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tiny_checkpoints import shared_folder, tiny_folder  # noqa: F401

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(name):
    """A script of the experiments as a module."""
    specification = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Both runs on tiny data: the folder and what was printed."""
    out = tmp_path_factory.mktemp("compared")
    module, folder = script("compressed_accuracy"), tiny_folder()
    module.BASE = dataclasses.replace(
        module.BASE, data=str(folder / "pictures"), cut=1, devices=3, devices_per_step=3,
        batch_size=4, local_steps=2, rounds=2, evaluate_every=1, max_test=None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            ["x", "--out", str(out), "--seeds", "2", "--model", str(folder / "vit")],
        )
        module.main()
        patch.setattr(module, "run_and_tell", None)  # what is finished is not run again
        module.main()
    return out


def results(out):
    return {
        name: xr.load_dataset(out / name / "run.nc").isel(policy=0)
        for name in ("sft", "sft_uncompressed")
    }


@pytest.mark.slow
def test_what_compression_costs_is_paired_by_seed(compared):
    found = json.loads((compared / "compressed_accuracy.json").read_text())
    final = {name: 100 * of.accuracy[:, -1].values for name, of in results(compared).items()}
    difference = final["sft"] - final["sft_uncompressed"]
    assert found["seeds"] == 2
    np.testing.assert_allclose(found["difference_points"][0], difference.mean(), atol=1e-4)
    np.testing.assert_allclose(found["difference_of_each_seed_points"], difference, atol=0.01)
    sent = [float((of.sent_up_bits + of.sent_down_bits).sum()) for of in results(compared).values()]
    np.testing.assert_allclose(found["traffic_percent"], 100 * sent[0] / sent[1], rtol=1e-3)
    assert found["traffic_percent"] < 100


def test_combinations_are_told_beside_what_they_come_from(compared):
    module, found = script("combined"), results(compared)
    runs = dict(zip(module.RUNS, [found["sft_uncompressed"], found["sft"]] * 2, strict=True))
    rows = {row["run"]: row for row in module.table(runs)}
    assert [name for name, row in rows.items() if "gain_points" in row] == [*module._PAIRS]
    compression = rows["SFT, Lyapunov"]
    assert compression["traffic_ratio"].mean < 1
    np.testing.assert_allclose(
        compression["traffic_ratio"].mean,
        json.loads((compared / "compressed_accuracy.json").read_text())["traffic_percent"] / 100,
        rtol=1e-4,
    )
    figure = module.draw(runs)
    assert [len(axes.get_lines()) for axes in figure.axes] == [4, 4, 4]
    for axes in figure.axes:
        assert all(np.isfinite(line.get_ydata()).any() for line in axes.get_lines())
