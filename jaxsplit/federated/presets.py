"""The schemes of the papers, each a value on every axis of one round."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import optax

from jaxsplit.compression import Codec, compressed
from jaxsplit.costs import Order
from jaxsplit.data import ImageTransform
from jaxsplit.federated.scheme import Heads, HeadSide, RateSchedule, Scheme
from jaxsplit.models import Backbone, LinearHead, LoraConfig, task_named

_MOMENTUM = functools.partial(optax.sgd, momentum=0.9)  # SFT Table II
_DECAY = optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.998)  # per round, Table II
#: SFT's adapters: every dense layer of a block, 18 D r elements in each.
_SFT_LORA = LoraConfig(
    rank=16,
    alpha=32.0,
    targets=("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
    per_device=True,
)


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
    cut: int = 0,
    head_side: HeadSide = "device",
    codec: Codec | None = None,
    order: Order = "parallel",
    upload_codec: Codec | None = None,
    error_feedback: bool = False,
) -> Scheme:
    """FedFT: cut after the embedding, global adapters on the server, personal heads on devices.

    The other options leave FedFT: adapters per device, a shared head, several local steps, another
    cut, a codec on the link and so on, each by itself.

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
      cut: l, the blocks on the device, 0…L.
      head_side: "device", where features come down to it and their gradients go up, or "server",
        where labels do not stay on the device (SFT).
      codec: what compresses activations on their way up and their gradients on the way down.
      order: "parallel", or "sequential": scheduled devices one after another, each from the
        weights of the one before (split learning); with adapters per device.
      upload_codec: what compresses the change that a device uploads at the end of a round, of its
        adapters and of a shared head on it, as one vector; with adapters per device, in parallel.
      error_feedback: whether what `upload_codec` loses is kept and goes up with the device's next
        round; a vector of that length is kept for every device.

    Returns:
      The scheme.

    Raises:
      ValueError: `batch_size`, `devices_per_step` or `local_steps` below 1, `local_steps` above 1
        or a sequential order with global adapters, an unknown task or choice, adapters on a
        layer that the backbone has not, a cut outside the backbone, an upload codec with global
        adapters or in sequential order, error feedback without one.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> fedft(model, num_outputs=5).model.lora.rank
      4
      >>> decay = optax.exponential_decay(1.0, 1, 0.998)  # 0.998 per round
      >>> scheme = fedft(model, num_outputs=5, lora=LoraConfig(rank=16, per_device=True),
      ...                heads="shared", local_steps=5, schedule=decay, codec=compressed())
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
        cut=cut,
        head_side=head_side,
        codec=codec,
        order=order,
        upload_codec=upload_codec,
        error_feedback=error_feedback,
    )


def sft(
    model: Backbone,
    num_outputs: int,
    *,
    cut: int,
    codec: Codec | None = None,
    lora: LoraConfig | None = None,
    head: nn.Module | None = None,
    task: str = "classification",
    transform: ImageTransform | None = None,
    batch_size: int = 64,
    optimizer: Callable[..., optax.GradientTransformation] = _MOMENTUM,
    devices_per_step: int = 8,
    local_steps: int = 1,
    schedule: RateSchedule | None = _DECAY,
    upload_codec: Codec | None = None,
    error_feedback: bool = False,
) -> Scheme:
    """SFT: cut after block l, adapters per device on both sides, a compressed link both ways.

    Every device has copies of the adapters and of the head, which is on the server, for a round;
    they are averaged with weights |D_n| at its end (SFT Algorithm 1, (3)–(8)).

    Args:
      model: the bare backbone.
      num_outputs: C, outputs of the head.
      cut: l, the blocks on the device, 0…L; SFT's choice is 5 of 12.
      codec: what compresses activations and gradients; `compressed()` by default.
      lora: the adapters; rank 16 on every dense layer of the blocks by default. They are per
        device whatever it says.
      head: as for `fedft`, and likewise what follows.
      task: what the outputs mean.
      transform: how stored images are scaled and augmented.
      batch_size: B; SFT Table II.
      optimizer: SGD with momentum 0.9 by default, zero at the start of each round.
      devices_per_step: devices that are encoded at once.
      local_steps: K, mini-batches per device and round; ceil(|D_n|/B) of them are an epoch.
      schedule: 0.998 per round by default.
      upload_codec: of the adapters that go up at the end of a round; none by default.
      error_feedback: whether what it loses goes up later.

    Returns:
      The scheme.

    Raises:
      ValueError: as for `fedft`.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> scheme = sft(model, num_outputs=5, cut=1)
      >>> scheme.cut, scheme.head_side, scheme.heads
      (1, 'server', 'shared')
    """
    return fedft(
        model,
        num_outputs,
        lora=_copies(lora),
        head=head,
        task=task,
        transform=transform,
        batch_size=batch_size,
        optimizer=optimizer,
        devices_per_step=devices_per_step,
        heads="shared",
        local_steps=local_steps,
        schedule=schedule,
        cut=cut,
        head_side="server",
        codec=codec or compressed(),
        upload_codec=upload_codec,
        error_feedback=error_feedback,
    )


def sft_uncompressed(model: Backbone, num_outputs: int, *, cut: int, **options: Any) -> Scheme:
    """SFT without compression of the link.

    Args:
      model: the bare backbone.
      num_outputs: C.
      cut: l, 0…L.
      **options: of `sft`, without a codec.

    Returns:
      The scheme.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> sft_uncompressed(model, num_outputs=5, cut=1).codec is None
      True
    """
    return dataclasses.replace(sft(model, num_outputs, cut=cut, **options), codec=None)


def sl(model: Backbone, num_outputs: int, *, cut: int, **options: Any) -> Scheme:
    """Vanilla split learning: devices one after another, each from the weights of the last one.

    Args:
      model: the bare backbone.
      num_outputs: C.
      cut: l, 0…L.
      **options: of `sft`, without a codec.

    Returns:
      The scheme.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> sl(model, num_outputs=5, cut=1).order
      'sequential'
    """
    return dataclasses.replace(
        sft(model, num_outputs, cut=cut, **options), codec=None, order="sequential"
    )


def fl_lora(model: Backbone, num_outputs: int, **options: Any) -> Scheme:
    """Federated learning of adapters: the whole model on each device, adapters are sent.

    Args:
      model: the bare backbone.
      num_outputs: C.
      **options: of `sft`, without cut and codec.

    Returns:
      The scheme.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> fl_lora(model, num_outputs=5).cut is None
      True
    """
    scheme = sft(model, num_outputs, cut=0, **options)
    return dataclasses.replace(scheme, cut=None, codec=None, head_side="device")


def fl_full(model: Backbone, num_outputs: int, **options: Any) -> Scheme:
    """Federated learning of all weights: the whole model is trained on each device, and sent.

    Args:
      model: the bare backbone; each device of a group has a copy of its weights in memory.
      num_outputs: C.
      **options: of `sft`, without cut, codec and adapters.

    Returns:
      The scheme.

    Example:
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> fl_full(model, num_outputs=5).trains_all_weights
      True
    """
    return dataclasses.replace(fl_lora(model, num_outputs, **options), model=model)


#: Schemes by name; those with a cut take it as an option.
PRESETS: dict[str, Callable[..., Scheme]] = {
    "fedft": fedft,
    "sft": sft,
    "sft_uncompressed": sft_uncompressed,
    "sl": sl,
    "fl_lora": fl_lora,
    "fl_full": fl_full,
}


def _copies(lora: LoraConfig | None) -> LoraConfig:
    return dataclasses.replace(lora or _SFT_LORA, per_device=True)
