"""The stages of one local step: each for one device, unbatched, and once for a group of them."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxsplit.compression import Codec
from jaxsplit.costs import wide_sum
from jaxsplit.data import draw_batch
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import World
from jaxsplit.models import Activations, Halves, join_weights

# What each random part of a device's step folds into its key.
_AUGMENTATION, _DROPOUT, _UPLINK, _DOWNLINK = 1, 2, 3, 4
#: What the upload at the end of a round folds into the key of the device's first step.
UPLOAD = 5


class CodedBits(NamedTuple):
    """Bits that a codec counted, exact, in two words (`jaxsplit.costs.wide_sum`)."""

    up: jax.Array  # [..., 2] int32, activations; zeros without a codec
    down: jax.Array  # [..., 2] int32, their gradients


class Gradients(NamedTuple):
    """What one mini-batch of each of G devices gives."""

    loss: jax.Array  # [G] F_n
    adapters: Any  # Σ w_n g_n of global adapters; g_n with a leading axis [G] of copies
    heads: Any  # ∂F_n/∂θ_n, leading axis [G]
    bits: CodedBits  # leading axis [G]


def group_gradients(
    keys: jax.Array,
    devices: jax.Array,
    weights: jax.Array,
    adapters: Any,
    heads: Any,
    scheme: Scheme,
    codec_params: Any,
    world: World,
) -> Gradients:
    """Draw, go forward to the cut, over the link, to the loss and back, for G devices at once.

    The backbone has no device axis, and adapters have one only where devices differ: their
    frozen products are one big product in either case, and the gradient of global adapters is
    one batched backward pass.

    Args:
      keys: of each device and local step, [G]; the batch is drawn from it, the augmentation from
        its fold 1, dropout from its fold 2, the codec from its folds 3 (up) and 4 (down).
      devices: which, [G] int32.
      weights: w_n of the devices in the gradient of global adapters, [G].
      adapters: ΔW, or all weights; with a leading axis [G] if `scheme.adapters_per_device`.
      heads: θ_n, leading axis [G].
      scheme: the choices, static.
      codec_params: numbers of `scheme.codec`.
      world: backbone and data.

    Returns:
      Losses, gradients and counted bits.
    """
    halves = TrainedHalves(scheme, world.backbone)
    dropout = scheme.model.lora is not None and scheme.model.lora.dropout > 0

    # The stages, each for one device, unbatched.

    def draw(key: jax.Array, indices: jax.Array, size: jax.Array) -> jax.Array:
        return draw_batch(key, indices, size, scheme.batch_size)

    def augment(key: jax.Array, inputs: Any) -> Any:
        if scheme.transform is None:
            return inputs
        return scheme.transform.augment(jax.random.fold_in(key, _AUGMENTATION), inputs)

    def key_dropout(key: jax.Array) -> jax.Array | None:
        return jax.random.fold_in(key, _DROPOUT) if dropout else None

    def embed(trained: Any, inputs: Any, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        tokens, mask = halves.embed(trained, inputs, key_dropout(key))
        return tokens, mask

    def encode(trained: Any, activations: Activations, key: jax.Array) -> jax.Array:
        return halves.encode(trained, activations, key_dropout(key))

    def device_loss(head: Any, features: jax.Array, labels: jax.Array) -> jax.Array:
        outputs = cast(jax.Array, scheme.head.apply(head, features))
        return scheme.task.loss(outputs, labels).mean()

    def link(fold: int) -> Any:
        def one(key: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            return transmit(jax.random.fold_in(key, fold), tokens, scheme.codec, codec_params)

        return jax.vmap(one)

    def of_group(stage: Any) -> Any:
        """A stage for all devices: one batch where they share the weights, and draw nothing."""
        if scheme.adapters_per_device or dropout:
            axis = 0 if scheme.adapters_per_device else None
            return jax.vmap(stage, in_axes=(axis, 0, 0))

        def together(trained: Any, inputs: Any, keys: jax.Array) -> Any:
            return _unfold(stage(trained, _fold(inputs), keys[0]), keys.shape[0])

        return together

    # 1. Devices draw their mini-batches and go forward to the cut.
    of_copies: Any = jax.vmap if scheme.adapters_per_device else lambda function: function
    on_device, on_server = of_copies(halves.divide)(adapters)
    batch = jax.vmap(draw)(keys, world.indices[devices], world.sizes[devices])
    inputs = jax.vmap(augment)(keys, jax.tree.map(lambda leaf: leaf[batch], world.inputs))
    tokens, device_backward, mask = jax.vjp(
        lambda trained: of_group(embed)(trained, inputs, keys),
        on_device,
        has_aux=True,
    )
    # 2. Activations go up; the server goes on to the features.
    arrived, up = link(_UPLINK)(keys, tokens)
    features, server_backward = jax.vjp(
        lambda trained, tokens: of_group(encode)(trained, Activations(tokens, mask), keys),
        on_server,
        arrived,
    )
    # 3. Where the head is: losses, gradients of heads and features.
    losses, (head_gradient, feature_gradient) = jax.vmap(
        jax.value_and_grad(device_loss, argnums=(0, 1))
    )(heads, features, world.labels[batch])
    # 4. The chain rule on the server; the sum over devices, if any, is part of it.
    if not scheme.adapters_per_device:
        feature_gradient = feature_gradient * weights[:, None, None]
    of_server, token_gradient = server_backward(feature_gradient)
    # 5. The gradient comes down, the devices finish the chain rule; nothing of it is left where
    # nothing on a device is trained.
    of_device, down = on_device, jnp.zeros_like(up)
    if jax.tree.leaves(on_device):
        if scheme.codec is not None and scheme.codec.gradient == "masked":
            token_gradient = jnp.where(arrived != 0, token_gradient, 0)
        token_gradient, down = link(_DOWNLINK)(keys, token_gradient)
        (of_device,) = device_backward(token_gradient)
    gradient = of_copies(join_weights)(Halves(of_device, of_server))
    return Gradients(losses, gradient, head_gradient, CodedBits(up, down))


def _fold(tree: Any) -> Any:
    """Leaves [G, B, ...] as one batch, [G·B, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _unfold(tree: Any, num_devices: int) -> Any:
    """The batch of each device again."""
    return jax.tree.map(lambda leaf: leaf.reshape(num_devices, -1, *leaf.shape[1:]), tree)


def transmit(
    key: jax.Array, tokens: jax.Array, codec: Codec | None, params: Any
) -> tuple[jax.Array, jax.Array]:
    """Send one device's activations, or their gradients, over the link; a sample is a row.

    Args:
      key: PRNG key.
      tokens: [B, S, D].
      codec: what compresses them; None sends them as they are and counts nothing.
      params: its numbers.

    Returns:
      `(what arrives [B, S, D], exact bits int32 [2])`.
    """
    if codec is None:
        return tokens, jnp.zeros(2, jnp.int32)
    arrived, bits = codec.transmit(key, tokens.reshape(tokens.shape[0], -1), params)
    return arrived.reshape(tokens.shape), wide_sum(bits)
