"""BERT and its family: RoBERTa and DistilBERT are the same encoder with other embeddings."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxsplit.models.base import Activations, Backbone
from jaxsplit.models.transformer import LayerNorm


class Bert(Backbone, kw_only=True):
    """BERT encoder (Devlin et al. 2019): post-norm blocks on word, position and type embeddings.

    Inputs are a dictionary of int32 [B, S]: `input_ids`, `attention_mask` (0 for padding; all
    ones where it is left out) and `token_type_ids` (zeros where it is left out).

    Attributes:
      vocab_size: words.
      max_position_embeddings: rows of the position table.
      type_vocab_size: token types; 0 for a model without (DistilBERT).
      first_position: None counts positions from 0; RoBERTa's value, padding index + 1, counts
        from there over the tokens that are not padding.
    """

    vocab_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    first_position: int | None = None

    pre_norm = False

    @nn.compact
    def embed(self, inputs: Any) -> Activations:
        """Embed token indices, [B, S] to [B, S, D]."""
        ids = inputs["input_ids"]
        capacity = self.max_position_embeddings - (self.first_position or 0)
        if ids.shape[-1] > capacity:
            raise ValueError(
                f"{ids.shape[-1]} tokens: this checkpoint has positions for {capacity}; "
                "tokenize with max_length at most that"
            )
        normal = nn.initializers.normal(0.02)

        def table(name: str, rows: int) -> Any:
            return self.param(name, normal, (rows, self.hidden_size)).astype(self.dtype)

        if self.first_position is None:
            position = jnp.broadcast_to(jnp.arange(ids.shape[-1])[None], ids.shape)
        else:  # padding sits at first_position − 1, which is also its word index
            real = (ids != self.first_position - 1).astype(jnp.int32)
            position = jnp.cumsum(real, axis=-1) * real + self.first_position - 1
        tokens = table("word_embedding", self.vocab_size)[ids]
        tokens += table("position_embedding", self.max_position_embeddings)[position]
        if self.type_vocab_size:
            types = inputs.get("token_type_ids", jnp.zeros_like(ids))
            tokens += table("type_embedding", self.type_vocab_size)[types]
        tokens = LayerNorm(self.layer_norm_eps, name="embedding_norm")(tokens)
        mask = inputs.get("attention_mask")
        return Activations(tokens, jnp.ones(ids.shape, bool) if mask is None else mask > 0)
