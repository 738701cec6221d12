"""The loss of a classification against optax's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tolerances import within

from jaxsplit.models.heads import task_named

LOSS = task_named("classification").loss


def test_cross_entropy_and_its_gradient_are_those_of_optax():
    """A class that is ruled out by a logit of -inf leaves the others alone."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(7, 5)), jnp.float32).at[:, 4].set(-jnp.inf)
    labels = jnp.asarray(rng.integers(0, 4, 7), jnp.int32)
    reference = optax.softmax_cross_entropy_with_integer_labels
    ours, expected = (
        (loss(logits, labels), jax.grad(lambda x, loss=loss: loss(x, labels).mean())(logits))
        for loss in (LOSS, reference)
    )
    chex.assert_trees_all_close(ours, expected, **within(expected, 5))


def test_a_label_that_is_no_class_has_no_loss():
    """It must not train in silence: NaN stops a run."""
    losses = LOSS(jnp.zeros((3, 2)), jnp.array([1, 2, -1]))
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1:]).all()
