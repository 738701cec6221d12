"""What is trained where: the static choices of a federated round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import flax.linen as nn
import jax
import optax

from jaxsplit.compression import Codec
from jaxsplit.costs import Order
from jaxsplit.data import ImageTransform
from jaxsplit.models import Backbone, Task

#: Each device's own head, which nobody else sees, or one head for all devices.
Heads = Literal["personal", "shared"]
#: Where the head is: features go down to the device, or labels up to the server.
HeadSide = Literal["device", "server"]
#: Factor f(t) of the learning rates in communication round t, scalar int32.
RateSchedule = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Scheme:
    """The choices of a round; numbers such as the learning rate travel in `LearningParams`.

    Whether adapters are global (FedFT §II-A) or per device within a round (SFT §III) is the
    model's choice, `LoraConfig.per_device`. A model without adapters trains all its weights, a
    copy per device.
    """

    model: Backbone  # with its adapters, or without: then all weights are trained
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
    cut: int | None = 0  # l, blocks on the device; None: the whole model is on the device
    head_side: HeadSide = "device"
    codec: Codec | None = None  # of activations up and their gradients down; None: as they are
    order: Order = "parallel"  # or one device after another, each from the last one's weights
    upload_codec: Codec | None = None  # of what a device uploads once per round; None: as it is
    error_feedback: bool = False  # what `upload_codec` loses goes up with the device's next round

    def __post_init__(self) -> None:
        """Reject what no round can be."""
        for name in ("batch_size", "devices_per_step", "test_batch_size", "local_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")
        for name, kind in (("heads", Heads), ("head_side", HeadSide), ("order", Order)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {allowed}")
        if self.local_steps > 1 and not self.adapters_per_device:
            raise ValueError(
                f"local_steps={self.local_steps}: global adapters take exactly 1 step per round; "
                "choose local_steps=1, or adapters per device with LoraConfig(per_device=True)"
            )
        if self.order == "sequential" and not self.adapters_per_device:
            raise ValueError(
                "order='sequential': weights are handed on from device to device; choose adapters "
                "per device with LoraConfig(per_device=True)"
            )
        self._check_cut()
        self._check_upload()

    def _check_cut(self) -> None:
        blocks = self.model.num_hidden_layers
        if self.cut is None:
            for name, plain in (("codec", None), ("head_side", "device")):
                if getattr(self, name) != plain:
                    raise ValueError(
                        f"cut=None with {name}={getattr(self, name)!r}: nothing crosses a link "
                        f"without a cut; choose {name}={plain!r} or a cut from 0 to {blocks}"
                    )
        elif not 0 <= self.cut <= blocks:
            raise ValueError(
                f"cut={self.cut} is outside the model: choose 0 (after the embedding) to {blocks} "
                "(after the last block), or None (no cut, everything on the device)"
            )

    def _check_upload(self) -> None:
        if self.upload_codec is None:
            if self.error_feedback:
                raise ValueError(
                    "error_feedback=True without an upload codec: nothing is lost that could go "
                    "up later; choose an upload_codec, or error_feedback=False"
                )
        elif self.upload_codec.gradient == "masked":
            raise ValueError(
                "upload_codec with gradient='masked': no gradient passes through an upload; choose "
                "gradient='identity'"
            )
        elif not self.adapters_per_device:
            raise ValueError(
                "upload_codec with global adapters: devices upload no change of adapters; choose "
                "adapters per device with LoraConfig(per_device=True), or upload_codec=None"
            )
        elif self.order == "sequential":
            raise ValueError(
                "upload_codec with order='sequential': weights are handed on from device to "
                "device, not summed; choose order='parallel' or upload_codec=None"
            )

    @property
    def trains_all_weights(self) -> bool:
        """Whether the backbone itself is trained, for want of adapters."""
        return self.model.lora is None

    @property
    def adapters_per_device(self) -> bool:
        """Whether each scheduled device trains a copy, averaged afterwards."""
        return self.model.lora is None or self.model.lora.per_device

    @property
    def blocks_on_device(self) -> int:
        """Blocks 1…l that a device computes."""
        return self.model.num_hidden_layers if self.cut is None else self.cut
