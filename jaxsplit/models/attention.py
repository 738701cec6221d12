"""Softmax attention with a way back that keeps its inputs and its weights alone."""

import math

import jax
import jax.numpy as jnp

_FAR_BELOW = -0.7 * float(jnp.finfo(jnp.float32).max)  # exp gives 0, differences stay finite


def split_heads(joined: jax.Array, num_parts: int, num_heads: int) -> list[jax.Array]:
    """Heads of each part of what lies side by side, [B, S, parts·D] to [B, H, S, D/H] per part."""
    batch, length, _ = joined.shape
    return [
        part.reshape(batch, length, num_heads, -1).transpose(0, 2, 1, 3)
        for part in jnp.split(joined, num_parts, axis=-1)
    ]


def join_heads(heads: jax.Array) -> jax.Array:
    """Put heads side by side again, [B, H, S, d] to [B, S, H·d]."""
    batch, _, length, _ = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(batch, length, -1)


@jax.custom_vjp
def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    r"""Scaled dot-product attention, $PV$ with $P = \mathrm{softmax}(QK^\top/\sqrt{d})$.

    Scores and softmax are float32 whatever the inputs' dtype. The way back keeps the inputs and
    P, in the inputs' dtype: $\partial V = P^\top\partial Y$,
    $\partial S = P \odot (\partial P - \sum_s \partial P \odot P) / \sqrt{d}$ with
    $\partial P = \partial Y V^\top$, $\partial Q = \partial S K$ and
    $\partial K = \partial S^\top Q$.

    Args:
      query: [B, H, T, d].
      key: [B, H, S, d].
      value: [B, H, S, d].
      mask: [B, S] bool; where it is False nobody looks.

    Returns:
      Mixed values, [B, H, T, d].
    """
    return _attend_forward(query, key, value, mask)[0]


def _attend_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
    scores = _product("bhtd,bhsd->bhts", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, _FAR_BELOW)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    mixed = _product("bhts,bhsd->bhtd", weights, value).astype(value.dtype)
    return mixed, (query, key, value, weights)


def _attend_backward(
    kept: tuple[jax.Array, jax.Array, jax.Array, jax.Array], of_mixed: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, weights = kept
    of_weights = _product("bhtd,bhsd->bhts", of_mixed, value)
    wide = weights.astype(jnp.float32)
    along = jnp.sum(of_weights * wide, axis=-1, keepdims=True)
    of_scores = (wide * (of_weights - along) / math.sqrt(query.shape[-1])).astype(query.dtype)
    of_query = _product("bhts,bhsd->bhtd", of_scores, key)
    of_key = _product("bhts,bhtd->bhsd", of_scores, query)
    of_value = _product("bhts,bhtd->bhsd", weights, of_mixed)
    dtype = query.dtype
    return of_query.astype(dtype), of_key.astype(dtype), of_value.astype(dtype), None


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product whose sums are float32."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


attend.defvjp(_attend_forward, _attend_backward)


def attend_fused(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """Do as `attend` by cuDNN's kernel, on NVIDIA GPUs in 16 bits; it keeps no S × S matrix."""
    query, key, value = (part.transpose(0, 2, 1, 3) for part in (query, key, value))
    seen = None if mask is None else mask[:, None, None, :]
    with jax.numpy_dtype_promotion("standard"):  # it takes bfloat16 to float32 by itself
        mixed = jax.nn.dot_product_attention(query, key, value, mask=seen, implementation="cudnn")
    return mixed.transpose(0, 2, 1, 3)
