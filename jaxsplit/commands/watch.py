"""Watching a comparison: a progress bar, a log beside the result, and trackers."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from rich.progress import Progress

from jaxsplit.federated import LearningState
from jaxsplit.observer import Observer
from jaxsplit.tracking import Tracker, Writer, no_tracker


@contextlib.contextmanager
def watched(
    bars: Progress,
    log: Path,
    setting: Mapping[str, Any],
    num_samples: int,
    tracker: Tracker = no_tracker,
) -> Iterator["Watch"]:
    """Watch a run from its start to its end, or to what stopped it.

    Args:
      bars: from `progress_bars`.
      log: file that lines are added to, made anew where there is none.
      setting: the run's configuration, for the log and the trackers.
      num_samples: what the run will send through the backbone.
      tracker: see `jaxsplit.tracking`.

    Yields:
      What makes the observers.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        watch = Watch(bars, file, setting, num_samples, tracker)
        try:
            yield watch
        except BaseException as error:
            watch.write(f"stopped: {type(error).__name__} {error}".rstrip())
            raise
        finally:
            watch.close()
        watch.write("finished")


class Watch:
    """Makes observers that share a bar, a log and trackers; use `watched`."""

    def __init__(
        self,
        bars: Progress,
        file: TextIO,
        setting: Mapping[str, Any],
        num_samples: int,
        tracker: Tracker,
    ) -> None:
        self._bars, self._file, self._setting = bars, file, setting
        self._tracker, self._writers = tracker, dict[str, Writer]()
        self._task = bars.add_task("compiling", total=num_samples, unit="samples")
        self._todo, self._done, self._tenths = num_samples, 0, 0
        self._has_noted = False
        self._first: tuple[float, int] | None = None  # when the first samples were done
        device = jax.devices()[0]
        self.write(f"started on {len(jax.devices())} × {device.device_kind} ({device.platform})")
        self.write(f"configuration {json.dumps(setting, default=str)}")

    def __call__(self, label: str) -> Observer:
        """The observer of a policy.

        Args:
          label: the policy's name, or what else tells its run from others.
        """
        return _Watcher(self, label)

    def write(self, line: str) -> None:
        """Add a line to the log, with the time."""
        self._file.write(f"{datetime.now().isoformat(timespec='seconds')} {line}\n")
        self._file.flush()

    def describe(self, text: str) -> None:
        """Say what is going on beside the bar."""
        self._bars.update(self._task, description=text)

    def say(self, line: str) -> None:
        """Show a line above the bar, and log it."""
        self._bars.console.print(line)
        self.write(line)

    def note(self, line: str) -> None:
        """Log a line; the first is shown, too, and stands for its like of the other policies."""
        (self.write if self._has_noted else self.say)(line)
        self._has_noted = True

    def skip(self, samples: int) -> None:
        """So much has been done before: it says nothing about the time that is left."""
        self._todo -= samples
        self._bars.update(self._task, total=self._todo)

    def advance(self, samples: int) -> None:
        """So much more is done; the log has the time left after each tenth."""
        self._done += samples
        self._bars.update(self._task, completed=self._done)
        now = time.perf_counter()
        if self._first is None:  # what came before was compiling
            self._first = (now, self._done)
            return
        tenths = 10 * self._done // max(self._todo, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            since, before = self._first
            left_s = (now - since) * (self._todo - self._done) / (self._done - before)
            self.write(f"{10 * tenths} % done, about {left_s:.0f} s left")

    def writer(self, name: str, first_round: int) -> Writer:
        """The tracker's writer for a run, opened when it is first asked for."""
        if name not in self._writers:
            self._writers[name] = self._tracker(name, self._setting, first_round)
        return self._writers[name]

    def close(self, name: str | None = None) -> None:
        """Close the writer of a run, or all."""
        for run in [name] if name else list(self._writers):
            if run in self._writers:
                self._writers.pop(run).close()


class _Watcher(Observer):
    """Tells the watch about a policy."""

    def __init__(self, watch: Watch, label: str) -> None:
        self._watch, self._label = watch, label

    def _name(self, seed: int) -> str:
        return f"{self._label}-seed{seed}"

    def noted(self, message: str) -> None:
        """See `Observer`."""
        self._watch.note(f"{self._label}: {message}")

    def resumed(self, seed: int, rounds: int, samples: int) -> None:
        """See `Observer`."""
        self._watch.skip(samples)
        self._watch.say(f"{self._name(seed)} goes on after {rounds} rounds")
        self._watch.writer(self._name(seed), rounds)

    def encoded(self, samples: int) -> None:
        """See `Observer`."""
        self._watch.advance(samples)

    def trained(self, seed: int, first_round: int, metrics: Mapping[str, np.ndarray]) -> None:
        """See `Observer`."""
        writer = self._watch.writer(self._name(seed), first_round)
        for k, values in enumerate(zip(*metrics.values(), strict=True)):
            named = {f"train/{name}": float(x) for name, x in zip(metrics, values, strict=True)}
            writer.write(first_round + k, named)

    def evaluated(self, seed: int, rounds: int, metrics: Mapping[str, float]) -> None:
        """See `Observer`."""
        self._watch.describe(f"{self._name(seed)}, {rounds} rounds")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._watch.write(f"{self._name(seed)} after {rounds} rounds: {shown}")
        named = {f"test/{name}": value for name, value in metrics.items()}
        self._watch.writer(self._name(seed), 0).write(rounds, named)

    def finished(self, seed: int, state: LearningState) -> None:
        """See `Observer`."""
        self._watch.close(self._name(seed))
