"""The contract of a backbone: three stages that a split run calls where they belong."""

from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from jax.typing import DTypeLike

from jaxsplit.models.blocks import STACK, Stack, num_stacked, scan_blocks, stack_blocks
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
        self.blocks = [self._block() for _ in range(self.num_hidden_layers)]
        if self.pre_norm:
            self.norm = LayerNorm(self.layer_norm_eps)
        if self.pooling == "pooler":
            self.pooler = LoraDense(self.hidden_size, self.lora, dtype=self.dtype)

    def _block(self, **where: Any) -> Block:
        return Block(
            self.num_attention_heads,
            self.intermediate_size,
            self.pre_norm,
            self.hidden_act,
            self.layer_norm_eps,
            self.qkv_bias,
            self.lora,
            self.dtype,
            self.fused_attention,
            **where,
        )

    def embed(self, inputs: Any) -> Activations:
        """Embed a mini-batch of inputs."""
        raise NotImplementedError

    def encode(
        self, activations: Activations, start: int = 0, stop: int | None = None
    ) -> Activations:
        """Run blocks `start` to `stop` (exclusive; None for all)."""
        stop = self.num_hidden_layers if stop is None else stop
        return self._encode(activations, start, stop, first_only=False)

    def _encode(
        self, activations: Activations, start: int, stop: int, *, first_only: bool
    ) -> Activations:
        """Run blocks `start` to `stop`, the backbone's last one perhaps for the first token alone.

        All blocks but that one are one compiled body.
        """
        tokens, mask = activations
        last = self.num_hidden_layers - 1
        apart = int(first_only and start <= last < stop)
        if self.is_initializing():  # each block makes its weights, under its own name
            for i, of_index in enumerate(self.blocks[start:stop], start):
                tokens = of_index(tokens, mask, bool(apart) and i == last)
            return Activations(tokens, mask)
        block = self._block(parent=None)
        key = self.make_rng("dropout") if self.has_rng("dropout") else None

        def apply(
            frozen: Any, trained: Any, tokens: jax.Array, index: jax.Array, *, first_only: bool
        ) -> jax.Array:
            weights = {"params": frozen, "lora": trained} if self.lora else {"params": trained}
            rngs = None if key is None else {"dropout": jax.random.fold_in(key, index)}
            return cast(jax.Array, block.apply(weights, tokens, mask, first_only, rngs=rngs))

        weights = unfreeze(cast(dict[str, Any], self.variables))
        stacks = [self._stack(weights.get(name, {}), start) for name in ("params", "lora")]
        if self.lora is None:  # then its weights are what may be trained
            stacks.reverse()
        frozen, trained = stacks
        whole, narrow = (partial(apply, first_only=value) for value in (False, True))
        if self.remat:
            whole, narrow = (cast(Any, jax.checkpoint(run)) for run in (whole, narrow))
        tokens = scan_blocks(whole, frozen, trained, tokens, start, stop - apart)
        if apart:
            index = jnp.int32(last)
            of_last = jax.tree.map(lambda leaf: leaf[0], trained.copied(last, last + 1))
            tokens = narrow(frozen.rows(index), of_last, tokens, index)
        return Activations(tokens, mask)

    def _stack(self, weights: Any, start: int) -> Stack:
        """The blocks of a collection, of the whole backbone or of the half from `start` on."""
        stacked = stack_blocks(weights)
        is_whole = start + num_stacked(stacked) > self.num_hidden_layers
        return Stack(stacked.get(STACK, {}), 0 if is_whole else start)

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
        first_only = self.pooling != "mean"
        stop = self.num_hidden_layers
        return self.pool(self._encode(activations, start, stop, first_only=first_only))

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
