"""Cutting a backbone into a device half and a server half."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsplit.models.base import Activations, Backbone
from jaxsplit.models.blocks import STACK


class SplitModel(NamedTuple):
    """The two halves of a backbone, as pure functions for one device's mini-batch.

    Both take a key last, which draws the adapters' dropout; None leaves dropout out.

    Attributes:
      device_forward: `(params, adapters, inputs, key=None) -> Activations`.
      server_forward: `(params, adapters, activations, key=None) -> features [B, D]`.
    """

    device_forward: Callable[..., Activations]
    server_forward: Callable[..., jax.Array]


class Halves(NamedTuple):
    """A pytree of weights, divided at the cut."""

    device: Any
    server: Any


def _check_cut(model: Backbone, cut: int) -> None:
    if not 0 <= cut <= model.num_hidden_layers:
        raise ValueError(
            f"cut={cut} is outside the model: choose 0 (after the embedding) "
            f"to {model.num_hidden_layers} (after the last block)"
        )


def split(model: Backbone, cut: int) -> SplitModel:
    """Cut a backbone after block `cut`.

    The device runs the embedding and blocks 1…cut, the server the other blocks and the pooler.
    `cut=0` is FedFT's split: embedding | encoder | head.

    Args:
      model: a backbone with `embed`, `encode` and `pool`.
      cut: l, 0…L.

    Returns:
      The two halves as functions of their own weights (see `split_weights`). Frozen weights may be
      those of the whole backbone, too: each half reads its own.

    Raises:
      ValueError: `cut` outside 0…L.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
      ...             intermediate_size=16)
      >>> images = jnp.ones((3, 4, 4, 1))
      >>> params = model.init(jax.random.key(0), images)["params"]
      >>> device, server = split_weights(model, params, cut=1)
      >>> halves = split(model, cut=1)
      >>> activations = halves.device_forward(device, {}, images)
      >>> halves.server_forward(server, {}, activations).shape
      (3, 8)
    """
    _check_cut(model, cut)

    def device_half(module: Backbone, inputs: Any) -> Activations:
        return module.encode(module.embed(inputs), 0, cut)

    def server_half(module: Backbone, activations: Activations) -> jax.Array:
        return module.features(activations, cut)

    def forward(half: Callable) -> Callable[..., Any]:
        def apply(params: Any, adapters: Any, x: Any, key: jax.Array | None = None) -> Any:
            variables = {"params": params, "lora": adapters}
            rngs = None if key is None else {"dropout": key}
            return model.apply(variables, x, method=half, rngs=rngs)

        return apply

    return SplitModel(forward(device_half), forward(server_half))


def split_weights(model: Backbone, weights: Any, cut: int) -> Halves:
    """Divide frozen weights or adapters at the cut; `join_weights` undoes it.

    Args:
      model: the backbone.
      weights: its `params` or `lora` collection, stacked or by block; shapes suffice.
      cut: l, 0…L.

    Returns:
      `Halves(device, server)`, dictionaries that share the arrays of `weights` but for a stack that
      the cut goes through: of that both are slices.

    Raises:
      ValueError: `cut` outside 0…L.
    """
    _check_cut(model, cut)
    blocks = model.num_hidden_layers
    on_server = {f"blocks_{i}" for i in range(cut, blocks)} | {"norm", "pooler"}
    device = {name: part for name, part in weights.items() if name not in on_server}
    server = {name: part for name, part in weights.items() if name in on_server}
    if (stack := device.pop(STACK, None)) is not None:
        for half, rows in ((device, slice(cut)), (server, slice(cut, None))):
            if range(blocks)[rows]:
                half[STACK] = _rows(stack, rows)
    return Halves(device, server)


def _rows(stack: Any, rows: slice) -> Any:
    """Some blocks of a stack, of arrays or of shapes."""

    def of_arrays(stack: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[rows], stack)

    is_shape = isinstance(jax.tree.leaves(stack)[0], jax.ShapeDtypeStruct)
    return jax.eval_shape(of_arrays, stack) if is_shape else of_arrays(stack)


def join_weights(halves: Halves) -> Any:
    """Put the halves of a collection together again.

    Args:
      halves: from `split_weights`, or of the same form.

    Returns:
      The collection.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=8, num_hidden_layers=4, num_attention_heads=2,
      ...             intermediate_size=16)
      >>> halves = split_weights(model, {"blocks": {"a": jnp.arange(4)}}, cut=1)
      >>> halves.device["blocks"]["a"].tolist(), halves.server["blocks"]["a"].tolist()
      ([0], [1, 2, 3])
      >>> join_weights(halves)["blocks"]["a"].tolist()
      [0, 1, 2, 3]
    """
    joined = halves.device | halves.server
    if STACK in halves.device and STACK in halves.server:
        stacks = (half[STACK] for half in halves)
        joined[STACK] = jax.tree.map(lambda *rows: jnp.concatenate(rows), *stacks)
    return joined
