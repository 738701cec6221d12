"""The two halves of a scheme's model, as functions of what is trained."""

from typing import Any, NamedTuple, cast

import jax

from jaxsplit.federated.scheme import Scheme
from jaxsplit.models import Activations, Halves, split, split_weights


class TrainedHalves(NamedTuple):
    """The halves of a scheme around its cut; frozen weights are in them, trained ones are not."""

    scheme: Scheme
    frozen: Any  # the backbone, `params`

    def divide(self, trained: Any) -> Halves:
        """Adapters, or all weights, of the device and of the server.

        Without a cut the server's half is what follows the last block; it is on the device, too.
        """
        return split_weights(self.scheme.model, trained, self.scheme.blocks_on_device)

    def embed(self, trained: Any, inputs: Any, key: jax.Array | None = None) -> Activations:
        """The device's half, on one device's mini-batch."""
        halves = split(self.scheme.model, self.scheme.blocks_on_device)
        return halves.device_forward(*self._weights(trained), inputs, key)

    def encode(
        self, trained: Any, activations: Activations, key: jax.Array | None = None
    ) -> jax.Array:
        """The server's half, on what arrives from one device; features [B, D]."""
        halves = split(self.scheme.model, self.scheme.blocks_on_device)
        return halves.server_forward(*self._weights(trained), activations, key)

    def _weights(self, trained: Any) -> tuple[Any, Any]:
        """`params` and `lora` of a half; of what is frozen it reads its own part."""
        if self.scheme.trains_all_weights:
            return trained, {}
        return self.frozen, trained


def features_of(trained: Any, scheme: Scheme, frozen: Any, inputs: Any) -> jax.Array:
    """Features [B, D] by the whole model, without dropout.

    Args:
      trained: adapters, or all weights.
      scheme: the choices.
      frozen: the backbone.
      inputs: a mini-batch, transformed already.

    Returns:
      Features.
    """
    variables = {"params": frozen, "lora": trained}
    if scheme.trains_all_weights:
        variables = {"params": trained}
    return cast(jax.Array, scheme.model.apply(variables, inputs))
