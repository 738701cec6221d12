"""FedFT's round as a plain Python loop over devices: no vmap, no scan, no jit, no split.

Written from the paper's steps; the fast round in `jaxsplit.federated` must equal it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxsplit.data import draw_batch
from jaxsplit.federated import LearningParams, LearningState, Scheme, World


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    """-log softmax(logits)[label], written out."""
    return jax.numpy.log(jax.numpy.sum(jax.numpy.exp(logits))) - logits[label]


def squared_error(outputs: jax.Array, label: float) -> jax.Array:
    """(ŷ − y)² of a regression's only output."""
    return (outputs[0] - label) ** 2


def head_outputs(head: Any, features: jax.Array, scheme: Scheme) -> jax.Array:
    """Outputs of a head for the features [D] of one sample: one dense layer, or two."""
    layers = head["params"]
    if "hidden" in layers:
        hidden = features @ layers["hidden"]["kernel"] + layers["hidden"]["bias"]
        is_relu = scheme.head.activation == "relu"
        features = jax.numpy.maximum(hidden, 0) if is_relu else jax.numpy.tanh(hidden)
    return features @ layers["out"]["kernel"] + layers["out"]["bias"]


def device_loss(
    adapters: Any,
    head: Any,
    inputs: Any,
    labels: list[float],
    scheme: Scheme,
    world: World,
    key_dropout: jax.Array | None = None,
) -> jax.Array:
    """F_n of a mini-batch through the whole, unsplit model."""
    rngs = None if key_dropout is None else {"dropout": key_dropout}
    variables = {"params": world.backbone, "lora": adapters}
    features = scheme.model.apply(variables, inputs, rngs=rngs)
    loss = squared_error if scheme.task.metric_name == "pearson" else cross_entropy
    losses = [
        loss(head_outputs(head, features[i], scheme), label) for i, label in enumerate(labels)
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def reference_round(
    key: jax.Array,
    state: LearningState,
    mask: np.ndarray,
    scheme: Scheme,
    params: LearningParams,
    world: World,
    wrap: Callable[[Callable], Callable] = lambda gradient: gradient,
) -> tuple[Any, list[Any], float]:
    """One round with plain SGD; `wrap` may compile the gradient of a single device.

    Returns:
      `(adapters, heads as a list over devices, mean training loss)`.
    """
    heads = [jax.tree.map(lambda leaf, n=n: leaf[n], state.heads) for n in range(len(mask))]
    scheduled = [n for n in range(len(mask)) if mask[n]]
    loss_and_gradients = wrap(jax.value_and_grad(device_loss, argnums=(0, 1)))
    total, losses = jax.tree.map(lambda leaf: 0 * leaf, state.adapters), []
    for n in scheduled:
        key_n = jax.random.fold_in(key, n)
        batch = draw_batch(key_n, world.indices[n], world.sizes[n], scheme.batch_size)
        inputs = jax.tree.map(lambda leaf, batch=batch: leaf[batch], world.inputs)
        if scheme.transform is not None:
            inputs = scheme.transform.augment(jax.random.fold_in(key_n, 1), inputs)
        key_dropout = jax.random.fold_in(key_n, 2) if scheme.model.lora.dropout else None
        labels = [world.labels[i].item() for i in batch]
        loss, (adapter_gradient, head_gradient) = loss_and_gradients(
            state.adapters, heads[n], inputs, labels, scheme, world, key_dropout
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
