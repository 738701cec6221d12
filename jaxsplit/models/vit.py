"""The vision transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsplit.models.lora import LoraConfig, LoraDense
from jaxsplit.models.transformer import PreNormBlock


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021): pre-norm blocks, CLS token, tanh pooler.

    The three stages are methods, so that a split run can call each where it belongs:
    `embed` → `encode` (any range of blocks) → `pool`. Field names follow `ViTConfig` of
    transformers.

    Attributes:
      patch_size: side of a square patch, pixels.
      hidden_size: D, width of a token.
      num_hidden_layers: L, blocks.
      num_attention_heads: heads per block.
      intermediate_size: hidden width of a block's perceptron.
      lora: adapters; None for the bare backbone. The frozen weights are the same either way.
    """

    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    lora: LoraConfig | None = None

    def setup(self) -> None:
        """Name the parts; `split` relies on these names."""
        self.patch_embedding = nn.Dense(self.hidden_size)
        self.blocks = [
            PreNormBlock(self.num_attention_heads, self.intermediate_size, self.lora)
            for _ in range(self.num_hidden_layers)
        ]
        self.norm = nn.LayerNorm()
        self.pooler = LoraDense(self.hidden_size, self.lora)

    @nn.compact
    def embed(self, images: jax.Array) -> jax.Array:
        """Cut images [B, H, W, C] into patches and embed them, [B, S, D] with CLS first."""
        batch, height, width, channels = images.shape
        side = self.patch_size
        if height % side or width % side:
            raise ValueError(f"patch_size={side} must divide the image size {height}×{width}")
        patches = images.reshape(batch, height // side, side, width // side, side, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)
        tokens = self.patch_embedding(patches)
        normal = nn.initializers.normal(0.02)
        cls = self.param("cls_token", normal, (1, 1, self.hidden_size))
        tokens = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.hidden_size)), tokens], 1)
        return tokens + self.param("position_embedding", normal, (1, *tokens.shape[1:]))

    def encode(self, tokens: jax.Array, start: int = 0, stop: int | None = None) -> jax.Array:
        """Run blocks `start` to `stop` (exclusive; None for all) on tokens [B, S, D]."""
        for block in self.blocks[start:stop]:
            tokens = block(tokens)
        return tokens

    def pool(self, tokens: jax.Array) -> jax.Array:
        """Reduce tokens [B, S, D] to features [B, D]: tanh of a dense layer on the CLS token."""
        return jnp.tanh(self.pooler(self.norm(tokens[:, 0])))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Features [B, D] of images [B, H, W, C]."""
        return self.pool(self.encode(self.embed(images)))
