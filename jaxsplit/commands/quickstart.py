"""The quickstart: FedFT on real handwritten digits, four kinds of scheduling compared."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import platformdirs
import xarray as xr
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from jaxsplit.commands.comparison import Observe, Task, compare_policies
from jaxsplit.commands.learning_options import LearningOptions, clipped_sgd
from jaxsplit.data import digits
from jaxsplit.federated import Scheme, fedft
from jaxsplit.files import atomic_path
from jaxsplit.models import LoraConfig, ViT, by_block, pretrain, stack_blocks
from jaxsplit.observer import Observer
from jaxsplit.options import OptionError, check_options

BACKBONE = ViT(
    patch_size=2,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
)
PRETRAINING_CLASSES = (0, 1, 2, 3, 4)
PRETRAINING: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 64,
    "peak_learning_rate": 3e-3,
    "weight_decay": 0.05,
}
FINE_TUNING_CLASSES = (5, 6, 7, 8, 9)


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(LearningOptions):
    """Fine-tune a small vision transformer over a simulated wireless network.

    The backbone is trained on the digits 0-4 first (once; it is cached) and then fine-tuned on
    5-9 by devices that share the band, under each scheduling policy in turn.
    """

    out: Path = Path("results/quickstart")
    """Folder for quickstart.nc and quickstart.png."""

    def check(self) -> None:
        """Check all options.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        samples = len(digits(FINE_TUNING_CLASSES).train_labels)
        if self.devices > samples:
            raise OptionError(
                "devices", self.devices, f"1 to {samples}, the number of training samples"
            )

    def scheme(self) -> Scheme:
        """The learning round."""
        return fedft(
            BACKBONE,
            num_outputs=len(FINE_TUNING_CLASSES),
            lora=LoraConfig(rank=self.lora_rank, alpha=self.lora_alpha),
            batch_size=self.batch_size,
            optimizer=clipped_sgd,
            schedule=self.schedule(),
        )

    def task(self, *, cache_folder: Path | None = None) -> Task:
        """The backbone, trained where it is not cached, and the digits."""
        backbone = foundation_model(cache_folder=cache_folder)
        return Task(self.scheme(), backbone, digits(FINE_TUNING_CLASSES))


def foundation_model(
    progress: Callable[[int, int], None] = lambda done, epochs: None,
    *,
    cache_folder: Path | None = None,
) -> Any:
    """The quickstart's backbone, trained centrally on the digits 0-4; cached after the first call.

    Args:
      progress: called after each epoch of training with the epochs done and their number.
      cache_folder: where to keep it; the user's cache folder by default.

    Returns:
      The `params` collection of `BACKBONE`, stacked.
    """
    recipe = {
        "model": repr(BACKBONE),
        "classes": PRETRAINING_CLASSES,
        "training": PRETRAINING,
        "jaxsplit": version("jaxsplit"),
        "jax": version("jax"),
    }
    folder = cache_folder or platformdirs.user_cache_path("jaxsplit") / "backbones"
    path = folder / f"digits-vit-{_digest(recipe)}.safetensors"
    with contextlib.suppress(FileNotFoundError, SafetensorError):  # absent or damaged: train
        return stack_blocks(unflatten_dict(load_file(path), sep="/"))
    dataset = digits(PRETRAINING_CLASSES)
    params, accuracy = pretrain(
        jax.random.key(0), BACKBONE, dataset, progress=progress, **PRETRAINING
    )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(
            flatten_dict(by_block(params), sep="/"),
            temporary,
            metadata={**{k: str(v) for k, v in recipe.items()}, "test_accuracy": str(accuracy)},
        )
    return params


def _digest(recipe: Any) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def quickstart(
    config: QuickstartConfig,
    *,
    observe: Observe = lambda policy: Observer(),
    cache_folder: Path | None = None,
    resume_folder: Path | None = None,
) -> xr.Dataset:
    """Run every policy under the same seeds.

    Args:
      config: the options.
      observe: makes what is told about a policy's run.
      cache_folder: see `foundation_model`.
      resume_folder: keeps checkpoints; a run that was stopped goes on from there.

    Returns:
      A data set with dimensions policy, seed, round, eval_round and device.

    Raises:
      OptionError: a wrong option.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    config.check()
    return compare_policies(
        config,
        "jaxsplit quickstart: FedFT on handwritten digits 5-9",
        config.task(cache_folder=cache_folder),
        observe=observe,
        resume_folder=resume_folder,
    )
