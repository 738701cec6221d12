"""Test metrics against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from tolerances import roundings, within

from jaxsplit.federated import evaluate, init_learning


def test_metrics_follow_their_definitions(scheme, learning_params, world):
    state = init_learning(jax.random.key(0), scheme, learning_params, world)
    heads = jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(1), leaf.shape), state.heads
    )
    participation = jnp.array([0, 1, 3, 0, 2, 0], jnp.int32)
    metrics = evaluate(state._replace(heads=heads, participation=participation), scheme, world)

    variables = {"params": world.backbone, "lora": state.adapters}
    features = np.asarray(scheme.model.apply(variables, world.test_inputs))
    kernel, bias = (np.asarray(heads["params"]["out"][name]) for name in ("kernel", "bias"))
    labels = np.asarray(world.test_labels)

    def accuracy(kernel, bias):
        return np.mean(np.argmax(features @ kernel + bias, axis=-1) == labels)

    own = np.array([accuracy(kernel[n], bias[n]) for n in range(6)])
    weights = np.array([0, 1, 3, 0, 2, 0]) / 6
    mean_head = accuracy(np.tensordot(weights, kernel, 1), np.tensordot(weights, bias, 1))
    logits = features @ kernel + bias[:, None, :]
    log_sum = np.log(np.exp(logits).sum(-1))
    losses = log_sum - np.take_along_axis(logits, labels[None, :, None], -1)[..., 0]

    np.testing.assert_allclose(metrics.device_score, own, rtol=1e-6)
    np.testing.assert_allclose(metrics.score, own.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics.score_participants, own[[1, 2, 4]].mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics.score_mean_head, mean_head, rtol=1e-6)
    bound = within(losses, roundings(scheme.model))
    np.testing.assert_allclose(metrics.loss, losses.mean(), **bound)


def test_before_any_participation_all_devices_count(scheme, learning_params, world):
    state = init_learning(jax.random.key(0), scheme, learning_params, world)
    metrics = evaluate(state, scheme, world)
    np.testing.assert_allclose(metrics.score_participants, metrics.score, rtol=1e-6)  # not 0/0
    np.testing.assert_allclose(
        metrics.score_mean_head, metrics.score, rtol=1e-6
    )  # heads start equal
