"""One round of split federated fine-tuning with global adapters and personal heads (FedFT)."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxsplit.costs import Payload, bits_of
from jaxsplit.data import draw_batch
from jaxsplit.federated.scheme import Scheme
from jaxsplit.models import Activations, split, split_weights


class LearningParams(NamedTuple):
    """Numbers of a learning run: sweep over them with one trace."""

    adapter_learning_rate: ArrayLike = 0.3  # η of the global adapters
    head_learning_rate: ArrayLike = 0.01  # η of the personal heads


class World(NamedTuple):
    """What a run reads and never changes."""

    backbone: Any  # frozen weights, the `params` collection of the model
    inputs: Any  # pytree of [M, ...], training inputs of all devices: images, or a dict of tokens
    labels: jax.Array  # [M] int32, or float32 for a regression
    indices: jax.Array  # [N, M_max] int32, samples of each device
    sizes: jax.Array  # [N] int32, how many of them count
    test_inputs: Any  # pytree of [M_test, ...]
    test_labels: jax.Array  # [M_test]


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
    sample = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), world.inputs)
    sample = sample if scheme.transform is None else scheme.transform(sample)
    adapters = scheme.model.init(key_adapters, sample)["lora"]
    features = jnp.zeros((1, scheme.model.hidden_size), jnp.float32)
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
      key: PRNG key of this round; device n draws its batch from `fold_in(key, n)`, and from that
        key its augmentation and its dropout.
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
    order = _scheduled_first(mask, group_size)

    # Groups of scheduled devices: batches, forward, heads, backward (2), (3).
    def run_group(index: jax.Array, total: _Totals) -> _Totals:
        devices = jax.lax.dynamic_slice(order, (index * group_size,), (group_size,))
        return _train_group(key, devices, count, total, state.adapters, scheme, params, world)

    total = jax.lax.fori_loop(
        0,
        (count + group_size - 1) // group_size,
        run_group,
        _Totals(
            heads=state.heads,
            head_optimizers=state.head_optimizers,
            adapter_gradient=jax.tree.map(jnp.zeros_like, state.adapters),
            loss=jnp.zeros((), jnp.float32),
        ),
    )
    # The server's step on ΔW (4). Momentum must not move it in a round without devices.
    optimizer = scheme.optimizer(params.adapter_learning_rate)
    updates, adapter_optimizer = optimizer.update(
        total.adapter_gradient, state.adapter_optimizer, state.adapters
    )
    adapters, adapter_optimizer = jax.tree.map(
        lambda new, old: jnp.where(count > 0, new, old),
        (optax.apply_updates(state.adapters, updates), adapter_optimizer),
        (state.adapters, state.adapter_optimizer),
    )
    return LearningState(
        adapters=adapters,
        adapter_optimizer=adapter_optimizer,
        heads=total.heads,
        head_optimizers=total.head_optimizers,
        participation=state.participation + mask.astype(jnp.int32),
    ), RoundInfo(loss=jnp.where(count > 0, total.loss, jnp.nan))


class _Totals(NamedTuple):
    """What the groups of a round build up."""

    heads: Any  # [N, ...], those of finished groups updated
    head_optimizers: Any  # [N, ...]
    adapter_gradient: Any  # sum of g_n / K over finished groups
    loss: jax.Array  # [] sum of F_n / K


def _scheduled_first(mask: jax.Array, group_size: int) -> jax.Array:
    """Device indices, scheduled ones first, padded to whole groups with N, which no device has."""
    num_devices = mask.shape[0]
    order = jnp.argsort(~mask, stable=True)
    order = jnp.where(jnp.arange(num_devices) < jnp.sum(mask), order, num_devices)
    return jnp.pad(order, (0, -num_devices % group_size), constant_values=num_devices)


def _train_group(
    key: jax.Array,
    devices: jax.Array,
    count: jax.Array,
    total: _Totals,
    adapters: Any,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> _Totals:
    """Run the stages of a round for a group of devices; the index N stands for none."""
    model = split(scheme.model, cut=0)
    frozen = split_weights(scheme.model, world.backbone, cut=0)
    optimizer = scheme.optimizer(params.head_learning_rate)

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

    def update_head(head: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradient, state, head)
        return optax.apply_updates(head, updates), state

    num_devices = world.sizes.shape[0]
    safe = jnp.minimum(devices, num_devices - 1)  # what is read for "none" is not used
    heads, states = jax.tree.map(lambda leaf: leaf[safe], (total.heads, total.head_optimizers))

    # 1. Devices embed their mini-batches, the server encodes what arrives.
    keys = jax.vmap(lambda device: jax.random.fold_in(key, device))(devices)
    batch = jax.vmap(draw)(keys, world.indices[safe], world.sizes[safe])
    activations = jax.vmap(embed)(keys, jax.tree.map(lambda leaf: leaf[batch], world.inputs))
    features, backward = jax.vjp(
        lambda adapters: jax.vmap(encode, in_axes=(None, 0, 0))(adapters, keys, activations),
        adapters,
    )
    # 2. Devices compute their losses and the gradients of heads and features (2).
    losses, (head_gradient, feature_gradient) = jax.vmap(
        jax.value_and_grad(device_loss, argnums=(0, 1))
    )(heads, features, world.labels[batch])
    # 3. Devices update their heads (3); writes to the index N are dropped.
    updated = jax.vmap(update_head)(heads, states, head_gradient)
    heads, states = jax.tree.map(
        lambda everyone, group: everyone.at[devices].set(group, mode="drop"),
        (total.heads, total.head_optimizers),
        updated,
    )
    # 4. The server finishes the chain rule; the weights make the sum a mean over S_t (4).
    weights = jnp.where(devices < num_devices, 1 / count.astype(losses.dtype), 0)
    (gradient,) = backward(feature_gradient * weights[:, None, None])
    return _Totals(
        heads=heads,
        head_optimizers=states,
        adapter_gradient=jax.tree.map(jnp.add, total.adapter_gradient, gradient),
        loss=total.loss + jnp.sum(weights * losses),
    )


def payload(scheme: Scheme, world: World) -> Payload:
    """Bits that one scheduled device exchanges in a round, from the real shapes and dtypes.

    Up: the embedded mini-batch, with its padding mask where it has one, and the gradient of its
    features; down: the features.

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
    return Payload(up_bits=bits_of(sent) + bits_of(features), down_bits=bits_of(features))
