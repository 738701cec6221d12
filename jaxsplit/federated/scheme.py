"""What is trained where: the static choices of a federated round."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import optax

from jaxsplit.data import ImageTransform
from jaxsplit.models import Backbone, LinearHead, LoraConfig, Task, task_named


@dataclass(frozen=True)
class Scheme:
    """The choices of a round; numbers such as the learning rate travel in `LearningParams`."""

    model: Backbone  # with its adapters
    head: nn.Module  # task head, features [B, D] -> outputs [B, C]
    task: Task  # what the outputs mean
    batch_size: int  # B, samples per device and round
    optimizer: Callable[..., optax.GradientTransformation]  # of the learning rate
    devices_per_step: int  # devices that the server encodes at once; memory against speed
    transform: ImageTransform | None = None  # of stored images; None: inputs go in as they are
    test_batch_size: int = 256  # test samples that are encoded at once

    def __post_init__(self) -> None:
        """Reject empty batches and groups."""
        for name in ("batch_size", "devices_per_step", "test_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")


def fedft(
    model: Backbone,
    num_outputs: int,
    *,
    lora: LoraConfig | None = None,
    head: nn.Module | None = None,
    task: str = "classification",
    transform: ImageTransform | None = None,
    batch_size: int = 16,
    optimizer: Callable[..., optax.GradientTransformation] = optax.sgd,
    devices_per_step: int = 4,
) -> Scheme:
    """FedFT: cut after the embedding, global adapters on the server, personal heads on devices.

    Args:
      model: the bare backbone.
      num_outputs: C, outputs of each device's head: classes, or 1 for a regression.
      lora: the adapters; rank 4 on query, key, value and pooler by default.
      head: the devices' head, features [B, D] -> outputs [B, C]; one dense layer by default.
      task: what the outputs mean, a name in `jaxsplit.models.TASKS`.
      transform: how stored images are scaled and augmented.
      batch_size: B, samples per device and round.
      optimizer: maps a learning rate to an optax optimizer; for adapters and heads alike.
      devices_per_step: scheduled devices are encoded in groups of this size, which makes a
        round's cost follow the number of scheduled devices at one fixed shape. Larger groups
        suit accelerators; the result does not depend on it but for rounding.

    Returns:
      The scheme.

    Raises:
      ValueError: `batch_size` or `devices_per_step` below 1, an unknown task, adapters on a layer
        that the backbone has not.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> fedft(model, num_outputs=5).model.lora.rank
      4
    """
    return Scheme(
        model=model.with_adapters(lora),
        head=head or LinearHead(num_outputs),
        task=task_named(task),
        batch_size=batch_size,
        optimizer=optimizer,
        devices_per_step=devices_per_step,
        transform=transform,
    )
