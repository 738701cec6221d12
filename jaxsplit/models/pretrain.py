"""Central training of a small backbone, for a user who brings no checkpoint."""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxsplit.data import Dataset
from jaxsplit.models.blocks import stack_blocks
from jaxsplit.models.vit import ViT


def pretrain(
    key: jax.Array,
    model: ViT,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    peak_learning_rate: float,
    weight_decay: float,
    progress: Callable[[int, int], None] = lambda done, epochs: None,
) -> tuple[Any, float]:
    """Train a backbone and a linear head on a data set, centrally, with AdamW and a cosine rate.

    Images are shifted by up to one pixel in each direction as augmentation.

    Args:
      key: PRNG key.
      model: a backbone without adapters.
      dataset: what to train on.
      epochs: passes over the training set.
      batch_size: images per step.
      peak_learning_rate: after a warm-up over the first tenth of the steps.
      weight_decay: AdamW's.
      progress: called after each epoch with the epochs done and their number.

    Returns:
      `(params, test_accuracy)`: the backbone's weights, stacked (the head is dropped), and its
      accuracy.
    """
    head = nn.Dense(dataset.num_classes)
    key_model, key_head, key_steps = jax.random.split(key, 3)
    inputs, labels = jnp.asarray(dataset.train_inputs), jnp.asarray(dataset.train_labels)
    steps_per_epoch = max(1, len(labels) // batch_size)
    steps = epochs * steps_per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0, peak_learning_rate, steps // 10, steps)
    optimizer = optax.adamw(schedule, weight_decay=weight_decay)

    @jax.jit  # op by op it would be hundreds of programs
    def start() -> tuple[Any, Any]:
        weights = {
            "model": stack_blocks(model.init(key_model, inputs[:1])["params"]),
            "head": head.init(key_head, jnp.zeros((1, model.hidden_size))),
        }
        return weights, optimizer.init(weights)

    def logits(weights: Any, images: jax.Array) -> jax.Array:
        features = model.apply({"params": weights["model"]}, images)
        return cast(jax.Array, head.apply(weights["head"], features))

    def loss(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(weights, images), labels
        ).mean()

    def step(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
        weights, state = carry
        key_batch, key_shift = jax.random.split(key)
        batch = jax.random.randint(key_batch, (batch_size,), 0, len(labels))
        shift = jax.random.randint(key_shift, (2,), -1, 2)
        images = jnp.roll(inputs[batch], shift, axis=(1, 2))
        gradient = jax.grad(loss)(weights, images, labels[batch])
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    @functools.partial(jax.jit, donate_argnums=0)
    def train_epoch(carry: tuple[Any, Any], key: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(step, carry, jax.random.split(key, steps_per_epoch))[0]

    @jax.jit
    def accuracy(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(jnp.argmax(logits(weights, images), axis=-1) == labels)

    carry = start()
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        for epoch in range(epochs):
            carry = jax.block_until_ready(train_epoch(carry, jax.random.fold_in(key_steps, epoch)))
            progress(epoch + 1, epochs)
    weights = carry[0]
    tests = jnp.asarray(dataset.test_inputs), jnp.asarray(dataset.test_labels)
    return weights["model"], float(accuracy(weights, *tests))
