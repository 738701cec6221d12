"""Attention with its own way back, against JAX's and its derivatives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import GRADIENT, within

from jaxsplit.models.attention import attend, join_heads, split_heads

BATCH, HEADS, LENGTH, DEPTH = 3, 2, 5, 4
MASK = jnp.asarray(np.arange(LENGTH) < np.array([[5], [3], [1]]))


def theirs(query, key, value, mask):
    parts = [part.transpose(0, 2, 1, 3) for part in (query, key, value)]
    seen = None if mask is None else mask[:, None, None, :]
    return jax.nn.dot_product_attention(*parts, mask=seen).transpose(0, 2, 1, 3)


def inputs(num_queries, dtype):
    rng = np.random.default_rng(0)
    shapes = [(BATCH, HEADS, length, DEPTH) for length in (num_queries, LENGTH, LENGTH)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("num_queries", [LENGTH, 1])
def test_values_and_gradients_are_those_of_jax(num_queries, mask, dtype):
    parts = inputs(num_queries, dtype)
    weights = jnp.asarray(
        np.random.default_rng(1).normal(size=(BATCH, HEADS, num_queries, DEPTH)), jnp.float32
    )

    @jax.jit
    def both(parts):
        def of(attention):
            def loss(parts):
                mixed = attention(*parts, mask)
                return jnp.sum(weights * mixed.astype(jnp.float32)), mixed

            return jax.grad(loss, has_aux=True)(parts)

        return of(attend), of(theirs)

    with jax.numpy_dtype_promotion("standard"):  # JAX's goes back with products of two dtypes
        ours, expected = both(parts)
    chex.assert_trees_all_equal_dtypes(ours, expected)
    ours, expected = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (ours, expected))
    allowed = within(expected, GRADIENT * LENGTH * DEPTH, dtype=dtype)
    chex.assert_trees_all_close(ours, expected, **allowed)


def test_a_sequence_that_shows_nothing_has_a_mean_and_a_gradient():
    """A padded row of a batch: finite, whatever is done with it."""
    parts = inputs(LENGTH, jnp.float32)
    nothing = jnp.zeros((BATCH, LENGTH), bool)
    mixed, back = jax.vjp(lambda *parts: attend(*parts, nothing), *parts)
    expected = jnp.broadcast_to(parts[2].mean(axis=2, keepdims=True), mixed.shape)
    np.testing.assert_allclose(mixed, expected, **within(expected, LENGTH))
    assert all(np.isfinite(gradient).all() for gradient in back(mixed))


def test_heads_are_joined_as_they_were_split():
    x = jnp.arange(2 * 5 * 3 * 8.0).reshape(2, 5, 24)
    query, key, value = split_heads(x, 3, num_heads=4)
    assert query.shape == (2, 4, 5, 2)
    np.testing.assert_array_equal(join_heads(key), x[:, :, 8:16])
    np.testing.assert_array_equal(value[:, 1], x[:, :, 18:20])
