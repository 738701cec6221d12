"""`jaxsplit run --scheme`: SFT and its baselines on the command line."""

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from tiny_checkpoints import SHORT, command, shared_folder, tiny_folder  # noqa: F401

SCHEMES = {
    "sft": ["--cut", 1, "--local-steps", 2],
    "sft_uncompressed": ["--cut", 1],
    "sl": ["--cut", 0],
    "fl_lora": [],
    "fl_full": [],
    "fedft": ["--cut", 1, "--codec", "top_k_quantization", "--masked-gradient"],
}


def pictures(*options):
    folder = tiny_folder()
    model, data = folder / "vit", folder / "pictures"
    return ["run", "--model", model, "--data", data, *SHORT, *options]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_runs_and_describes_itself(scheme, tmp_path):
    radio = [] if scheme == "fedft" else ["--channel", "fixed_snr"]
    options = [*SCHEMES[scheme], *radio, "--policies", "all_in", "--out", tmp_path]
    command(*pictures("--scheme", scheme, *options))
    result = xr.load_dataset(tmp_path / "run.nc").isel(policy=0, seed=0)
    assert scheme in result.attrs["title"]
    has_phases = scheme != "fedft"
    assert ("phase_s" in result) == has_phases == (tmp_path / "gantt.png").exists()
    if has_phases:
        together = result.phase_s.sum("phase")
        slowest = together.sum("device") if scheme == "sl" else together.max("device")
        np.testing.assert_allclose(result.delay_s, slowest, rtol=1e-5)
        assert matplotlib.image.imread(tmp_path / "gantt.png").std() > 0
    assert np.isfinite(result.loss).all()
    compared = "compared with real streams" in (tmp_path / "run.log").read_text()
    assert compared == (scheme == "sft")


def test_a_run_of_all_weights_has_no_adapter_to_export(tmp_path, capsys):
    fixed = ["--channel", "fixed_snr", "--policies", "all_in"]
    command(*pictures("--scheme", "fl_full", *fixed, "--out", tmp_path))
    assert "trained: all" in (tmp_path / "run.log").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command("export", "--run", tmp_path)
    assert stop.value.code == 2
    assert "a run with adapters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scheme", "sft"], ["--cut", "blocks on the devices"]),
        (["--scheme", "sft", "--cut", 2], ["--cut 2", "0 to 1"]),
        (["--scheme", "fl_lora", "--cut", 1], ["--cut 1", "whole model"]),
        (["--scheme", "fl_lora", "--codec", "top_k"], ["--codec top_k", "whole model"]),
        (["--scheme", "fl_full", "--lora-targets", "query"], ["--lora-targets query", "all weig"]),
        (["--scheme", "sl", "--cut", 1, "--codec", "top_k"], ["--codec top_k", "sl"]),
        (["--scheme", "sft", "--cut", 1, "--heads", "shared"], ["--heads shared", "fedft"]),
        (["--codec", "compressed", "--codec-ratio", 0], ["--codec-ratio 0", "above 0"]),
        (["--masked-gradient"], ["--masked-gradient", "drops entries"]),
        (["--codec-levels", 256], ["--codec-levels 256", "1 to 255"]),
        (["--device-clock-ghz", 2, 1], ["--device-clock-ghz", "slowest <= fastest"]),
        (["--policies", "greedy", "--policies=aaba"], ["--policies is given 2 times"]),
    ],
)
def test_what_does_not_go_together_is_refused(options, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*pictures(*options, "--out", tmp_path / "out"))
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2, message
    assert "\n" not in message
    for word in words:
        assert word in message
