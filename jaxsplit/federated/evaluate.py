"""Test metrics of a federation; a shared head is one equal row per device."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxsplit.federated.halves import features_of
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import LearningState, World


class Evaluation(NamedTuple):
    """Test metrics; a device that was never scheduled keeps an untrained head."""

    score: jax.Array  # [] mean over devices of (shared encoder + own head), by the task's metric
    score_participants: jax.Array  # [] the same over devices that took part at least once
    score_mean_head: jax.Array  # [] with the participation-weighted mean head
    loss: jax.Array  # [] mean over devices of the test loss
    device_score: jax.Array  # [N]


def evaluate(state: LearningState, scheme: Scheme, world: World) -> Evaluation:
    """Evaluate all devices on the common test set; features are encoded once for all.

    Args:
      state: adapters and heads.
      scheme: the choices, static.
      world: backbone and data.

    Returns:
      The metrics. Before any participation those of participants fall back to all devices.
    """
    features = test_features(state.adapters, scheme, world)

    def test(head: Any) -> tuple[jax.Array, jax.Array]:
        outputs = cast(jax.Array, scheme.head.apply(head, features))
        losses = scheme.task.loss(outputs, world.test_labels)
        return scheme.task.metric(outputs, world.test_labels), jnp.mean(losses)

    scores, losses = jax.vmap(test)(state.heads)
    mean_head = weighted_mean(state.participation, state.heads)
    return Evaluation(
        score=jnp.mean(scores),
        score_participants=weighted_mean(state.participation > 0, scores),
        score_mean_head=test(mean_head)[0],
        loss=jnp.mean(losses),
        device_score=scores,
    )


def weighted_mean(weights: jax.Array, tree: Any) -> Any:
    """Weighted mean over the leading axis of each leaf; the plain mean where all weights are 0.

    Args:
      weights: of the devices, [N], not negative.
      tree: a pytree of arrays [N, ...].

    Returns:
      The tree without its leading axis.
    """

    def of_leaf(leaf: jax.Array) -> jax.Array:
        share = weights.astype(leaf.dtype)
        total = jnp.sum(share)
        share = jnp.where(total > 0, share / jnp.maximum(total, 1), 1 / share.size)
        return jnp.tensordot(share, leaf, axes=1)

    return jax.tree.map(of_leaf, tree)


def test_features(adapters: Any, scheme: Scheme, world: World) -> jax.Array:
    """Features of the whole test set, `scheme.test_batch_size` samples at a time.

    Args:
      adapters: ΔW.
      scheme: the choices, static.
      world: backbone and data.

    Returns:
      Features, [M_test, D].
    """

    def encode(inputs: Any) -> jax.Array:
        prepared = inputs if scheme.transform is None else scheme.transform(inputs)
        return features_of(adapters, scheme, world.backbone, prepared)

    count = world.test_labels.shape[0]
    size = min(scheme.test_batch_size, count)
    if size == count:
        return encode(world.test_inputs)

    def in_batches(leaf: jax.Array) -> jax.Array:
        padding = ((0, -count % size),) + ((0, 0),) * (leaf.ndim - 1)
        return jnp.pad(leaf, padding, mode="edge").reshape(-1, size, *leaf.shape[1:])

    features = jax.lax.map(encode, jax.tree.map(in_batches, world.test_inputs))
    return features.reshape(-1, features.shape[-1])[:count]
