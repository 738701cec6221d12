"""What is trained where: the static choices of a federated round."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import optax

from jaxsplit.models import LoraConfig, ViT


@dataclass(frozen=True)
class Scheme:
    """The choices of a round; numbers such as the learning rate travel in `LearningParams`."""

    model: ViT  # the backbone with its adapters
    head: nn.Module  # task head, features [B, D] -> logits [B, C]
    batch_size: int  # B, samples per device and round
    optimizer: Callable[..., optax.GradientTransformation]  # of the learning rate
    devices_per_step: int  # devices that the server encodes at once; memory against speed

    def __post_init__(self) -> None:
        """Reject empty batches and groups."""
        for name in ("batch_size", "devices_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")


def fedft(
    model: ViT,
    num_classes: int,
    *,
    lora: LoraConfig | None = None,
    batch_size: int = 16,
    optimizer: Callable[..., optax.GradientTransformation] = optax.sgd,
    devices_per_step: int = 4,
) -> Scheme:
    """FedFT: cut after the embedding, global adapters on the server, personal heads on devices.

    Args:
      model: the bare backbone.
      num_classes: C, outputs of each device's linear head.
      lora: the adapters; rank 4 on query, key, value and pooler by default.
      batch_size: B, samples per device and round.
      optimizer: maps a learning rate to an optax optimizer; for adapters and heads alike.
      devices_per_step: scheduled devices are encoded in groups of this size, which makes a
        round's cost follow the number of scheduled devices at one fixed shape. Larger groups
        suit accelerators; the result does not depend on it but for rounding.

    Returns:
      The scheme.

    Raises:
      ValueError: `batch_size` or `devices_per_step` below 1.

    Example:
      >>> fedft(ViT(2, 32, 3, 4, 64), num_classes=5).model.lora.rank
      4
    """
    return Scheme(
        model=model.clone(lora=lora or LoraConfig()),
        head=nn.Dense(num_classes),
        batch_size=batch_size,
        optimizer=optimizer,
        devices_per_step=devices_per_step,
    )
