"""Curves while a run goes on: one writer contract, with TensorBoard and Weights & Biases behind it.

A tracker opens a writer for each run. Anything with `write` and `close` is a writer, and any
function that returns one is a tracker, so a logger of your own needs nothing from here.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxsplit.files import atomic_path
from jaxsplit.options import OptionError

_FLUSH_SECONDS = 10  # what a killed process loses at most, and how old a live curve is


class Writer(Protocol):
    """Where the metrics of one run go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to the curves.

        Args:
          step: the communication round; never smaller than that of an earlier call.
          values: metrics by name; they may be NaN or infinite.
        """

    def close(self) -> None:
        """Hand over what is still held; nothing is written after that."""


#: Opens a writer: (the run's name such as "lyapunov_bound-seed0", its configuration, the first
#: round that will be written). A first round above 0 continues an earlier attempt of that name.
Tracker = Callable[[str, Mapping[str, Any], int], Writer]


@dataclasses.dataclass(frozen=True)
class _Several:
    writers: Sequence[Writer]
    opened: contextlib.ExitStack

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def close(self) -> None:
        self.opened.close()


def several(trackers: Sequence[Tracker]) -> Tracker:
    """Write to all of some trackers.

    Args:
      trackers: any number of them.

    Returns:
      A tracker; where one writer fails to open or to close, the others are closed nevertheless.

    Example:
      >>> class Printer:
      ...     def __init__(self, name, configuration, first_step):
      ...         self.name = name
      ...     def write(self, step, values):
      ...         print(self.name, step, values)
      ...     def close(self):
      ...         print(self.name, "ends")
      >>> writer = several([Printer, no_tracker])("greedy-seed0", {"rounds": 1}, 0)
      >>> writer.write(0, {"loss": 0.5})
      greedy-seed0 0 {'loss': 0.5}
      >>> writer.close()
      greedy-seed0 ends
    """

    def track(name: str, configuration: Mapping[str, Any], first_step: int) -> Writer:
        with contextlib.ExitStack() as opened:
            writers = []
            for tracker in trackers:
                writers.append(tracker(name, configuration, first_step))
                opened.callback(writers[-1].close)
            return _Several(tuple(writers), opened.pop_all())

    return track


#: Writes nothing.
no_tracker: Tracker = several(())


@dataclasses.dataclass(frozen=True)
class _TensorBoardWriter:
    summary: Any  # tensorboardX.SummaryWriter

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.summary.add_scalar(name, float(value), step)

    def close(self) -> None:
        self.summary.close()


def tensorboard(folder: Path) -> Tracker:
    """Write event files; see the curves with `tensorboard --logdir FOLDER`.

    Args:
      folder: each run gets a folder of its name there, so that curves lie over each other. What
        earlier attempts wrote from the first round on is hidden by TensorBoard.

    Returns:
      A tracker; the configuration is a text of the run.

    Raises:
      OptionError: the extra `tensorboard` is not installed.
    """
    package = _package("tensorboardX", extra="tensorboard")
    # It would log a line for each value that is not finite; TensorBoard marks them in the curve.
    logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)

    def track(name: str, configuration: Mapping[str, Any], first_step: int) -> Writer:
        summary = package.SummaryWriter(
            str(folder / name),
            purge_step=first_step,
            flush_secs=_FLUSH_SECONDS,
            # Its own names count seconds: a resumption in the same one would overwrite the file.
            filename_suffix=f".{time.time_ns()}",
        )
        lines = json.dumps(_plain(configuration), indent=2, ensure_ascii=False).splitlines()
        code = "\n".join(f"    {line}" for line in lines)  # Markdown: shown as it stands
        summary.add_text("configuration", code, first_step)
        return _TensorBoardWriter(summary)

    return track


@dataclasses.dataclass(frozen=True)
class _WandbWriter:
    run: Any  # wandb.Run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({name: float(value) for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


def wandb(folder: Path, project: str | None = None, group: str | None = None) -> Tracker:
    """Send curves to Weights & Biases, each run as one of a group.

    W&B's variables count: with WANDB_MODE=offline nothing leaves the machine, and `wandb sync`
    uploads the runs later. A resumed run goes on under the id that is kept in `folder`. Rounds that
    W&B holds already are not written again: a resumed run repeats them exactly.

    Args:
      folder: local files go to its folder `wandb`.
      project: on W&B; $WANDB_PROJECT by default, or else jaxsplit.
      group: what the runs share; $WANDB_RUN_GROUP by default, or else the folder's name.

    Returns:
      A tracker; several of its runs may be open at once.

    Raises:
      OptionError: the extra `wandb` is not installed, or W&B accepts no login from here.
    """
    package = _package("wandb", extra="wandb")
    if os.environ.get("WANDB_MODE", "online") == "online":
        try:
            package.login(verify=True)
        except package.errors.Error as error:
            allowed = f"it after `wandb login`, or with WANDB_MODE=offline ({_one_line(error)})"
            raise OptionError("track", "wandb", allowed) from error

    def track(name: str, configuration: Mapping[str, Any], first_step: int) -> Writer:
        kept = folder / "wandb" / f"{name}.id"
        continues = first_step > 0 and kept.exists()
        run_id = kept.read_text().strip() if continues else uuid.uuid4().hex[:16]
        if not continues:
            with atomic_path(kept) as path:
                path.write_text(run_id)
        run = package.init(
            dir=str(folder),
            project=project or os.environ.get("WANDB_PROJECT") or "jaxsplit",
            group=group or os.environ.get("WANDB_RUN_GROUP") or folder.resolve().name,
            name=name,
            id=run_id,
            resume="allow",
            config=_plain(configuration),
            reinit="create_new",  # seeds run at once: neither the same run again, nor its end
            # Runs that are open at once must not capture the terminal from each other.
            settings=package.Settings(console="off", quiet=True),
        )
        return _WandbWriter(run)

    return track


#: Trackers by name; each takes the folder of the results.
TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": lambda folder: tensorboard(folder / "tensorboard"),
    "wandb": wandb,
}


def tracker_named(names: Sequence[str], folder: Path) -> Tracker:
    """Some of `TRACKERS`, which all get the same.

    Args:
      names: of them; none writes nothing.
      folder: of the results.

    Returns:
      A tracker.

    Raises:
      OptionError: a package is missing.
    """
    return several([TRACKERS[name](folder) for name in names])


def _package(name: str, *, extra: str) -> Any:
    """Import a package of an extra, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        allowed = f"it with its package: pip install 'jaxsplit[{extra}]' ({_one_line(error)})"
        raise OptionError("track", extra, allowed) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    """A value in what JSON holds: lists for tuples and arrays, strings for all that it has not."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "tolist"):  # NumPy's and JAX's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
