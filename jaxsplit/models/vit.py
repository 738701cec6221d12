"""The vision transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsplit.models.base import Activations, Backbone
from jaxsplit.models.lora import LoraDense


class ViT(Backbone, kw_only=True):
    """Vision transformer (Dosovitskiy et al. 2021): pre-norm blocks, CLS token.

    Covers DeiT without distillation token, which is the same network.

    Attributes:
      patch_size: side of a square patch, pixels.

    Example:
      >>> import jax
      >>> model = ViT(patch_size=2, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
      ...             intermediate_size=16)
      >>> images = jnp.ones((3, 4, 4, 1))
      >>> model.apply(model.init(jax.random.key(0), images), images).shape
      (3, 8)
    """

    patch_size: int

    @nn.compact
    def embed(self, images: jax.Array) -> Activations:
        """Cut images [B, H, W, C] into patches and embed them, [B, S, D] with CLS first."""
        batch, height, width, channels = images.shape
        side = self.patch_size
        if height % side or width % side:
            raise ValueError(f"patch_size={side} must divide the image size {height}×{width}")
        patches = images.reshape(batch, height // side, side, width // side, side, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)
        tokens = LoraDense(self.hidden_size, dtype=self.dtype, name="patch_embedding")(patches)
        normal = nn.initializers.normal(0.02)
        cls = self.param("cls_token", normal, (1, 1, self.hidden_size)).astype(self.dtype)
        tokens = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.hidden_size)), tokens], 1)
        position = self.param("position_embedding", normal, (1, *tokens.shape[1:]))
        return Activations(tokens + position.astype(self.dtype))
