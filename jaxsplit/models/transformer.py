"""The transformer block that the backbones share."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsplit.models.attention import attend, attend_fused, join_heads, split_heads
from jaxsplit.models.blocks import Row
from jaxsplit.models.dense import read_weight
from jaxsplit.models.lora import LoraConfig, LoraDense, apply_dense, frozen_or_param


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    r"""Exact Gaussian error linear unit, $x\,\Phi(x)$.

    Through erf, whose absolute error is a rounding of x; `jax.nn.gelu` goes through erfc, whose
    relative accuracy in the far tail costs several times as much. Only the derivative is kept
    for the way back.

    Args:
      x: any shape.

    Returns:
      The same shape.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@gelu.defjvp
def _gelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    cdf = 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return x * cdf, (cdf + x * density) * tangent


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=True)


#: `hidden_act` of a transformers configuration.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
}


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, in float32 whatever the computation's dtype.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x [..., D]; the dtype stays."""
        scale = frozen_or_param(self, "scale", nn.initializers.ones, x.shape[-1:])
        bias = frozen_or_param(self, "bias", nn.initializers.zeros, x.shape[-1:])
        return _normalise(self.epsilon, x, scale, bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(
    epsilon: float, x: jax.Array, scale: jax.Array | Row, bias: jax.Array | Row
) -> jax.Array:
    r"""$y = \hat x \odot s + b$ with $\hat x = (x - \bar x) / \sqrt{\mathrm{var}(x) + \epsilon}$.

    The way back keeps $\hat x$ and one number per row:
    $\partial x = (g - \overline{g} - \hat x\,\overline{g \hat x}) / \sqrt{\cdot}$ with
    $g = s \odot \partial y$.
    """
    return _normalise_forward(epsilon, x, scale, bias)[0]


def _normalise_forward(
    epsilon: float, x: jax.Array, scale: jax.Array | Row, bias: jax.Array | Row
) -> tuple[jax.Array, Any]:
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    normal = centred * inverse
    y = normal * _along_last(scale, x.ndim) + _along_last(bias, x.ndim)
    return y.astype(x.dtype), (normal, inverse, scale, bias)


def _normalise_backward(_: float, kept: Any, gradient: jax.Array) -> tuple[jax.Array, Any, Any]:
    normal, inverse, scale, bias = kept
    wide = gradient.astype(jnp.float32)
    scaled = wide * _along_last(scale, wide.ndim)
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    of_x = inverse * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normal * along)

    def of_vector(vector: jax.Array | Row, terms: jax.Array) -> jax.Array | None:
        if isinstance(vector, Row):
            return None
        return jnp.sum(terms, axis=tuple(range(terms.ndim - 1))).astype(vector.dtype)

    of_scale, of_bias = of_vector(scale, wide * normal), of_vector(bias, wide)
    return of_x.astype(gradient.dtype), of_scale, of_bias


def _along_last(vector: jax.Array | Row, ndim: int) -> jax.Array:
    return read_weight(vector, jnp.float32).reshape((1,) * (ndim - 1) + (-1,))


_normalise.defvjp(_normalise_forward, _normalise_backward)


class SelfAttention(nn.Module):
    r"""Multi-head self-attention, $\mathrm{softmax}(QK^\top/\sqrt{d})V$, with adapters.

    Attributes:
      num_heads: heads; must divide the width.
      lora: the adapters' configuration.
      use_bias: whether query, key and value have biases.
      dtype: of the computation.
      fused: cuDNN's fused kernel, which keeps no S × S matrix: NVIDIA GPUs, 16-bit numbers.
    """

    num_heads: int
    lora: LoraConfig | None = None
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    fused: bool = False

    @nn.compact
    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, first_only: bool = False
    ) -> jax.Array:
        """Map tokens [B, S, D] to [B, S, D], or to [B, 1, D] of the first alone.

        Where `mask` [B, S] is False nobody looks.
        """
        width = tokens.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide the width {width}")
        layers = [
            LoraDense(width, self.lora, self.use_bias, self.dtype, name=name)
            for name in ("query", "key", "value")
        ]
        if first_only:
            parts = split_heads(apply_dense(tokens[:, :1], layers[0]), 1, self.num_heads)
            parts += split_heads(apply_dense(tokens, *layers[1:]), 2, self.num_heads)
        else:
            parts = split_heads(apply_dense(tokens, *layers), 3, self.num_heads)
        query, key, value = parts
        mixed = (attend_fused if self.fused else attend)(query, key, value, mask)
        out = LoraDense(width, self.lora, dtype=self.dtype, name="attention_output")
        return out(join_heads(mixed))


class Block(nn.Module):
    """A transformer block: attention and a two-layer perceptron, each around a residual.

    Attributes:
      num_heads: attention heads.
      mlp_width: hidden width of the perceptron.
      pre_norm: normalise before each half (ViT) or after its residual (BERT).
      hidden_act: the perceptron's activation.
      epsilon: of the normalisations.
      use_qkv_bias: whether query, key and value have biases.
      lora: the adapters' configuration.
      dtype: of the computation.
      fused: attention through cuDNN's fused kernel.
    """

    num_heads: int
    mlp_width: int
    pre_norm: bool
    hidden_act: str = "gelu"
    epsilon: float = 1e-12
    use_qkv_bias: bool = True
    lora: LoraConfig | None = None
    dtype: DTypeLike = jnp.float32
    fused: bool = False

    def setup(self) -> None:
        """Name the parts."""
        self.attention = SelfAttention(
            self.num_heads, self.lora, self.use_qkv_bias, self.dtype, self.fused
        )
        self.attention_norm = LayerNorm(self.epsilon)
        self.mlp_norm = LayerNorm(self.epsilon)

    @nn.compact
    def mlp(self, tokens: jax.Array) -> jax.Array:
        """The perceptron, [B, S, D] to [B, S, D]."""
        hidden = LoraDense(self.mlp_width, self.lora, dtype=self.dtype, name="mlp_in")(tokens)
        hidden = ACTIVATIONS[self.hidden_act](hidden)
        return LoraDense(tokens.shape[-1], self.lora, dtype=self.dtype, name="mlp_out")(hidden)

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, first_only: bool = False
    ) -> jax.Array:
        """Map tokens [B, S, D] to [B, S, D], or to [B, 1, D] of the first alone."""
        kept = tokens[:, :1] if first_only else tokens
        if self.pre_norm:
            kept = kept + self.attention(self.attention_norm(tokens), mask, first_only)
            return kept + self.mlp(self.mlp_norm(kept))
        kept = self.attention_norm(kept + self.attention(tokens, mask, first_only))
        return self.mlp_norm(kept + self.mlp(kept))
