"""A sweep gives the same bits on one device, on four, in two processes, and in pieces."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("shared_out.py")


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "result.nc"
    finish(start(path, 1))
    return xr.load_dataset(path)


def without_setting(result):
    return result.drop_attrs(deep=False)


def test_four_devices_give_the_bits_of_one(alone, tmp_path):
    finish(start(tmp_path / "four.nc", 4))
    four = xr.load_dataset(tmp_path / "four.nc")
    xr.testing.assert_identical(without_setting(four), without_setting(alone))
    assert four.attrs == alone.attrs


def test_two_processes_give_the_bits_of_one(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    out = tmp_path / "shared"
    processes = [start(tmp_path / f"{i}.nc", 2, out, coordinator, 2, i) for i in (0, 1)]
    for process in processes:
        finish(process)
    assert [path.name for path in out.iterdir()] == ["sweep.nc"]
    for path in (out / "sweep.nc", tmp_path / "0.nc", tmp_path / "1.nc"):
        both = xr.load_dataset(path)
        xr.testing.assert_identical(without_setting(both), without_setting(alone))
