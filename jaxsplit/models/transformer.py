"""The transformer block that the backbones share."""

import flax.linen as nn
import jax

from jaxsplit.models.lora import LoraConfig, LoraDense


class SelfAttention(nn.Module):
    r"""Multi-head self-attention, $\mathrm{softmax}(QK^\top/\sqrt{d})V$, with adapters.

    Attributes:
      num_heads: heads; must divide the width.
      lora: the adapters' configuration.
    """

    num_heads: int
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map tokens [B, S, D] to [B, S, D]."""
        *lead, width = tokens.shape
        if width % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide the width {width}")
        query, key, value = (
            LoraDense(width, self.lora, name=name)(tokens).reshape(
                *lead, self.num_heads, width // self.num_heads
            )
            for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(query, key, value)
        return LoraDense(width, self.lora, name="attention_output")(mixed.reshape(tokens.shape))


class PreNormBlock(nn.Module):
    """A transformer block with layer normalisation before each half, as in ViT.

    Attributes:
      num_heads: attention heads.
      mlp_width: hidden width of the two-layer perceptron.
      lora: the adapters' configuration.
    """

    num_heads: int
    mlp_width: int
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map tokens [B, S, D] to [B, S, D]."""
        normed = nn.LayerNorm(name="norm_before")(tokens)
        tokens = tokens + SelfAttention(self.num_heads, self.lora, name="attention")(normed)
        hidden = nn.LayerNorm(name="norm_after")(tokens)
        hidden = LoraDense(self.mlp_width, self.lora, name="mlp_in")(hidden)
        hidden = nn.gelu(hidden, approximate=False)
        return tokens + LoraDense(tokens.shape[-1], self.lora, name="mlp_out")(hidden)
