"""`jaxsplit run --scheme`: SFT and its baselines on the command line."""

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from tiny_checkpoints import SHORT, command, shared_folder, tiny_folder  # noqa: F401
from workers import slow

from jaxsplit.federated import upload as federated_upload

SCHEMES = {
    "sft": ["--cut", 1, "--local-steps", 2],
    "sft_uncompressed": ["--cut", 1],
    "sl": ["--cut", 0],
    "fl_lora": ["--upload-codec", "compressed", "--upload-ratio", 0.05, "--error-feedback"],
    "fl_full": [],
    "fedft": ["--cut", 1, "--codec", "top_k_quantization", "--masked-gradient"],
}


def pictures(*options):
    folder = tiny_folder()
    model, data = folder / "vit", folder / "pictures"
    return ["run", "--model", model, "--data", data, *SHORT, *options]


@pytest.mark.parametrize("scheme", ["fedft", "sft", *slow(SCHEMES.keys() - {"fedft", "sft"})])
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
    assert compared == (scheme in ("sft", "fl_lora"))  # their codecs have streams of their own
    assert (result.sent_up_bits.sum() < 0.1 * result.sent_down_bits.sum()) == (scheme == "fl_lora")


def test_the_straggler_is_the_slow_device_far_away(tmp_path, capsys):
    devices = int(SHORT[SHORT.index("--devices") + 1])
    assert devices != 2
    clocks_ghz, snr_db = np.full(devices, 1.0), np.full(devices, 20.0)
    clocks_ghz[1], snr_db[1] = 1e-3, 0.0
    options = ["--channel", "fixed_snr", "--policies", "all_in", "--out", tmp_path]
    command(
        *pictures("--scheme", "sft", "--cut", 1, *options, "--allocation", "equal"),
        *["--device-clock-ghz", *clocks_ghz, "--snr-db", *snr_db, "--device-memory-mib", 50],
    )
    result = xr.load_dataset(tmp_path / "run.nc").isel(policy=0, seed=0)
    assert (result.straggler == 1).all()
    busy_s = result.phase_s.sum("phase")
    assert (busy_s.isel(device=1) > 1.5 * busy_s.isel(device=0)).all()
    assert "1 (100)" in capsys.readouterr().out


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
        (["--upload-levels", 256], ["--upload-levels 256", "1 to 255"]),
        (["--upload-ratio", 0], ["--upload-ratio 0", "above 0"]),
        (["--error-feedback"], ["--error-feedback", "--upload-codec"]),
        (["--upload-codec", "top_k"], ["--upload-codec top_k", "--adapters per_device"]),
        (["--scheme", "sl", "--cut", 1, "--upload-codec", "top_k"], ["--upload-codec", "handed"]),
        (
            ["--adapters", "per_device", "--upload-codec", "top_k"],
            ["--upload-codec top_k", "--cut of 1", "no adapters to upload"],
        ),
        (["--device-clock-ghz", 0, 1], ["--device-clock-ghz 0.0 1.0", "above 0"]),
        (["--snr-db", *range(3)], ["--snr-db 0.0 1.0 2.0", "1 value for all", "one per device"]),
        (
            ["--scheme", "sft", "--cut", 1, "--device-memory-mib", 0.001],
            ["--device-memory-mib 0.001", "device 0, 1", "no cut fits, not even --cut 0"],
        ),
        (
            ["--scheme", "fl_lora", "--device-memory-mib", 100, 0.001],
            ["--device-memory-mib 0.001", "the whole model (short of it: device 3)", "no cut fits"],
        ),
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


def test_an_upload_that_no_codec_takes_is_refused_before_the_folder_is_claimed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(federated_upload, "_MAX_ELEMENTS", 100)
    options = ["--scheme", "fl_lora", "--upload-codec", "top_k"]
    with pytest.raises(SystemExit) as stop:
        command(*pictures(*options, "--out", tmp_path / "out"))
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "--upload-codec top_k" in message
    assert "values, and a codec takes 100 at most" in message
    assert not list(tmp_path.glob("out/**/setting.json"))
