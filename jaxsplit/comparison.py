"""Several policies under the same seeds, each kept as soon as it has finished."""

import dataclasses
import functools
import hashlib
import itertools
import json
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from jaxsplit.artefacts import save_weights
from jaxsplit.data import Dataset, Partitioner, iid
from jaxsplit.federated import LearningState, Scheme
from jaxsplit.files import atomic_path
from jaxsplit.learning_options import LearningOptions
from jaxsplit.results import save
from jaxsplit.simulate import run

_VERSIONS = ("jaxsplit", "jax", "flax", "optax")


def digest(setting: Any) -> str:
    """A short key of a setting that JSON can hold."""
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]


def compare_policies(
    config: LearningOptions,
    title: str,
    scheme: Scheme,
    backbone: Any,
    dataset: Dataset,
    *,
    partitioner: Partitioner = iid,
    progress: Callable[[str, int], None] = lambda policy, rounds: None,
    resume_folder: Path | None = None,
    keep_weights: Callable[[str, int], Path] | None = None,
) -> xr.Dataset:
    """Fine-tune under every policy in turn, with common seeds.

    Args:
      config: the options; its field `out` and the other policies do not decide a policy's numbers.
      title: of the result.
      scheme: the choices of the learning round.
      backbone: frozen weights.
      dataset: what the devices share.
      partitioner: who holds which samples.
      progress: called with the policy and the number of rounds just done.
      resume_folder: keeps each finished policy; a run of the same options takes it from there.
      keep_weights: maps a policy and a seed to the file for the trained adapters and heads;
        needs `resume_folder`.

    Returns:
      A data set with dimensions policy, seed, round, eval_round and device.

    Raises:
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    options = dataclasses.asdict(config)
    setting = {
        "title": title,
        "configuration": json.dumps(options, default=str),
        "versions": json.dumps({name: version(name) for name in _VERSIONS}),
        "device_kind": jax.devices()[0].device_kind,
        "platform": f"{jax.default_backend()}, Python {platform.python_version()}",
    }
    # What decides a policy's numbers: everything but where they go and what they are compared to.
    deciding = json.dumps(options | {"out": "", "policies": ()}, default=str)
    key = digest(setting | {"configuration": deciding})
    runs = []
    for policy in config.policies:
        kept = resume_folder / f"{policy}-{key}" if resume_folder else None
        if kept and (kept / "result.nc").exists():
            runs.append(xr.load_dataset(kept / "result.nc", engine="h5netcdf"))
            progress(policy, config.seeds * config.rounds)
        else:
            runs.append(
                run(
                    range(config.seeds),
                    config.network(policy),
                    scheme,
                    backbone,
                    dataset,
                    num_rounds=config.rounds,
                    network_params=config.network_params(policy),
                    learning_params=config.learning_params(),
                    partitioner=partitioner,
                    warmup_rounds=config.warmup_rounds,
                    evaluate_every=config.evaluate_every,
                    progress=functools.partial(progress, policy),
                    finished=functools.partial(_keep, kept) if kept else None,
                )
            )
            if kept:
                kept.mkdir(parents=True, exist_ok=True)
                save(runs[-1], kept / "result.nc")  # last: its presence says that all is there
    if resume_folder and keep_weights:  # all at once: those of an earlier run stay together, too
        for policy, seed in itertools.product(config.policies, range(config.seeds)):
            with atomic_path(keep_weights(policy, seed)) as path:
                shutil.copyfile(_file(resume_folder / f"{policy}-{key}", seed), path)
    result = xr.concat(runs, dim=xr.Variable("policy", list(config.policies)))
    return result.assign_attrs(setting)


def _file(folder: Path, seed: int) -> Path:
    return folder / f"seed{seed}.safetensors"


def _keep(folder: Path, seed: int, state: LearningState) -> None:
    save_weights(_file(folder, seed), state)
