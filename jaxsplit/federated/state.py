"""What a run reads, and what a round hands to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsplit.federated.optimizers import LearningParams, optimizers_at
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.upload import init_residuals
from jaxsplit.models import stack_blocks


class World(NamedTuple):
    """What a run reads and never changes."""

    backbone: Any  # frozen weights, the `params` collection of the model, stacked (`stack_blocks`)
    inputs: Any  # pytree of [M, ...], training inputs of all devices: images, or a dict of tokens
    labels: jax.Array  # [M] int32, or float32 for a regression
    indices: jax.Array  # [N, M_max] int32, samples of each device
    sizes: jax.Array  # [N] int32, |D_n|, how many of them count
    test_inputs: Any  # pytree of [M_test, ...]
    test_labels: jax.Array  # [M_test]


class LearningState(NamedTuple):
    """What a round hands to the next; `()` where each round starts a fresh optimizer."""

    adapters: Any  # ΔW, or all weights, stacked; one for all devices between two rounds
    adapter_optimizer: Any  # of global adapters, on the server; () of adapters per device
    heads: Any  # θ_n, leading axis [N]; equal rows if the head is shared
    head_optimizers: Any  # personal heads: leading axis [N]; shared head: one, or () per device
    participation: jax.Array  # [N] int32, rounds that each device took part in
    residuals: Any = ()  # e_n, what uploads have lost so far, [N, P]; () without error feedback


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

    Raises:
      UploadError: there is an upload codec, and a device uploads nothing or too much for it.
    """
    key_adapters, key_head = jax.random.split(key)
    num_devices = world.sizes.shape[0]
    sample = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), world.inputs)
    sample = sample if scheme.transform is None else scheme.transform(sample)
    adapters = (
        world.backbone
        if scheme.trains_all_weights
        else stack_blocks(scheme.model.init(key_adapters, sample)["lora"])
    )
    features = jnp.zeros((1, scheme.model.hidden_size), jnp.float32)
    head = scheme.head.init(key_head, features)
    heads = in_rows(head, num_devices)

    optimizers = optimizers_at(scheme, params, round_index=0)
    if scheme.heads == "personal":
        head_optimizers = jax.vmap(optimizers.head.init)(heads)
    else:
        head_optimizers = () if scheme.adapters_per_device else optimizers.head.init(head)
    return LearningState(
        adapters=adapters,
        adapter_optimizer=() if scheme.adapters_per_device else optimizers.adapters.init(adapters),
        heads=heads,
        head_optimizers=head_optimizers,
        participation=jnp.zeros(num_devices, jnp.int32),
        residuals=init_residuals(adapters, head, scheme, num_devices),
    )


def in_rows(tree: Any, count: int) -> Any:
    """Repeat a pytree as equal rows.

    Args:
      tree: of arrays [...].
      count: number of rows.

    Returns:
      The tree with arrays [count, ...].
    """
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], count, axis=0), tree)
