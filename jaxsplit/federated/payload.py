"""What a scheduled device exchanges with the server."""

from typing import Any

import jax

from jaxsplit.costs import Payload, bits_of
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import World


def payload(scheme: Scheme, world: World) -> Payload:
    """Bits that one scheduled device exchanges in a round, from the real shapes and dtypes.

    Once per local step: activations go up, with their padding mask where they have one; their
    gradient comes down where the device trains anything; features come down to a head on the
    device and their gradient goes up. Once per round: what the device trains together with
    others, its adapters and a shared head, comes down, and its change, or its gradient, goes up.
    Labels are not counted. What a codec compresses is not counted either: the round counts it.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      The payload of one device and round.
    """
    trained, head, sent, features = _shapes(scheme, world)
    on_device = (
        trained if scheme.cut is None else TrainedHalves(scheme, None).divide(trained).device
    )
    common = bits_of(on_device)
    if scheme.heads == "shared" and scheme.head_side == "device":
        common += bits_of(head)
    up_bits, down_bits = common, common
    if scheme.cut is not None:
        coded = bits_of(sent.tokens) if scheme.codec is None else 0
        of_features = bits_of(features) if scheme.head_side == "device" else 0
        of_gradient = coded if on_device else 0
        up_bits += scheme.local_steps * (coded + bits_of(sent.mask) + of_features)
        down_bits += scheme.local_steps * (of_gradient + of_features)
    return Payload(up_bits=up_bits, down_bits=down_bits)


def _shapes(scheme: Scheme, world: World) -> tuple[Any, Any, Any, Any]:
    """Shapes of what is trained, of a head, of activations and of features."""
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((scheme.batch_size, *leaf.shape[1:]), leaf.dtype),
        world.inputs,
    )
    if scheme.transform is not None:
        inputs = jax.eval_shape(scheme.transform, inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    trained = world.backbone
    if not scheme.trains_all_weights:
        trained = jax.eval_shape(scheme.model.init, key, inputs)["lora"]

    def forward(backbone: Any, trained: Any, inputs: Any) -> tuple[Any, jax.Array]:
        halves = TrainedHalves(scheme, backbone)
        on_device, on_server = halves.divide(trained)
        sent = halves.embed(on_device, inputs)
        return sent, halves.encode(on_server, sent)

    sent, features = jax.eval_shape(forward, world.backbone, trained, inputs)
    return trained, jax.eval_shape(scheme.head.init, key, features), sent, features
