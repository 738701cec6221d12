"""What a scheduled device exchanges with the server."""

import jax

from jaxsplit.costs import Payload, bits_of
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import World
from jaxsplit.models import split, split_weights


def payload(scheme: Scheme, world: World) -> Payload:
    """Bits that one scheduled device exchanges in a round, from the real shapes and dtypes.

    Up: the embedded mini-batch, with its padding mask where it has one, and the gradient of its
    features; down: the features; all of it once per local step. A shared head comes down before
    the round, and its change, or its gradient, goes up after it.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      The payload of one device and round.
    """
    model = scheme.model.clone(lora=None)  # adapters do not change what is sent
    halves = split(model, cut=0)
    frozen = split_weights(model, world.backbone, cut=0)
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((scheme.batch_size, *leaf.shape[1:]), leaf.dtype),
        world.inputs,
    )
    if scheme.transform is not None:
        inputs = jax.eval_shape(scheme.transform, inputs)
    sent = jax.eval_shape(halves.device_forward, frozen.device, {}, inputs)
    features = jax.eval_shape(halves.server_forward, frozen.server, {}, sent)
    head = jax.eval_shape(scheme.head.init, jax.random.key(0), features)
    head_bits = bits_of(head) if scheme.heads == "shared" else 0
    return Payload(
        up_bits=scheme.local_steps * (bits_of(sent) + bits_of(features)) + head_bits,
        down_bits=scheme.local_steps * bits_of(features) + head_bits,
    )
