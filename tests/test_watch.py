"""What a reader of the log, the bar and the trackers sees of a run."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from jaxsplit.commands import watch as module
from jaxsplit.commands.progress import progress_bars
from jaxsplit.commands.watch import watched


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Tracker:
    """Keeps what it is given."""

    def __init__(self):
        self.opened, self.closed, self.written = [], [], []

    def __call__(self, name, configuration, first_step):
        self.opened.append((name, dict(configuration), first_step))
        tracker = self

        class Writer:
            def write(self, step, values):
                tracker.written.append((name, step, values))

            def close(self):
                tracker.closed.append(name)

        return Writer()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", clock.perf_counter)
    return clock


def bars():
    return progress_bars(Console(file=io.StringIO(), width=140))


def test_the_log_has_setting_evaluations_and_time_left(tmp_path, clock):
    """100 samples: compiling and 10 in the first 50 s, then one a second."""
    log = tmp_path / "deep" / "run.log"
    with bars() as progress, watched(progress, log, {"rounds": 7}, 100) as watch:
        observer = watch("greedy")
        observer.noted("one seed after the other")
        clock.now += 50
        observer.encoded(10)
        for _ in range(9):
            clock.now += 10
            observer.encoded(10)
        observer.evaluated(2, 7, {"accuracy": 0.8125})
        assert progress.tasks[0].completed == progress.tasks[0].total == 100
        assert progress.tasks[0].description == "greedy-seed2, 7 rounds"
    lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert re.fullmatch(r"started on \d+ × .* \(cpu\)", lines[0])
    assert lines[1:3] == ['configuration {"rounds": 7}', "greedy: one seed after the other"]
    left = [80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert lines[3:12] == [f"{100 - seconds} % done, about {seconds} s left" for seconds in left]
    assert lines[12:] == ["greedy-seed2 after 7 rounds: accuracy 0.8125", "finished"]


def test_what_was_done_before_says_nothing_about_the_time_left(tmp_path, clock):
    log = tmp_path / "run.log"
    with bars() as progress, watched(progress, log, {}, 1000) as watch:
        watch("greedy").resumed(0, 30, 900)
        for _ in range(5):
            clock.now += 10
            watch("greedy").encoded(20)
        assert progress.tasks[0].total == 100
    text = log.read_text()
    assert "greedy-seed0 goes on after 30 rounds" in text
    assert "40 % done, about 30 s left" in text


def test_trackers_get_every_round_and_close(tmp_path):
    tracker = Tracker()
    with bars() as progress, watched(progress, tmp_path / "l", {"v": 1}, 9, tracker) as watch:
        first, second = watch("aaba"), watch("greedy")
        first.trained(1, 3, {"loss": np.array([0.5, np.nan]), "num_scheduled": np.array([4, 0])})
        first.evaluated(1, 5, {"accuracy": 0.75})
        first.finished(1, None)
        second.resumed(0, 2, 0)
        second.trained(0, 2, {"loss": np.array([0.25])})
    assert tracker.opened == [("aaba-seed1", {"v": 1}, 3), ("greedy-seed0", {"v": 1}, 2)]
    assert tracker.closed == ["aaba-seed1", "greedy-seed0"]
    assert [(name, step) for name, step, _ in tracker.written] == [
        ("aaba-seed1", 3), ("aaba-seed1", 4), ("aaba-seed1", 5), ("greedy-seed0", 2),
    ]  # fmt: skip
    assert tracker.written[0][2] == {"train/loss": 0.5, "train/num_scheduled": 4.0}
    assert tracker.written[2][2] == {"test/accuracy": 0.75}


def test_what_stopped_a_run_is_logged_and_writers_are_closed(tmp_path):
    tracker, log = Tracker(), tmp_path / "run.log"

    def stop_with(error):
        with bars() as progress, watched(progress, log, {}, 9, tracker) as watch:
            watch("aaba").trained(0, 0, {"loss": np.array([1.0])})
            raise error

    for error in (KeyboardInterrupt(), ValueError("no such thing")):
        with pytest.raises(type(error)):
            stop_with(error)
    lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert "stopped: KeyboardInterrupt" in lines
    assert "stopped: ValueError no such thing" in lines  # the second attempt adds to the first
    assert "finished" not in lines
    assert tracker.closed == ["aaba-seed0"] * 2
