"""Several policies under the same seeds, kept as they go on and kept apart from other runs."""

import contextlib
import dataclasses
import itertools
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import xarray as xr

from jaxsplit.artefacts import save_weights
from jaxsplit.checkpoint import Checkpointing
from jaxsplit.commands.learning_options import LearningOptions
from jaxsplit.data import Dataset, Partitioner, iid
from jaxsplit.federated import LearningState, Scheme
from jaxsplit.files import atomic_path
from jaxsplit.observer import Observer, Observers
from jaxsplit.setting import check_same_setting
from jaxsplit.simulate import planned_samples, run

#: Below --out: what a run keeps until it has finished.
CHECKPOINTS = ".checkpoints"
_VERSIONS = ("jaxsplit", "jax", "flax", "optax")
_FREE = ("out", "policies", "seeds", "checkpoint_every_s", "track")  # do not decide a run's numbers


class Task(NamedTuple):
    """What is fine-tuned, and on what."""

    scheme: Scheme
    backbone: Any  # frozen weights
    dataset: Dataset
    partitioner: Partitioner = iid


#: Makes the observer of a policy.
Observe = Callable[[str], Observer]


def compare_policies(
    config: LearningOptions,
    title: str,
    task: Task,
    *,
    observe: Observe = lambda policy: Observer(),
    resume_folder: Path | None = None,
    weights_path: Callable[[str, int], Path] | None = None,
) -> xr.Dataset:
    """Fine-tune under every policy in turn, with common seeds.

    Args:
      config: the options; `out`, the number of seeds and the other policies do not decide what a
        policy does under a seed.
      title: of the result.
      task: what is fine-tuned.
      observe: makes what is told about a policy's run.
      resume_folder: keeps checkpoints; a run that was stopped goes on from there.
      weights_path: maps a policy and a seed to the file for the trained adapters and heads, which
        are written when all policies have finished.

    Returns:
      A data set with dimensions policy, seed, round, eval_round and device.

    Raises:
      OptionError: `resume_folder` holds a run with other options; the round does not fit into the
        memory.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    setting = _setting(config, title)
    if resume_folder:
        _claim(resume_folder, config, setting)
    clock, clock_params = config.round_clock()
    runs: list[xr.Dataset] = []
    trained: dict[tuple[str, int], LearningState] = {}
    for policy in config.policies:
        keeper = _KeepLast()
        runs.append(
            run(
                range(config.seeds),
                config.network(policy),
                task.scheme,
                task.backbone,
                task.dataset,
                num_rounds=config.rounds,
                network_params=config.network_params(policy),
                learning_params=config.learning_params(),
                partitioner=task.partitioner,
                warmup_rounds=config.warmup_rounds,
                evaluate_every=config.evaluate_every,
                seeds_at_once=config.seeds_at_once,
                clock=clock,
                clock_params=clock_params,
                observer=Observers([observe(policy), keeper]),
                checkpointing=Checkpointing(resume_folder / policy, config.checkpoint_every_s)
                if resume_folder
                else None,
            )
        )
        trained |= {(policy, seed): state for seed, state in keeper.states.items()}
    if weights_path:  # all at once: those of an earlier run stay together, too
        for (policy, seed), state in trained.items():
            save_weights(weights_path(policy, seed), state)
    result = xr.concat(runs, dim=xr.Variable("policy", list(config.policies)))
    return result.assign_attrs(setting)


def comparison_samples(
    config: LearningOptions,
    task: Task,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> int:
    """Samples that all policies and seeds will send through the backbone.

    Args:
      config: the options.
      task: what is fine-tuned.
      progress: is told ("scheduling", done, total) after each policy.

    Returns:
      Their number, see `planned_samples`.
    """
    total = 0
    for k, policy in enumerate(config.policies):
        progress("scheduling", k, len(config.policies))
        total += planned_samples(
            range(config.seeds),
            config.network(policy),
            task.scheme,
            len(task.dataset.test_labels),
            num_rounds=config.rounds,
            network_params=config.network_params(policy),
            warmup_rounds=config.warmup_rounds,
            evaluate_every=config.evaluate_every,
        )
    progress("scheduling", len(config.policies), len(config.policies))
    return total


class _KeepLast(Observer):
    """Holds on to what was trained."""

    def __init__(self) -> None:
        self.states: dict[int, LearningState] = {}

    def finished(self, seed: int, state: LearningState) -> None:
        """See `Observer`."""
        self.states[seed] = state


def _setting(config: LearningOptions, title: str) -> dict[str, str]:
    """What a result says about itself."""
    return {
        "title": title,
        "configuration": json.dumps(dataclasses.asdict(config), default=str),
        "versions": json.dumps({name: version(name) for name in _VERSIONS}),
        "device_kind": jax.devices()[0].device_kind,
        "platform": f"{jax.default_backend()}, Python {platform.python_version()}",
    }


def _claim(folder: Path, config: LearningOptions, setting: dict[str, str]) -> None:
    """Make sure that what a folder keeps was begun with the same options; write them down.

    Raises:
      OptionError: it was begun with others.
    """
    options = json.loads(setting["configuration"])
    wanted = {name: value for name, value in options.items() if name not in _FREE}
    wanted |= json.loads(setting["versions"])
    wanted |= {name: setting[name] for name in ("title", "device_kind", "platform")}
    path = folder / "setting.json"
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # absent, damaged
        found = json.loads(path.read_text(encoding="utf-8"))
        out = Path(*itertools.takewhile(lambda part: part != CHECKPOINTS, folder.parts))
        fix = f"; to drop that one, delete {folder}"
        check_same_setting("out", out, found, wanted, "an unfinished run", fix)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
