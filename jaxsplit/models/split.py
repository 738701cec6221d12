"""Cutting a backbone into a device half and a server half."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax

from jaxsplit.models.vit import ViT


class SplitModel(NamedTuple):
    """The two halves of a backbone, as pure functions for one device's mini-batch.

    Attributes:
      device_forward: `(params, adapters, inputs [B, ...]) -> tokens [B, S, D]`.
      server_forward: `(params, adapters, tokens [B, S, D]) -> features [B, D]`.
    """

    device_forward: Callable[[Any, Any, jax.Array], jax.Array]
    server_forward: Callable[[Any, Any, jax.Array], jax.Array]


class Halves(NamedTuple):
    """A pytree of weights, divided at the cut. Both are views: nothing is copied."""

    device: Any
    server: Any


def _check_cut(model: ViT, cut: int) -> None:
    if not 0 <= cut <= model.num_hidden_layers:
        raise ValueError(
            f"cut={cut} is outside the model: choose 0 (after the embedding) "
            f"to {model.num_hidden_layers} (after the last block)"
        )


def split(model: ViT, cut: int) -> SplitModel:
    """Cut a backbone after block `cut`.

    The device runs the embedding and blocks 1…cut, the server the other blocks and the pooler.
    `cut=0` is FedFT's split: embedding | encoder | head.

    Args:
      model: a backbone with `embed`, `encode` and `pool`.
      cut: l, 0…L.

    Returns:
      The two halves as functions of their own weights (see `split_weights`).

    Raises:
      ValueError: `cut` outside 0…L.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = ViT(2, 8, 2, 2, 16)
      >>> images = jnp.ones((3, 4, 4, 1))
      >>> params = model.init(jax.random.key(0), images)["params"]
      >>> device, server = split_weights(model, params, cut=1)
      >>> halves = split(model, cut=1)
      >>> tokens = halves.device_forward(device, {}, images)
      >>> halves.server_forward(server, {}, tokens).shape
      (3, 8)
    """
    _check_cut(model, cut)

    def device_half(module: ViT, inputs: jax.Array) -> jax.Array:
        return module.encode(module.embed(inputs), 0, cut)

    def server_half(module: ViT, tokens: jax.Array) -> jax.Array:
        return module.pool(module.encode(tokens, cut))

    def forward(half: Callable) -> Callable[[Any, Any, jax.Array], jax.Array]:
        def apply(params: Any, adapters: Any, x: jax.Array) -> jax.Array:
            variables = {"params": params, "lora": adapters}
            return cast(jax.Array, model.apply(variables, x, method=half))

        return apply

    return SplitModel(forward(device_half), forward(server_half))


def split_weights(model: ViT, weights: Any, cut: int) -> Halves:
    """Divide frozen weights or adapters at the cut.

    Args:
      model: the backbone.
      weights: its `params` or `lora` collection, a dictionary with one entry per part.
      cut: l, 0…L.

    Returns:
      `Halves(device, server)`, dictionaries that share the arrays of `weights`.

    Raises:
      ValueError: `cut` outside 0…L.
    """
    _check_cut(model, cut)
    on_server = {f"blocks_{i}" for i in range(cut, model.num_hidden_layers)} | {"norm", "pooler"}
    return Halves(
        device={name: part for name, part in weights.items() if name not in on_server},
        server={name: part for name, part in weights.items() if name in on_server},
    )
