"""The contract of a backbone: three stages that a split run calls where they belong."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsplit.models.lora import LoraConfig, LoraDense
from jaxsplit.models.transformer import Block, LayerNorm

POOLINGS = ("pooler", "cls", "mean")


class Activations(NamedTuple):
    """What crosses the cut on the way up."""

    tokens: jax.Array  # [B, S, D]
    mask: jax.Array | None = None  # [B, S] bool, False for padding; None where all tokens count


class Backbone(nn.Module, kw_only=True):
    """A transformer encoder: `embed` → `encode` (any range of blocks) → `pool`.

    A member defines `embed` and its defaults; names of fields follow the configurations of
    transformers. The frozen weights are in the collection `params`, the adapters in `lora`; the
    frozen weights are the same with and without adapters.

    Attributes:
      hidden_size: D, width of a token.
      num_hidden_layers: L, blocks.
      num_attention_heads: heads per block.
      intermediate_size: hidden width of a block's perceptron.
      hidden_act: its activation.
      layer_norm_eps: of all normalisations.
      pooling: what `pool` returns: "pooler", tanh of a dense layer on the first token; "cls", the
        first token; "mean", the mean over the tokens that count.
      lora: adapters; None for the bare backbone.
      dtype: of the computation, apart from the weights' own.
      remat: recompute each block on the way back instead of keeping its activations.
      fused_attention: cuDNN's fused kernel, for NVIDIA GPUs and 16-bit `dtype`.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    pooling: str = "pooler"
    lora: LoraConfig | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    fused_attention: bool = False

    pre_norm = True

    def setup(self) -> None:
        """Name the parts; `split` relies on these names."""
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r}: choose one of {', '.join(POOLINGS)}")
        if self.fused_attention and jnp.dtype(self.dtype).itemsize != 2:
            raise ValueError(
                f"fused_attention=True with dtype={jnp.dtype(self.dtype).name}: the kernel takes "
                "bfloat16 or float16"
            )
        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        self.blocks = [
            block(
                self.num_attention_heads,
                self.intermediate_size,
                self.pre_norm,
                self.hidden_act,
                self.layer_norm_eps,
                self.qkv_bias,
                self.lora,
                self.dtype,
                self.fused_attention,
            )
            for _ in range(self.num_hidden_layers)
        ]
        if self.pre_norm:
            self.norm = LayerNorm(self.layer_norm_eps)
        if self.pooling == "pooler":
            self.pooler = LoraDense(self.hidden_size, self.lora, dtype=self.dtype)

    def embed(self, inputs: Any) -> Activations:
        """Embed a mini-batch of inputs."""
        raise NotImplementedError

    def encode(
        self, activations: Activations, start: int = 0, stop: int | None = None
    ) -> Activations:
        """Run blocks `start` to `stop` (exclusive; None for all)."""
        tokens, mask = activations
        for block in self.blocks[start:stop]:
            tokens = block(tokens, mask, False)
        return Activations(tokens, mask)

    def pool(self, activations: Activations) -> jax.Array:
        """Reduce tokens to features [B, D], float32."""
        tokens, mask = activations
        if self.pooling != "mean":
            tokens = tokens[:, :1]
        if self.pre_norm:
            tokens = self.norm(tokens)
        tokens = tokens.astype(jnp.float32)
        if self.pooling == "pooler":
            return jnp.tanh(self.pooler(tokens[:, 0]).astype(jnp.float32))
        if self.pooling == "cls" or mask is None:
            return jnp.mean(tokens, axis=1)
        weight = mask[:, :, None].astype(jnp.float32)
        return jnp.sum(tokens * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)

    def features(self, activations: Activations, start: int = 0) -> jax.Array:
        """Run the blocks from `start` on and pool; the last one only for the token that is read."""
        last = self.num_hidden_layers - 1
        if self.pooling == "mean" or start > last:
            return self.pool(self.encode(activations, start))
        tokens, mask = self.encode(activations, start, last)
        return self.pool(Activations(self.blocks[last](tokens, mask, True)))

    def __call__(self, inputs: Any) -> jax.Array:
        """Features [B, D] of a mini-batch."""
        return self.features(self.embed(inputs))

    def init_adapters(self, seed: int, inputs: Any) -> Any:
        """Fresh adapters, the `lora` collection, for inputs like a sample mini-batch."""
        return self.init(jax.random.key(seed), inputs)["lora"]

    def lora_targets(self) -> tuple[str, ...]:
        """The layers of this backbone that may carry an adapter."""
        layers = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")
        return (*layers, "pooler") if self.pooling == "pooler" else layers

    def default_targets(self) -> tuple[str, ...]:
        """Query, key, value and, if there is one, the pooler (FedFT §V-A)."""
        return tuple(name for name in LoraConfig().targets if name in self.lora_targets())

    def with_adapters(self, lora: LoraConfig | None = None) -> "Backbone":
        """The same backbone with adapters.

        Args:
          lora: their configuration; by default rank 4 on `default_targets`.

        Returns:
          A backbone with the same frozen weights.

        Raises:
          ValueError: a target that this backbone has not.
        """
        lora = lora or LoraConfig(targets=self.default_targets())
        if missing := [target for target in lora.targets if target not in self.lora_targets()]:
            raise ValueError(
                f"targets={lora.targets!r}: a backbone with pooling={self.pooling!r} has no "
                f"{missing[0]}; choose some of {', '.join(self.lora_targets())}"
            )
        return self.clone(lora=lora)
