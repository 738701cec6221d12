"""Low-rank adapters: their configuration and the dense layer that carries one."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class LoraConfig:
    r"""Which layers get an adapter $\Delta W = \frac{\alpha}{r} B A$ and how large.

    Rank, scale and initialisation are ours where FedFT's text lost its numbers.
    """

    rank: int = 4  # r
    alpha: float = 8.0  # α, dimensionless scale
    targets: tuple[str, ...] = ("query", "key", "value", "pooler")
    init_std: float = 0.02  # A ~ N(0, init_std²); B starts at zero, so ΔW does too

    def __post_init__(self) -> None:
        """Reject a rank below one."""
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: an adapter has rank 1 or more")


class LoraDense(nn.Module):
    r"""A dense layer with a frozen weight and, if it is a target, a low-rank adapter.

    $y = x W + b + \frac{\alpha}{r} (x A) B$ (Hu et al. 2021; FedFT §II-A), with W in the
    collection `params` and A [D_in, r], B [r, D_out] in the collection `lora`.

    Attributes:
      features: D_out.
      lora: the adapters' configuration; None for a model without adapters.

    The module's name decides whether it is a target.
    """

    features: int
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer to the last axis of `x`, shape [..., D_in]."""
        y = nn.Dense(self.features, name="base")(x)
        if self.lora is None or self.name not in self.lora.targets:
            return y
        lora = self.lora

        def init_a() -> jax.Array:
            normal = nn.initializers.normal(lora.init_std)
            return normal(self.make_rng("params"), (x.shape[-1], lora.rank), x.dtype)

        a = self.variable("lora", "a", init_a)
        b = self.variable("lora", "b", jnp.zeros, (lora.rank, self.features), x.dtype)
        return y + (lora.alpha / lora.rank) * ((x @ a.value) @ b.value)
