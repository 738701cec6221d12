"""Test metrics of a federation with personal heads."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jaxsplit.federated.round import LearningState, World
from jaxsplit.federated.scheme import Scheme


class Evaluation(NamedTuple):
    """Test metrics; a device that was never scheduled keeps an untrained head."""

    accuracy: jax.Array  # [] mean over devices of (shared encoder + own head)
    accuracy_participants: jax.Array  # [] the same over devices that took part at least once
    accuracy_mean_head: jax.Array  # [] with the participation-weighted mean head
    loss: jax.Array  # [] mean over devices of the test loss
    device_accuracy: jax.Array  # [N]


def evaluate(state: LearningState, scheme: Scheme, world: World) -> Evaluation:
    """Evaluate all devices on the common test set; features are encoded once for all.

    Args:
      state: adapters and heads.
      scheme: the choices, static.
      world: backbone and data.

    Returns:
      The metrics. Before any participation the last two accuracies fall back to all devices.
    """
    variables = {"params": world.backbone, "lora": state.adapters}
    features = cast(jax.Array, scheme.model.apply(variables, world.test_inputs))

    def test(head: Any) -> tuple[jax.Array, jax.Array]:
        logits = cast(jax.Array, scheme.head.apply(head, features))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, world.test_labels)
        hits = jnp.argmax(logits, axis=-1) == world.test_labels
        return jnp.mean(hits, dtype=features.dtype), jnp.mean(losses)

    accuracies, losses = jax.vmap(test)(state.heads)

    def weighted_mean(weights: jax.Array, leaf: jax.Array) -> jax.Array:
        weights = weights.astype(leaf.dtype)
        total = jnp.sum(weights)
        weights = jnp.where(total > 0, weights / jnp.maximum(total, 1), 1 / weights.size)
        return jnp.tensordot(weights, leaf, axes=1)

    mean_head = jax.tree.map(lambda leaf: weighted_mean(state.participation, leaf), state.heads)
    return Evaluation(
        accuracy=jnp.mean(accuracies),
        accuracy_participants=weighted_mean(state.participation > 0, accuracies),
        accuracy_mean_head=test(mean_head)[0],
        loss=jnp.mean(losses),
        device_accuracy=accuracies,
    )
