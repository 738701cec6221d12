"""A sweep: grid × seeds, block by block over devices and processes, kept as it goes."""

import contextlib
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax.experimental import multihost_utils

from jaxsplit.memory import device_bytes, size
from jaxsplit.network import Network, NetworkParams
from jaxsplit.options import OptionError, check_writable_folder
from jaxsplit.results import save
from jaxsplit.setting import check_same_setting
from jaxsplit.sweeps.grid import Grid, make_grid
from jaxsplit.sweeps.limits import check_result_fits, result_bytes
from jaxsplit.sweeps.program import (
    BlockProgram,
    Stages,
    compile_blocks,
    fingerprint,
    scenario_stages,
)
from jaxsplit.sweeps.result import label_result
from jaxsplit.sweeps.store import (
    FolderStore,
    MemoryStore,
    Place,
    Store,
    is_disk_full,
)
from jaxsplit.sweeps.summary import PER_DEVICE

Progress = Callable[[str, int, int], None]
_RESULT, _BLOCKS = "sweep.nc", ".blocks"
# Scenarios in a block: with more of them a round of one hardly becomes cheaper.
_BLOCK_SIZE_CPU, _BLOCK_SIZE_ACCELERATOR = 256, 8192
_SECONDS_PER_CALL = 0.5  # between two reports of progress


class DiskFullError(OSError):
    """No more could be written; what was done is kept."""


def sweep(
    network: Network,
    axes: Mapping[str, Any],
    *,
    seeds: int | Sequence[int],
    num_rounds: int,
    warmup_rounds: int = 0,
    params: NetworkParams | None = None,
    keep_devices: bool = True,
    keep_rounds: bool = False,
    out: str | Path | None = None,
    block_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Simulate a network for every combination of some parameters, many seeds each.

    Scenarios run in blocks of a fixed shape, one block per device at a time; only sums over
    rounds are kept, so that memory does not grow with the rounds. Seed and channel alone decide
    the gains: scenarios that differ in something else are paired by seed.

    Where `jax.distributed` has been initialised, the processes share the blocks and all return the
    result; `out` must then be a folder that they share.

    Args:
      network: the choices that are not swept.
      axes: values by name. Any scalar of the params pytree (`"delay_budget"`,
        `"channel.radius_m"`, `"scheduler.v"`) takes a sequence of numbers and costs no
        compilation. `"num_devices"` takes a sequence, `"channel"` and `"scheduler"` take a dict of
        labels and models; each combination of these is compiled once.
      seeds: their number, from 0 on, or the seeds themselves.
      num_rounds: T.
      warmup_rounds: rounds before round 0 that only fill the queue.
      params: the numbers that are not swept; a swept channel or scheduler brings its own.
      keep_devices: keep participation and energy of each device.
      keep_rounds: keep K_t, τ_t and Q_t of each round.
      out: folder for `sweep.nc`. Finished blocks are kept there, too: after an interruption the
        same call goes on where it was, and gives the same bits.
      block_size: scenarios in a block; by default as many as a device runs well and holds.
      devices: of this process; all of them by default.
      progress: called with "compiling" and the programs done and to do, then with "simulating"
        and the rounds done and to do, summed over scenarios.

    Returns:
      A labelled data set: the axes' dimensions and `seed`; `device` and `round` where kept. Units
      and meanings are in the attributes; numbers are float64.

    Raises:
      OptionError: an axis that is not a parameter, values that it cannot have, more memory or
        disk than there is, a folder that holds another sweep.
      DiskFullError: the disk filled up on the way.

    Example:
      >>> from jaxsplit.scheduling import greedy, lyapunov
      >>> from jaxsplit.wireless import rayleigh
      >>> result = sweep(
      ...     Network(10, rayleigh(), greedy()),
      ...     {"scheduler": {"lyapunov": lyapunov(), "greedy": greedy()},
      ...      "delay_budget": [10e-9, 25e-9, 60e-9]},
      ...     seeds=4, num_rounds=20)
      >>> dict(result.mean_delay.sizes)
      {'scheduler': 2, 'delay_budget': 3, 'seed': 4}
      >>> bool((result.mean_scheduled.mean("seed").diff("delay_budget") > 0).all())
      True
    """
    _check_whole("num_rounds", num_rounds, 1)
    _check_whole("warmup_rounds", warmup_rounds, 0)
    if block_size is not None:
        _check_whole("block_size", block_size, 1)
    plan = _Plan(
        make_grid(network, axes, seeds, params),
        num_rounds,
        warmup_rounds,
        keep_devices,
        keep_rounds,
    )
    devices = jax.local_devices() if devices is None else devices
    progress = progress or (lambda stage, done, total: None)
    setting = plan.setting(devices[0])
    if out is not None:
        return _in_folder(plan, setting, Path(out), devices, block_size, progress)
    if jax.process_count() > 1:
        raise OptionError("out", None, "a folder that all processes share")
    check_result_fits(plan.result_bytes, None)
    blocks, store = _compile(plan, devices, block_size, progress), MemoryStore()
    _simulate(plan, blocks, store, progress)
    return _label(plan, blocks, store, setting | {"block_size": blocks.size})


def _check_whole(name: str, value: Any, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise OptionError(name, value, f"a whole number, {low} or more")


@dataclass(frozen=True)
class _Plan:
    """What is simulated and kept: all that decides the bits but the size of a block."""

    grid: Grid
    num_rounds: int
    warmup_rounds: int
    keep_devices: bool
    keep_rounds: bool

    @property
    def axis_names(self) -> list[str]:
        return list(self.grid.numbers)

    @functools.cached_property
    def stages(self) -> list[Stages]:
        """Of each program."""
        return [
            scenario_stages(program, self.num_rounds, self.keep_rounds)
            for program in self.grid.programs()
        ]

    @functools.cached_property
    def fingerprints(self) -> list[str]:
        """Of each program; the first time that all of a network is looked at, without running it.

        Raises:
          OptionError: its parts do not go together.
        """
        found = []
        for program, stages in zip(self.grid.programs(), self.stages, strict=True):
            try:
                found.append(fingerprint(stages, self.axis_names))
            except ValueError as error:
                label = program.label or f"{program.network.num_devices} devices"
                allowed = f"parts of a network that go together: {error}"
                raise OptionError("axes", label, allowed) from error
        return found

    @property
    def result_bytes(self) -> int:
        num_devices = max(program.network.num_devices for program in self.grid.programs())
        return result_bytes(
            len(self.stages) * self.grid.scenarios_per_program,
            num_devices if self.keep_devices else 0,
            self.num_rounds if self.keep_rounds else 0,
        )

    def setting(self, device: jax.Device) -> dict[str, Any]:
        """What tells this sweep from another, as plain data."""
        grid = self.grid
        return {
            "kind": "jaxsplit sweep",
            "axes": {name: list(values) for name, values in grid.choices.items()}
            | {name: values.tolist() for name, values in grid.numbers.items()},
            "seeds": _short(grid.seeds),
            "num_rounds": self.num_rounds,
            "warmup_rounds": self.warmup_rounds,
            "keep_devices": self.keep_devices,
            "keep_rounds": self.keep_rounds,
            "network": self.fingerprints,
            "versions": {name: version(name) for name in ("jaxsplit", "jax", "jaxlib")},
            "device_kind": device.device_kind,
        }


def _short(seeds: range | np.ndarray) -> list[int] | str:
    """Seeds in one line: the ends of a range, all of a few, a digest of many."""
    if isinstance(seeds, range):
        return f"{seeds[0]} to {seeds[-1]}"
    if len(seeds) <= 100:
        return seeds.tolist()
    return f"{len(seeds)} seeds, {hashlib.sha256(seeds.tobytes()).hexdigest()[:16]}"


def _in_folder(
    plan: _Plan,
    setting: dict[str, Any],
    out: Path,
    devices: Sequence[jax.Device],
    block_size: int | None,
    progress: Progress,
) -> xr.Dataset:
    """The result that a folder has; else simulate what it lacks."""
    check_writable_folder("out", out)
    path, store = out / _RESULT, FolderStore(out / _BLOCKS)
    if found := _setting_of(path) or store.setting():
        block_size = block_size or found.get("block_size")
        wanted = setting | {"block_size": block_size}
        if any(found.get(name) != wanted.get(name) for name in {*found, *wanted} - {"network"}):
            found, wanted = ({**s, "network": None} for s in (found, wanted))  # follows from these
        check_same_setting("out", out, found, wanted, "a sweep")
    if path.exists():
        return xr.load_dataset(path, engine="h5netcdf")

    check_result_fits(plan.result_bytes, out)
    blocks = _compile(plan, devices, block_size, progress)
    setting |= {"block_size": blocks.size}
    if jax.process_index() == 0:
        store.create(setting)
    _wait_for_all("the folder")
    with _full_disk_told(out):
        _simulate(plan, blocks, store, progress)
    _wait_for_all("the blocks")
    if jax.process_index() == 0:
        with _full_disk_told(out):
            save(_label(plan, blocks, store, setting), path)
        store.remove()
    _wait_for_all("the result")
    return xr.load_dataset(path, engine="h5netcdf")


@contextlib.contextmanager
def _full_disk_told(out: Path) -> Iterator[None]:
    """Say what a full disk means for the sweep; other errors pass."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(
            f"no space is left for {out}: the blocks that were finished are kept; make room, and "
            "the same command goes on from there"
        ) from error


def _setting_of(path: Path) -> dict[str, Any] | None:
    """The setting of a finished sweep, None if there is no file."""
    if not path.exists():
        return None
    with xr.open_dataset(path, engine="h5netcdf") as file:
        return json.loads(file.attrs.get("setting", "{}")) or {"kind": "something else"}


def _wait_for_all(what: str) -> None:
    """Wait until all processes have come to this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def _least_of_all(number: int) -> int:
    """The least of a number over all processes."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).min())


# -- simulation ------------------------------------------------------------------------------------


class _Blocks(NamedTuple):
    """How the grid is cut and what runs the pieces."""

    size: int  # scenarios in a block
    programs: list[BlockProgram]
    devices: Sequence[jax.Device]

    def places(self, plan: _Plan, program: int) -> list[Place]:
        """All blocks of a program."""
        return [(program, k) for k in range(-(-plan.grid.scenarios_per_program // self.size))]


def _compile(
    plan: _Plan, devices: Sequence[jax.Device], block_size: int | None, progress: Progress
) -> _Blocks:
    """Compile all programs for the greatest block that fits, before anything runs."""
    default = _BLOCK_SIZE_CPU if devices[0].platform == "cpu" else _BLOCK_SIZE_ACCELERATOR
    block = block_size or min(default, plan.grid.scenarios_per_program)
    there_are = device_bytes(devices)
    programs: list[BlockProgram] = []
    progress("compiling", 0, len(plan.stages))
    while len(programs) < len(plan.stages):
        stages = plan.stages[len(programs)]
        programs.append(compile_blocks(stages, plan.axis_names, devices, block))
        needed = programs[-1].bytes_per_device
        if needed > there_are:
            if block_size or block == 1:
                raise OptionError(
                    "block_size",
                    block,
                    f"fewer scenarios or devices: this takes {size(needed)} of memory and "
                    f"{size(there_are)} are free",
                )
            block = max(1, int(block * min(0.5, there_are / needed)))
            programs = []  # all for the same block
        progress("compiling", len(programs), len(plan.stages))
    common = _least_of_all(block)
    if common < block:  # another host has less memory
        return _compile(plan, devices, common, progress)
    return _Blocks(block, programs, devices)


def _simulate(plan: _Plan, blocks: _Blocks, store: Store, progress: Progress) -> None:
    """Simulate this process's part of the blocks that the store lacks."""
    every = [place for program in range(len(plan.stages)) for place in blocks.places(plan, program)]
    mine = every[jax.process_index() :: jax.process_count()]
    missing = [place for place in mine if place not in store]
    total = len(missing) * blocks.size * (plan.warmup_rounds + plan.num_rounds)
    done = 0

    def report(scenario_rounds: int) -> None:
        nonlocal done
        done += scenario_rounds
        progress("simulating", done, total)

    report(0)
    for _, group in itertools.groupby(missing, key=lambda place: place[0]):
        of_program = list(group)
        for start in range(0, len(of_program), len(blocks.devices)):
            wave = of_program[start : start + len(blocks.devices)]
            for place, block in zip(wave, _run_wave(plan, blocks, wave, report), strict=True):
                store.put(place, block)


def _run_wave(
    plan: _Plan, blocks: _Blocks, wave: Sequence[Place], report: Callable[[int], None]
) -> list[dict[str, np.ndarray]]:
    """Simulate one block per device; devices without one repeat the last."""
    program = blocks.programs[wave[0][0]]
    filled = [*wave, *[wave[-1]] * (len(blocks.devices) - len(wave))]
    scenarios = [plan.grid.scenarios(block * blocks.size, blocks.size) for _, block in filled]
    seeds, numbers = program.place(jax.tree.map(lambda *leaves: np.stack(leaves), *scenarios))

    carry = program.start(seeds, numbers)
    first, step = -plan.warmup_rounds, 1
    while first < plan.num_rounds:
        began = time.perf_counter()
        end = min(first + step, plan.num_rounds)
        carry = jax.block_until_ready(program.advance(carry, numbers, first, end))
        report(len(wave) * blocks.size * (end - first))
        first = end
        # The number of rounds per call decides when the user hears of them, not what they give.
        step = max(1, int(step * min(2, _SECONDS_PER_CALL / (time.perf_counter() - began))))
    summary = jax.tree.map(np.asarray, program.finish(carry, numbers))
    dropped = () if plan.keep_devices else PER_DEVICE
    return [
        {name: values[k] for name, values in summary.items() if name not in dropped}
        for k in range(len(wave))
    ]


def _label(plan: _Plan, blocks: _Blocks, store: Store, setting: dict[str, Any]) -> xr.Dataset:
    return label_result(
        plan.grid,
        lambda program: [store.get(place) for place in blocks.places(plan, program)],
        {"title": "jaxsplit sweep", "setting": json.dumps(setting)},
    )
