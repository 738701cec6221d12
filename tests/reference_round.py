"""FedFT's round as a plain Python loop over devices: no vmap, no scan, no jit, no split.

Written from the paper's steps; the fast round in `jaxsplit.federated` must equal it.
"""

from typing import Any

import jax
import numpy as np

from jaxsplit.data import draw_batch
from jaxsplit.federated import LearningParams, LearningState, Scheme, World


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    """-log softmax(logits)[label], written out."""
    return jax.numpy.log(jax.numpy.sum(jax.numpy.exp(logits))) - logits[label]


def device_loss(
    adapters: Any, head: Any, inputs: jax.Array, labels: list[int], scheme: Scheme, world: World
) -> jax.Array:
    """F_n of a mini-batch through the whole, unsplit model."""
    features = scheme.model.apply({"params": world.backbone, "lora": adapters}, inputs)
    weight, bias = head["params"]["out"]["kernel"], head["params"]["out"]["bias"]
    losses = [cross_entropy(features[i] @ weight + bias, label) for i, label in enumerate(labels)]
    return sum(losses[1:], losses[0]) / len(losses)


def reference_round(
    key: jax.Array,
    state: LearningState,
    mask: np.ndarray,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> tuple[Any, list[Any], float]:
    """One round with plain SGD.

    Returns:
      `(adapters, heads as a list over devices, mean training loss)`.
    """
    heads = [jax.tree.map(lambda leaf, n=n: leaf[n], state.heads) for n in range(len(mask))]
    scheduled = [n for n in range(len(mask)) if mask[n]]
    total, losses = jax.tree.map(lambda leaf: 0 * leaf, state.adapters), []
    for n in scheduled:
        batch = draw_batch(
            jax.random.fold_in(key, n), world.indices[n], world.sizes[n], scheme.batch_size
        )
        labels = [int(world.labels[i]) for i in batch]
        loss, (adapter_gradient, head_gradient) = jax.value_and_grad(device_loss, argnums=(0, 1))(
            state.adapters, heads[n], world.inputs[batch], labels, scheme, world
        )
        heads[n] = jax.tree.map(
            lambda theta, g: theta - params.head_learning_rate * g, heads[n], head_gradient
        )
        total = jax.tree.map(lambda a, b: a + b, total, adapter_gradient)
        losses.append(float(loss))
    adapters = jax.tree.map(
        lambda w, g: w - params.adapter_learning_rate * g / len(scheduled), state.adapters, total
    )
    return adapters, heads, float(np.mean(losses))
