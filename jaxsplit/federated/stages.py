"""The stages of one local step: each for one device, unbatched, and once for a group of them."""

from typing import Any, NamedTuple, cast

import jax

from jaxsplit.data import draw_batch
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import World
from jaxsplit.models import Activations, split, split_weights


class Gradients(NamedTuple):
    """What one mini-batch of each of G devices gives."""

    loss: jax.Array  # [G] F_n
    adapters: Any  # Σ w_n g_n of global adapters; g_n with a leading axis [G] of copies
    heads: Any  # ∂F_n/∂θ_n, leading axis [G]


def group_gradients(
    keys: jax.Array,
    devices: jax.Array,
    weights: jax.Array,
    adapters: Any,
    heads: Any,
    scheme: Scheme,
    world: World,
) -> Gradients:
    """Draw, embed, encode, compare and go back, for a group of G devices at once.

    The backbone has no device axis, and adapters have one only where devices differ: their
    frozen products are one big product in either case, and the gradient of global adapters is
    one batched backward pass.

    Args:
      keys: of each device and local step, [G]; the batch is drawn from it, the augmentation from
        its fold 1, dropout from its fold 2.
      devices: which, [G] int32.
      weights: w_n of the devices in the gradient of global adapters, [G].
      adapters: ΔW, or with a leading axis [G] of devices if `scheme.adapters_per_device`.
      heads: θ_n, leading axis [G].
      scheme: the choices, static.
      world: backbone and data.

    Returns:
      Losses and gradients.
    """
    model = split(scheme.model, cut=0)
    frozen = split_weights(scheme.model, world.backbone, cut=0)
    dropout = scheme.model.lora is not None and scheme.model.lora.dropout > 0

    # The stages, each for one device, unbatched.

    def draw(key: jax.Array, indices: jax.Array, size: jax.Array) -> jax.Array:
        return draw_batch(key, indices, size, scheme.batch_size)

    def embed(key: jax.Array, inputs: Any) -> Activations:
        if scheme.transform is not None:
            inputs = scheme.transform.augment(jax.random.fold_in(key, 1), inputs)
        return model.device_forward(frozen.device, {}, inputs)

    def encode(adapters: Any, key: jax.Array, activations: Activations) -> jax.Array:
        key_dropout = jax.random.fold_in(key, 2) if dropout else None
        return model.server_forward(frozen.server, adapters, activations, key_dropout)

    def device_loss(head: Any, features: jax.Array, labels: jax.Array) -> jax.Array:
        outputs = cast(jax.Array, scheme.head.apply(head, features))
        return scheme.task.loss(outputs, labels).mean()

    # 1. Devices embed their mini-batches, the server encodes what arrives.
    batch = jax.vmap(draw)(keys, world.indices[devices], world.sizes[devices])
    activations = jax.vmap(embed)(keys, jax.tree.map(lambda leaf: leaf[batch], world.inputs))
    adapter_axis = 0 if scheme.adapters_per_device else None
    features, backward = jax.vjp(
        lambda adapters: jax.vmap(encode, in_axes=(adapter_axis, 0, 0))(
            adapters, keys, activations
        ),
        adapters,
    )
    # 2. Devices compute their losses and the gradients of heads and features.
    losses, (head_gradient, feature_gradient) = jax.vmap(
        jax.value_and_grad(device_loss, argnums=(0, 1))
    )(heads, features, world.labels[batch])
    # 3. The server finishes the chain rule; the sum over devices, if any, is part of it.
    if not scheme.adapters_per_device:
        feature_gradient = feature_gradient * weights[:, None, None]
    (adapter_gradient,) = backward(feature_gradient)
    return Gradients(losses, adapter_gradient, head_gradient)
