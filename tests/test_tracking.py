"""Trackers: the contract, and what TensorBoard and Weights & Biases read back."""

import json
import math
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.options import OptionError
from jaxsplit.tracking import TRACKERS, no_tracker, several, tensorboard, wandb

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Lora:
    rank: int = 4
    targets: tuple[str, ...] = ("query", "value")


CONFIGURATION = {
    "out": Path("results") / "run",
    "policies": ("greedy", "aaba"),
    "rate": np.float32(0.5),
    "sizes": jnp.arange(2),
    "cap": INF,
    "lora": Lora(),
    "data_dir": None,
    "augment": True,
    3: len,
}
PLAIN = {
    "out": str(Path("results") / "run"),
    "policies": ["greedy", "aaba"],
    "rate": 0.5,
    "sizes": [0, 1],
    "cap": "inf",
    "lora": {"rank": 4, "targets": ["query", "value"]},
    "data_dir": None,
    "augment": True,
    "3": str(len),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


class Recorder:
    """A tracker of one's own: nothing is inherited."""

    def __init__(self):
        self.events = []

    def __call__(self, name, configuration, first_step):
        self.events.append(("open", name, dict(configuration), first_step))
        return self

    def write(self, step, values):
        self.events.append((step, dict(values)))

    def close(self):
        self.events.append("close")


def test_several_trackers_get_the_same():
    recorders = Recorder(), Recorder()
    writer = several(recorders)("greedy-seed0", {"rounds": 3}, 2)
    writer.write(2, {"loss": 1.0, "gap": NAN})
    writer.close()
    for recorder in recorders:
        assert recorder.events[0] == ("open", "greedy-seed0", {"rounds": 3}, 2)
        assert recorder.events[1][0] == 2
        assert recorder.events[1][1]["loss"] == 1.0
        assert recorder.events[2:] == ["close"]


def test_a_writer_that_fails_leaves_no_other_open():
    def fails(name, configuration, first_step):
        raise OSError("disk full")

    class Bad(Recorder):
        def close(self):
            raise OSError("disk full")

    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        several([recorder, fails])("greedy-seed0", {}, 0)
    assert recorder.events[-1] == "close"
    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        several([recorder, Bad()])("greedy-seed0", {}, 0).close()
    assert recorder.events[-1] == "close"


def test_no_tracker_takes_everything():
    writer = no_tracker("greedy-seed0", CONFIGURATION, 0)
    writer.write(0, {"loss": NAN})
    writer.close()


def test_import_needs_no_extra():
    code = (
        "import sys, jaxsplit.tracking; "
        "print({'tensorboardX', 'tensorboard', 'wandb', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_one_line_before_any_run(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # its import fails
    with pytest.raises(OptionError) as caught:
        TRACKERS[name](tmp_path)
    message = str(caught.value)
    assert f"pip install 'jaxsplit[{name}]'" in message
    assert "\n" not in message
    assert caught.value.value == name
    assert list(tmp_path.iterdir()) == []


# TensorBoard


@pytest.fixture
def read_events():
    """The curves and texts that TensorBoard shows for a run's folder."""
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        curves = {
            name: {event.step: event.value for event in events.Scalars(name)}
            for name in events.Tags()["scalars"]
        }
        texts = [
            event.tensor_proto.string_val[0].decode()
            for event in events.Tensors("configuration/text_summary")
        ]
        return curves, texts

    return read


def test_tensorboard_reads_each_run_back(tmp_path, read_events, caplog):
    track = TRACKERS["tensorboard"](tmp_path)
    writers = [track(f"greedy-seed{seed}", CONFIGURATION, 0) for seed in range(2)]
    for step in range(30):  # in turn, as seeds do that run at once
        for seed, writer in enumerate(writers):
            writer.write(step, {"train/loss": 10 * seed + 0.5 * step, "gap": jnp.float32(1)})
    for writer in writers:
        writer.write(30, {"gap": NAN})
        writer.write(31, {"gap": -INF})
        writer.write(32, {"gap": 1e300})  # float32 has no such number
        writer.close()
        writer.close()
    assert caplog.text == ""
    for seed in range(2):
        curves, texts = read_events(tmp_path / "tensorboard" / f"greedy-seed{seed}")
        assert curves["train/loss"] == {step: 10 * seed + 0.5 * step for step in range(30)}
        assert list(curves["gap"])[-3:] == [30, 31, 32]
        assert math.isnan(curves["gap"][30])
        assert curves["gap"][31] == -INF
        assert curves["gap"][32] == INF
        assert json.loads(texts[0]) == PLAIN
        assert all(line.startswith("    ") for line in texts[0].splitlines())


def test_tensorboard_hides_what_is_run_again(tmp_path, read_events):
    track = tensorboard(tmp_path)
    for first, last, value in ((0, 9, 1.0), (4, 7, 2.0), (6, 8, 3.0)):  # within a second, too
        writer = track("greedy-seed0", {}, first)
        for step in range(first, last):
            writer.write(step, {"loss": value})
        writer.close()
    assert len(list((tmp_path / "greedy-seed0").iterdir())) == 3
    curves, _ = read_events(tmp_path / "greedy-seed0")
    assert curves["loss"] == dict(enumerate([1.0] * 4 + [2.0] * 2 + [3.0] * 2))


# Weights & Biases


def records(file):
    """What an offline file holds so far: blocks of 32 KiB, in which a record may be in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 0 < (left := -position % 32768) < 7:  # no room for a header: padding
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        position += 7 + length
        if position > len(data):
            return
        record += data[position - length : position]
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def read_wandb(folder, count):
    """Runs and their histories in a folder, the oldest first."""
    deadline = time.monotonic() + 60  # W&B's service writes a file's end after the run's end
    while True:
        held = [list(records(file)) for file in (folder / "wandb").glob("offline-run-*/*.wandb")]
        if len(held) == count and all(any(r.HasField("exit") for r in run) for run in held):
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runs = []
    for messages in held:
        run = next(message.run for message in messages if message.HasField("run"))
        history = {}
        for row in (message.history for message in messages if message.HasField("history")):
            values = {item.nested_key[0]: json.loads(item.value_json) for item in row.item}
            history[row.step.num] = {
                name: value for name, value in values.items() if name[0] != "_"
            }
        runs.append((run, history))
    return sorted(runs, key=lambda pair: pair[0].start_time.ToNanoseconds())


def test_wandb_reads_each_run_back_when_several_are_open(tmp_path):
    pytest.importorskip("wandb")
    track = wandb(tmp_path, project="cells")
    writers = [track(f"greedy-seed{seed}", CONFIGURATION, 0) for seed in range(2)]
    for step in range(3):
        for seed, writer in enumerate(writers):
            writer.write(step, {"train/loss": 10.0 * seed + step})
            writer.write(step, {"gap": [jnp.float32(1), NAN, INF][step]})
    for writer in writers:
        writer.close()
        writer.close()
    read = read_wandb(tmp_path, 2)
    assert len({run.run_id for run, _ in read}) == 2
    for seed, (run, history) in enumerate(read):
        assert run.display_name == f"greedy-seed{seed}"
        assert (run.project, run.run_group) == ("cells", tmp_path.name)
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert {key: value for key, value in config.items() if key != "_wandb"} == PLAIN
        assert {step: row["train/loss"] for step, row in history.items()} == {
            step: 10.0 * seed + step for step in range(3)
        }
        assert history[0]["gap"] == 1.0
        assert math.isnan(history[1]["gap"])
        assert history[2]["gap"] == INF


def test_wandb_goes_on_under_the_same_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_RUN_GROUP", "ours")
    for first_step in (0, 2, 0):
        writer = TRACKERS["wandb"](tmp_path)("greedy-seed0", {}, first_step)
        writer.write(first_step, {"loss": 1.0})
        writer.close()
    read = read_wandb(tmp_path, 3)
    first, second, third = (run.run_id for run, _ in read)
    assert first == second
    assert third != first  # from round 0 on, it is another run
    assert [list(history) for _, history in read] == [[0], [2], [0]]
    assert {(run.project, run.run_group) for run, _ in read} == {("mine", "ours")}


def test_wandb_without_login_is_one_line_before_any_run(tmp_path, monkeypatch):
    package = pytest.importorskip("wandb")

    def login(**options):
        raise package.errors.UsageError("No API key\nconfigured.")

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(package, "login", login)
    with pytest.raises(OptionError, match="No API key configured") as caught:
        wandb(tmp_path)
    assert "WANDB_MODE=offline" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
