"""A sweep as the command line states it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxsplit.catalogue import channel_named, scheduler_named
from jaxsplit.network import Network
from jaxsplit.options import Allowed, OptionError, check_options, whole

_ADDRESS = Allowed(
    "HOST:PORT, the address of process 0",
    lambda value: re.fullmatch(r"[^:\s]+:\d{1,5}", value) is not None,
)
_NAMED = {"channel": channel_named, "scheduler": scheduler_named}


@dataclass(frozen=True)
class SweepConfig:
    """Simulate the network, without learning, over a grid of parameters and many seeds.

    Each axis is NAME=VALUES. VALUES are a list (1e-8,2.5e-8) or a range with the number of its
    points (1e-8:6e-8:6, or 1e-2:1e2:9:log). NAME is scheduler, channel, num_devices or any number
    of the network: delay_budget, bandwidth_hz, channel.radius_m, scheduler.v ...
    """

    out: Path = Path("results/sweep")
    """Folder for sweep.nc and sweep.png. An interrupted sweep goes on where it was."""
    axes: tuple[str, ...] = (
        "scheduler=all_in,lyapunov_bound,lyapunov_count,greedy,aaba",
        "delay_budget=5e-9:60e-9:12",
    )
    """What is swept."""
    seeds: Annotated[int, whole(1)] = 100
    """Independent runs of each point, with common seeds 0, 1, ..."""
    rounds: Annotated[int, whole(1)] = 200
    """Communication rounds T."""
    warmup_rounds: Annotated[int, whole(0)] = 300
    """Rounds that fill the virtual queue before round 0."""
    devices: Annotated[int | None, whole(1).or_none()] = None
    """Devices N, if not swept; 20 by default."""
    channel: str | None = None
    """Channel model, if not swept; rayleigh by default, trace:FILE replays a recorded one."""
    scheduler: str | None = None
    """Scheduling policy, if not swept; lyapunov_bound by default."""
    keep_devices: bool = True
    """Keep participation and energy of each device."""
    keep_rounds: bool = False
    """Keep K, the delay and the queue of each round."""
    block_size: Annotated[int | None, whole(1).or_none()] = None
    """Scenarios that a device simulates at a time; by default what it runs well and holds."""
    coordinator: Annotated[str | None, _ADDRESS.or_none()] = None
    """HOST:PORT of process 0 where several processes share the sweep and the folder."""
    processes: Annotated[int | None, whole(1).or_none()] = None
    """Number of those processes."""
    process: Annotated[int | None, whole(0).or_none()] = None
    """Index of this process, from 0 on."""

    def check(self) -> None:
        """Check what does not need the network.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        several = (self.coordinator, self.processes, self.process)
        for name, value in zip(("coordinator", "processes", "process"), several, strict=True):
            if value is None and several != (None, None, None):
                raise OptionError(name, value, "all of coordinator, processes, process, or none")
        if self.process is not None and self.process >= (self.processes or 0):
            raise OptionError("process", self.process, f"0 to {(self.processes or 0) - 1}")

    def network(self) -> Network:
        """The choices that are not swept.

        Raises:
          OptionError: an unknown name.
        """
        channel, scheduler = self.channel or "rayleigh", self.scheduler or "lyapunov_bound"
        return Network(
            self.devices or 20,
            _named("channel", channel, channel),
            _named("scheduler", scheduler, scheduler),
        )

    def parsed_axes(self) -> dict[str, Any]:
        """The axes as `sweep` takes them.

        Raises:
          OptionError: an axis without a name or values, or one that stands there twice.
        """
        axes: dict[str, Any] = {}
        for text in self.axes:
            name, equals, values = text.partition("=")
            if not (name and equals and values) or name in axes:
                raise OptionError("axes", text, "NAME=VALUES, each name once")
            axes[name] = _values(name, values, text)
        fixed = {"num_devices": self.devices, "channel": self.channel, "scheduler": self.scheduler}
        for name, value in fixed.items():
            if name in axes and value is not None:
                option = "devices" if name == "num_devices" else name
                raise OptionError(option, value, f"{name} either here or in axes, not in both")
        return axes


def _named(kind: str, name: str, text: str, option: str | None = None) -> Any:
    try:
        return _NAMED[kind](name)
    except ValueError as error:
        raise OptionError(option or kind, text, str(error).removeprefix("give ")) from None


def _values(name: str, values: str, text: str) -> Any:
    """What stands behind the = of an axis."""
    items = values.split(",")
    if name in _NAMED:
        return {item: _named(name, item, f"{name}={item}", "axes") for item in items}
    try:
        numbers = [number for item in items for number in _numbers(item)]
    except ValueError:
        allowed = "numbers like 1e-8,2e-8, a range 1e-8:6e-8:6, or 1e-2:1e2:9:log"
        raise OptionError("axes", text, allowed) from None
    if name == "num_devices" and all(number == int(number) for number in numbers):
        return [int(number) for number in numbers]
    return numbers


def _numbers(item: str) -> list[float]:
    """A number, or a range FIRST:LAST:POINTS or FIRST:LAST:POINTS:log."""
    parts = item.split(":")
    if len(parts) == 1:
        return [float(item)]
    if len(parts) == 3 or (len(parts) == 4 and parts[3] == "log"):
        spaced = np.geomspace if len(parts) == 4 else np.linspace
        first, last, points = float(parts[0]), float(parts[1]), int(parts[2])
        if points > 0 and np.isfinite([first, last]).all():
            with np.errstate(invalid="raise"):
                return spaced(first, last, points).tolist()
    raise ValueError(item)
