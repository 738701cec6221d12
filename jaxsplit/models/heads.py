"""Task heads: what a device trains on top of the features."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class LinearHead(nn.Module):
    """One dense layer on the features (BERT, ViT).

    Attributes:
      num_outputs: C, logits of a classification or values of a regression.
    """

    num_outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features [B, D] to outputs [B, C]."""
        return nn.Dense(self.num_outputs, name="out")(features)


class MlpHead(nn.Module):
    """A dense layer of the features' width, an activation, a dense layer (RoBERTa, DistilBERT).

    Attributes:
      num_outputs: C.
      activation: "tanh" (RoBERTa) or "relu" (DistilBERT).
    """

    num_outputs: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features [B, D] to outputs [B, C]."""
        hidden = nn.Dense(features.shape[-1], name="hidden")(features)
        hidden = {"tanh": jnp.tanh, "relu": nn.relu}[self.activation](hidden)
        return nn.Dense(self.num_outputs, name="out")(hidden)


class Task(NamedTuple):
    """What the outputs of a head mean.

    A new task is one more value of this: give it to a scheme, or register it in `TASKS`.
    """

    loss: Callable[[jax.Array, jax.Array], jax.Array]  # (outputs [B, C], labels [B]) -> [B]
    metric: Callable[[jax.Array, jax.Array], jax.Array]  # (outputs [M, C], labels [M]) -> []
    metric_name: str  # as results name it
    loss_unit: str = ""


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of integer labels, NaN for one that is no class.

    As optax's, but picked by a sum: JAX goes back through a gather by a scatter.
    """
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    losses = -jnp.sum(jax.nn.log_softmax(logits), axis=-1, where=is_label)
    return jnp.where(jnp.any(is_label, axis=-1), losses, jnp.nan)


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    hits = jnp.argmax(logits, axis=-1) == labels
    return jnp.mean(hits, dtype=logits.dtype)


def _squared_error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.square(outputs[:, 0] - labels)


def _pearson(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Pearson's correlation; 0 where either side is constant."""
    x, y = (v - jnp.mean(v) for v in (outputs[:, 0], labels))
    scale = jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))
    return jnp.sum(x * y) / jnp.where(scale > 0, scale, 1)


#: Tasks by the name that data sets give.
TASKS: dict[str, Task] = {
    "classification": Task(_cross_entropy, _accuracy, "accuracy", "nat"),
    "regression": Task(_squared_error, _pearson, "pearson"),
}


def task_named(name: str) -> Task:
    """A task by its name.

    Args:
      name: "classification" or "regression".

    Returns:
      The task.

    Raises:
      ValueError: no such task.

    Example:
      >>> import jax.numpy as jnp
      >>> outputs, scores = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([1.0, 3.0, 5.0])
      >>> float(task_named("regression").metric(outputs, scores))
      1.0
    """
    if name not in TASKS:
        raise ValueError(f"task={name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]
