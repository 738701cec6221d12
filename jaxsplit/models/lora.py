"""Low-rank adapters: their configuration, the dense layer that carries one, merging, counts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsplit.models.blocks import STACK, Row, by_block, stack_blocks
from jaxsplit.models.dense import Layer, joined, merged_product, read_weight, separate_product

#: Every layer that may carry an adapter.
TARGETS = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out", "pooler")


@dataclass(frozen=True)
class LoraConfig:
    r"""Which layers get an adapter $\Delta W = \frac{\alpha}{r} B A$ and how large.

    Rank, scale and initialisation are ours where FedFT's text lost its numbers.
    """

    rank: int = 4  # r
    alpha: float = 8.0  # α, dimensionless scale
    targets: tuple[str, ...] = ("query", "key", "value", "pooler")  # out of TARGETS
    init_std: float = 0.02  # A ~ N(0, init_std²); B starts at zero, so ΔW does too
    dropout: float = 0.0  # share of the adapters' inputs set to zero in training
    per_device: bool = False  # adapters differ between the devices of a batch

    def __post_init__(self) -> None:
        """Reject what no adapter can be."""
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: an adapter has rank 1 or more")
        if not self.targets or not set(self.targets) <= set(TARGETS):
            raise ValueError(f"targets={self.targets!r}: choose some of {', '.join(TARGETS)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: choose a share from 0 to below 1")

    @property
    def scale(self) -> float:
        """Scale s = α/r."""
        return self.alpha / self.rank


class LoraDense(nn.Module):
    r"""A dense layer with a frozen weight and, if it is a target, a low-rank adapter.

    $y = x W^\top + b + \frac{\alpha}{r} (x A^\top) B^\top$ (Hu et al. 2021; FedFT §II-A), with
    W [D_out, D_in] in the collection `params` and A [r, D_in], B [D_out, r] in the collection
    `lora`: the layout of PyTorch and PEFT.

    Attributes:
      features: D_out.
      lora: the adapters' configuration; None for a model without adapters.
      use_bias: whether there is a b.
      dtype: of the computation; weights keep their own.

    The module's name decides whether it is a target.
    """

    features: int
    lora: LoraConfig | None = None
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def weights(self, width: int) -> Layer:
        """The layer's weights for inputs of `width`, in the computation's dtype."""
        normal = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        weight = frozen_or_param(self, "weight", normal, (self.features, width))
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = read_weight(frozen_or_param(self, "bias", zeros, (self.features,)), self.dtype)
        layer = Layer(weight, bias)
        if self.lora is not None and self.name in self.lora.targets:
            lora = self.lora

            def init_a() -> jax.Array:
                normal_a = nn.initializers.normal(lora.init_std)
                return normal_a(self.make_rng("params"), (lora.rank, width), jnp.float32)

            a = self.variable("lora", "a", init_a)
            b = self.variable("lora", "b", jnp.zeros, (self.features, lora.rank), jnp.float32)
            layer = layer._replace(a=a.value.astype(self.dtype), b=b.value.astype(self.dtype))
        return layer

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer to the last axis of `x`, shape [..., D_in]."""
        return apply_dense(x, self)


def frozen_or_param(
    module: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...]
) -> jax.Array | Row:
    """A weight of a module: a float32 array, or a `Row` where blocks are scanned.

    Flax would compare the shape of a `Row` with that of what `init` makes.
    """
    if module.has_variable("params", name):
        return cast(jax.Array | Row, module.get_variable("params", name))
    return module.param(name, init, shape, jnp.float32)


def apply_dense(x: jax.Array, *layers: LoraDense) -> jax.Array:
    """Apply layers that read the same input, in one product with their frozen weights.

    Args:
      x: [..., D_in].
      layers: modules of one parent, with equal `lora`, `use_bias` and `dtype`.

    Returns:
      Their outputs side by side, [..., ΣD_out].
    """
    lora, dtype = layers[0].lora, layers[0].dtype
    x = x.astype(dtype)
    weights = [layer.weights(x.shape[-1]) for layer in layers]
    scale = lora.scale if lora else 1.0
    dropout = lora.dropout if lora and layers[0].has_rng("dropout") else 0.0
    exact = jnp.dtype(dtype).itemsize >= 4  # else a small ΔW would vanish in W + ΔW
    adapted = any(layer.a is not None for layer in weights)
    if adapted and exact and not dropout and not (lora and lora.per_device):
        y = merged_product(x, weights, scale)
    else:
        inputs = [_dropout(x, dropout, layer) for layer in layers]
        y = separate_product(x, inputs, weights, scale)
    biases = [layer.bias for layer in weights if layer.bias is not None]
    if not biases:
        return y
    return y + joined(biases).reshape((1,) * (y.ndim - 1) + (-1,))


def _dropout(x: jax.Array, rate: float, layer: LoraDense) -> jax.Array:
    """Inverted dropout with the layer's own draw."""
    if not rate or layer.lora is None or layer.name not in layer.lora.targets:
        return x
    kept = jax.random.bernoulli(layer.make_rng("dropout"), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def merge(params: Any, adapters: Any, lora: LoraConfig) -> Any:
    r"""Weights with the adapters in them, $W + \frac{\alpha}{r} B A$.

    Args:
      params: a model's `params` collection.
      adapters: its `lora` collection.
      lora: the adapters' configuration.

    Returns:
      Weights for the same model without adapters; layers without adapter are shared.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"query": {"weight": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}
      >>> adapters = {"query": {"a": jnp.ones((1, 2)), "b": jnp.ones((2, 1))}}
      >>> merge(params, adapters, LoraConfig(rank=1, alpha=3.0))["query"]["weight"].tolist()
      [[3.0, 3.0], [3.0, 3.0]]
    """
    return _shifted(params, _like(params, adapters), lora.scale)


def unmerge(params: Any, adapters: Any, lora: LoraConfig) -> Any:
    r"""Take adapters out of merged weights, $W - \frac{\alpha}{r} B A$; undoes `merge`.

    Args:
      params: merged weights.
      adapters: the `lora` collection that was merged.
      lora: the adapters' configuration.

    Returns:
      The weights as before `merge`, to rounding.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"query": {"weight": jnp.full((2, 2), 3.0)}}
      >>> adapters = {"query": {"a": jnp.ones((1, 2)), "b": jnp.ones((2, 1))}}
      >>> unmerge(params, adapters, LoraConfig(rank=1, alpha=3.0))["query"]["weight"].tolist()
      [[0.0, 0.0], [0.0, 0.0]]
    """
    return _shifted(params, _like(params, adapters), -lora.scale)


def _like(params: Any, adapters: Any) -> Any:
    """The adapters by block, or stacked, as the weights are."""
    return stack_blocks(adapters) if STACK in params else by_block(adapters)


def _shifted(params: Any, adapters: Any, scale: float) -> Any:
    if set(adapters) == {"a", "b"}:
        shift = scale * (adapters["b"].astype(jnp.float32) @ adapters["a"].astype(jnp.float32))
        weight = params["weight"]
        return {**params, "weight": (weight.astype(jnp.float32) + shift).astype(weight.dtype)}
    return {
        name: _shifted(part, adapters[name], scale) if name in adapters else part
        for name, part in params.items()
    }


def count(tree: Any) -> int:
    """Number of elements of a pytree of arrays, or of their shapes.

    Args:
      tree: for example the `lora` collection, for the number of trainable adapter elements.

    Returns:
      The number.

    Example:
      >>> import jax.numpy as jnp
      >>> count({"a": jnp.ones((4, 384)), "b": jnp.ones((384, 4))})
      3072
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def adapter_count(params: Any, lora: LoraConfig) -> int:
    r"""Trainable elements of the adapters, $\sum r (D_{in} + D_{out})$ over the target layers.

    Args:
      params: a model's `params` collection, or its shapes.
      lora: the adapters' configuration.

    Returns:
      The number, d_A of FedFT's Theorem 1.

    Example:
      >>> import jax.numpy as jnp
      >>> adapter_count({"query": {"weight": jnp.ones((384, 384))}}, LoraConfig(rank=4))
      3072
    """
    total = 0
    for name, part in params.items():
        if name in lora.targets:
            *blocks, out, width = part["weight"].shape
            total += math.prod(blocks) * lora.rank * (out + width)
        elif hasattr(part, "items"):
            total += adapter_count(part, lora)
    return total
