"""What a run leaves besides its metrics: trained adapters and heads, and what they belong to."""

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from jaxsplit.federated import LearningState
from jaxsplit.federated.evaluate import weighted_mean
from jaxsplit.files import atomic_path
from jaxsplit.models import LoraConfig, by_block

_CARD = "run.json"
_WEIGHTS = "weights"


class ArtefactError(ValueError):
    """A run's folder that cannot be used: which file, what about it, what to do."""


@dataclass(frozen=True)
class RunCard:
    """What a run fine-tuned, so that its weights can be put to use later."""

    checkpoint: str  # folder or hub id
    pooling: str
    image_size: int | None
    lora: LoraConfig | None  # None: all weights were trained
    task: str
    num_outputs: int
    label_names: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: int
    configuration: dict[str, Any]  # the options of the command


class Weights(NamedTuple):
    """What a run trained."""

    adapters: Any  # ΔW, one for all devices; by block
    heads: Any  # θ_n, leading axis [N]
    participation: jax.Array  # [N] rounds that each device took part in


def save_weights(path: Path, state: LearningState) -> None:
    """Write adapters, heads and participation of a state as safetensors.

    Args:
      path: the file; replaced only once the new one is complete.
      state: of a run.
    """
    tree = {
        "adapters": by_block(state.adapters),
        "heads": state.heads,
        "participation": state.participation,
    }
    with atomic_path(path) as temporary:
        save_file(flatten_dict(tree, sep="/"), temporary, {"jaxsplit": version("jaxsplit")})


def weights_path(folder: Path, policy: str, seed: int) -> Path:
    """Where a run keeps the weights of a policy and a seed."""
    return folder / _WEIGHTS / f"{policy}-seed{seed}.safetensors"


def load_weights(folder: Path, policy: str, seed: int) -> Weights:
    """The weights of a finished run.

    Args:
      folder: of the run.
      policy: one of its policies.
      seed: one of its seeds.

    Returns:
      Adapters, heads and participation.

    Raises:
      ArtefactError: the file is missing or damaged.
    """
    path = weights_path(folder, policy, seed)
    try:
        tree = unflatten_dict(load_file(path), sep="/")
        return Weights(tree["adapters"], tree["heads"], tree["participation"])
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing: did the run finish?") from None
    except (SafetensorError, KeyError) as error:
        raise ArtefactError(f"{path} is damaged ({error}): run again") from None


def mean_head(weights: Weights) -> Any:
    """The participation-weighted mean of the heads; the plain mean before any participation.

    Args:
      weights: of a run.

    Returns:
      One head.
    """
    return weighted_mean(weights.participation, weights.heads)


def save_card(folder: Path, card: RunCard) -> None:
    """Write what a run fine-tuned.

    Args:
      folder: of the run.
      card: its description.
    """
    content = dataclasses.asdict(card) | {"jaxsplit": version("jaxsplit")}
    with atomic_path(folder / _CARD) as path:
        path.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def load_card(folder: Path) -> RunCard:
    """What a run fine-tuned.

    Args:
      folder: of the run.

    Returns:
      Its description.

    Raises:
      ArtefactError: the folder holds none, or a damaged one.
    """
    path = folder / _CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lora = content["lora"]
        if lora is not None:
            content["lora"] = LoraConfig(**{**lora, "targets": tuple(lora["targets"])})
        names = [field.name for field in dataclasses.fields(RunCard)]
        for name in ("label_names", "policies"):
            content[name] = tuple(content[name])
        for name in ("num_outputs", "seeds"):
            content[name] = int(content[name])
        if not content["policies"]:
            raise ValueError("no policies")
        return RunCard(**{name: content[name] for name in names})
    except (FileNotFoundError, NotADirectoryError):
        raise ArtefactError(
            f"{path} is missing: give the --out folder of a finished `jaxsplit run`"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged ({error}): run again") from None
