"""One round of split federated fine-tuning with global adapters and personal heads (FedFT)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxsplit.costs import Payload, bits_of
from jaxsplit.data import draw_batch
from jaxsplit.federated.scheme import Scheme
from jaxsplit.models import split, split_weights


class LearningParams(NamedTuple):
    """Numbers of a learning run: sweep over them with one trace."""

    adapter_learning_rate: ArrayLike = 0.1  # η of the global adapters
    head_learning_rate: ArrayLike = 0.1  # η of the personal heads


class World(NamedTuple):
    """What a run reads and never changes."""

    backbone: Any  # frozen weights, the `params` collection of the model
    inputs: jax.Array  # [M, ...] training inputs of all devices
    labels: jax.Array  # [M] int32
    indices: jax.Array  # [N, M_max] int32, samples of each device
    sizes: jax.Array  # [N] int32, how many of them count
    test_inputs: jax.Array  # [M_test, ...]
    test_labels: jax.Array  # [M_test] int32


class LearningState(NamedTuple):
    """What a round hands to the next."""

    adapters: Any  # ΔW, one for all devices, on the server
    adapter_optimizer: Any
    heads: Any  # θ_n, leading axis [N]
    head_optimizers: Any  # leading axis [N]
    participation: jax.Array  # [N] int32, rounds that each device took part in


class RoundInfo(NamedTuple):
    """What a round shows."""

    loss: jax.Array  # [] mean training loss of the set before its update, NaN if it is empty


def init_learning(
    key: jax.Array, scheme: Scheme, params: LearningParams, world: World
) -> LearningState:
    """Fresh adapters, and one head that every device starts from.

    Args:
      key: PRNG key.
      scheme: the choices.
      params: the numbers.
      world: backbone and data.

    Returns:
      The state before round 0.
    """
    key_adapters, key_head = jax.random.split(key)
    num_devices = world.sizes.shape[0]
    sample = jax.eval_shape(lambda inputs: inputs[:1], world.inputs)
    sample = jnp.zeros(sample.shape, sample.dtype)
    adapters = scheme.model.init(key_adapters, sample)["lora"]
    features = jnp.zeros((1, scheme.model.hidden_size), sample.dtype)
    head = scheme.head.init(key_head, features)
    heads = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], num_devices, axis=0), head)
    return LearningState(
        adapters=adapters,
        adapter_optimizer=scheme.optimizer(params.adapter_learning_rate).init(adapters),
        heads=heads,
        head_optimizers=jax.vmap(scheme.optimizer(params.head_learning_rate).init)(heads),
        participation=jnp.zeros(num_devices, jnp.int32),
    )


def federated_round(
    key: jax.Array,
    state: LearningState,
    mask: jax.Array,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> tuple[LearningState, RoundInfo]:
    r"""Run one round for the scheduled devices (FedFT §II-A, (2)–(4)).

    $\theta_n \leftarrow \theta_n - \eta\,\partial F_n/\partial\theta_n$ on each scheduled
    device, $\Delta W \leftarrow \Delta W - \eta \frac1{K}\sum_{n\in S} g_n$ on the server.

    Because ΔW is global within a round, the gradient of a group of devices is one batched
    backward pass, and the backbone is never copied. Scheduled devices are taken in groups of
    `scheme.devices_per_step`, as many as there are: the others cost nothing.

    Args:
      key: PRNG key of this round; device n draws its batch from `fold_in(key, n)`.
      state: from `init_learning` or the round before.
      mask: the scheduled set S_t, bool [N].
      scheme: the choices, static.
      params: the numbers.
      world: backbone and data.

    Returns:
      `(state, info)`. Nothing but the state of scheduled devices and ΔW moves.
    """
    num_devices = mask.shape[0]
    group_size = min(scheme.devices_per_step, num_devices)
    count = jnp.sum(mask, dtype=jnp.int32)
    weight = 1 / jnp.maximum(count, 1).astype(world.inputs.dtype)

    # Scheduled devices first; the index N, which no device has, fills the last group.
    order = jnp.argsort(~mask, stable=True)
    order = jnp.where(jnp.arange(num_devices) < count, order, num_devices)
    order = jnp.pad(order, (0, -num_devices % group_size), constant_values=num_devices)

    frozen = split_weights(scheme.model, world.backbone, cut=0)
    model = split(scheme.model, cut=0)
    head_optimizer = scheme.optimizer(params.head_learning_rate)

    # The stages of one device, unbatched.

    def embed(inputs: jax.Array) -> jax.Array:
        return model.device_forward(frozen.device, {}, inputs)

    def encode(adapters: Any, tokens: jax.Array) -> jax.Array:
        return model.server_forward(frozen.server, adapters, tokens)

    def device_loss(head: Any, features: jax.Array, labels: jax.Array) -> jax.Array:
        logits = scheme.head.apply(head, features)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def update_head(head: Any, optimizer: Any, gradient: Any) -> tuple[Any, Any]:
        updates, optimizer = head_optimizer.update(gradient, optimizer, head)
        return optax.apply_updates(head, updates), optimizer

    def run_group(index: jax.Array, carry: tuple) -> tuple:
        heads, optimizers, adapter_gradient, loss_sum = carry
        devices = jax.lax.dynamic_slice(order, (index * group_size,), (group_size,))
        here = devices < num_devices
        of_group = jnp.minimum(devices, num_devices - 1)  # gathers stay inside the arrays

        # 1. Each device draws a mini-batch and embeds it; the server encodes what arrives.
        keys = jax.vmap(lambda device: jax.random.fold_in(key, device))(devices)
        batch = jax.vmap(draw_batch, in_axes=(0, 0, 0, None))(
            keys, world.indices[of_group], world.sizes[of_group], scheme.batch_size
        )
        tokens = jax.vmap(embed)(world.inputs[batch])
        features, backward = jax.vjp(
            lambda adapters: jax.vmap(encode, in_axes=(None, 0))(adapters, tokens), state.adapters
        )
        # 2. Each device computes its loss, its head's gradient and that of the features (2).
        group_heads = jax.tree.map(lambda leaf: leaf[of_group], heads)
        group_optimizers = jax.tree.map(lambda leaf: leaf[of_group], optimizers)
        losses, (head_gradient, feature_gradient) = jax.vmap(
            jax.value_and_grad(device_loss, argnums=(0, 1))
        )(group_heads, features, world.labels[batch])
        # 3. It updates its own head (3); writes to device N are dropped.
        group_heads, group_optimizers = jax.vmap(update_head)(
            group_heads, group_optimizers, head_gradient
        )
        heads, optimizers = jax.tree.map(
            lambda all_, group: all_.at[devices].set(group, mode="drop"),
            (heads, optimizers),
            (group_heads, group_optimizers),
        )
        # 4. The server finishes the chain rule; the weights make it the mean over S_t (4).
        weights = jnp.where(here, weight, 0)
        (gradient,) = backward(feature_gradient * weights[:, None, None])
        adapter_gradient = jax.tree.map(jnp.add, adapter_gradient, gradient)
        return heads, optimizers, adapter_gradient, loss_sum + jnp.sum(weights * losses)

    num_groups = (count + group_size - 1) // group_size
    nothing = jax.tree.map(jnp.zeros_like, state.adapters)
    heads, head_optimizers, gradient, loss = jax.lax.fori_loop(
        0,
        num_groups,
        run_group,
        (state.heads, state.head_optimizers, nothing, jnp.zeros_like(weight)),
    )
    updates, adapter_optimizer = scheme.optimizer(params.adapter_learning_rate).update(
        gradient, state.adapter_optimizer, state.adapters
    )
    adapters = optax.apply_updates(state.adapters, updates)
    adapters, adapter_optimizer = jax.tree.map(  # momentum must not move ΔW in an empty round
        lambda new, old: jnp.where(count > 0, new, old),
        (adapters, adapter_optimizer),
        (state.adapters, state.adapter_optimizer),
    )
    return LearningState(
        adapters=adapters,
        adapter_optimizer=adapter_optimizer,
        heads=heads,
        head_optimizers=head_optimizers,
        participation=state.participation + mask.astype(jnp.int32),
    ), RoundInfo(loss=jnp.where(count > 0, loss, jnp.nan))


def payload(scheme: Scheme, world: World) -> Payload:
    """Bits that one scheduled device exchanges in a round, from the real shapes and dtypes.

    Up: the embedded mini-batch and the gradient of its features; down: the features.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      The payload of one device and round.
    """
    model = scheme.model.clone(lora=None)  # adapters do not change what is sent
    halves = split(model, cut=0)
    frozen = split_weights(model, world.backbone, cut=0)
    inputs = jax.ShapeDtypeStruct((scheme.batch_size, *world.inputs.shape[1:]), world.inputs.dtype)
    tokens = jax.eval_shape(halves.device_forward, frozen.device, {}, inputs)
    features = jax.eval_shape(halves.server_forward, frozen.server, {}, tokens)
    return Payload(up_bits=bits_of(tokens) + bits_of(features), down_bits=bits_of(features))
