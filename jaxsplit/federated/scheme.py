"""What is trained where: the static choices of a federated round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import flax.linen as nn
import jax
import optax

from jaxsplit.data import ImageTransform
from jaxsplit.models import Backbone, LinearHead, LoraConfig, Task, task_named

#: Each device's own head, which nobody else sees, or one head for all devices.
Heads = Literal["personal", "shared"]
#: Factor f(t) of the learning rates in communication round t, scalar int32.
RateSchedule = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Scheme:
    """The choices of a round; numbers such as the learning rate travel in `LearningParams`.

    Whether adapters are global (FedFT §II-A) or per device within a round (SFT §III) is the
    model's choice, `LoraConfig.per_device`.
    """

    model: Backbone  # with its adapters
    head: nn.Module  # task head, features [B, D] -> outputs [B, C]
    task: Task  # what the outputs mean
    batch_size: int  # B, samples per device and local step
    optimizer: Callable[..., optax.GradientTransformation]  # of the learning rate
    devices_per_step: int  # devices that the server encodes at once; memory against speed
    transform: ImageTransform | None = None  # of stored images; None: inputs go in as they are
    test_batch_size: int = 256  # test samples that are encoded at once
    heads: Heads = "personal"
    local_steps: int = 1  # mini-batches of a scheduled device per round; global adapters take 1
    schedule: RateSchedule | None = None  # f(t), factor of both learning rates; None: 1

    def __post_init__(self) -> None:
        """Reject empty batches and groups, unknown heads, local steps of global adapters."""
        for name in ("batch_size", "devices_per_step", "test_batch_size", "local_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")
        if self.heads not in get_args(Heads):
            raise ValueError(f"heads={self.heads!r}: choose one of {', '.join(get_args(Heads))}")
        if self.local_steps > 1 and not self.adapters_per_device:
            raise ValueError(
                f"local_steps={self.local_steps}: global adapters take exactly 1 step per round; "
                "choose local_steps=1, or adapters per device with LoraConfig(per_device=True)"
            )

    @property
    def adapters_per_device(self) -> bool:
        """Whether each scheduled device trains a copy of the adapters, averaged afterwards."""
        return self.model.lora is not None and self.model.lora.per_device


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
    heads: Heads = "personal",
    local_steps: int = 1,
    schedule: RateSchedule | None = None,
) -> Scheme:
    """FedFT: cut after the embedding, global adapters on the server, personal heads on devices.

    Three options leave FedFT: adapters per device, a shared head, several local steps.

    Args:
      model: the bare backbone.
      num_outputs: C, outputs of each device's head: classes, or 1 for a regression.
      lora: the adapters; rank 4 on query, key, value and pooler by default. With
        `per_device=True` each scheduled device trains a copy of them from a fresh optimizer
        state, and the copies are averaged with weights |D_n| (SFT (7), (8)).
      head: the devices' head, features [B, D] -> outputs [B, C]; one dense layer by default.
      task: what the outputs mean, a name in `jaxsplit.models.TASKS`.
      transform: how stored images are scaled and augmented.
      batch_size: B, samples per device and local step.
      optimizer: maps a learning rate to an optax optimizer; for adapters and heads alike.
      devices_per_step: scheduled devices are encoded in groups of this size, which makes a
        round's cost follow the number of scheduled devices at one fixed shape. Larger groups
        suit accelerators; the result does not depend on it but for rounding.
      heads: "personal", or "shared": one head that is trained and put together like the adapters.
      local_steps: mini-batches that a scheduled device trains on per round; more than 1 with
        adapters per device only.
      schedule: f(t), an optax schedule of the communication round t, a factor of both learning
        rates. It counts rounds and not an optimizer's steps, because a personal head steps only
        when its device is scheduled. Make it once: another function is another compilation.

    Returns:
      The scheme.

    Raises:
      ValueError: `batch_size`, `devices_per_step` or `local_steps` below 1, `local_steps` above 1
        with global adapters, an unknown task or kind of heads, adapters on a layer that the
        backbone has not.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> fedft(model, num_outputs=5).model.lora.rank
      4
      >>> decay = optax.exponential_decay(1.0, 1, 0.998)  # 0.998 per round
      >>> scheme = fedft(model, num_outputs=5, lora=LoraConfig(rank=16, per_device=True),
      ...                heads="shared", local_steps=5, schedule=decay)
      >>> scheme.adapters_per_device
      True
    """
    return Scheme(
        model=model.with_adapters(lora),
        head=head or LinearHead(num_outputs),
        task=task_named(task),
        batch_size=batch_size,
        optimizer=optimizer,
        devices_per_step=devices_per_step,
        transform=transform,
        heads=heads,
        local_steps=local_steps,
        schedule=schedule,
    )
