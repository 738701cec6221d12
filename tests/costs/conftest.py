"""The two halves of a small ViT as compiled programs, and its shape."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxsplit.costs import EncoderShape
from jaxsplit.models import Activations, LoraConfig, ViT, split, split_weights

CLASSES = 10


@dataclass(frozen=True, eq=False)
class Halves:
    """A cut model. Programs are compiled for abstract inputs when asked for: nothing runs."""

    shape: EncoderShape
    batch_size: int
    functions: dict[str, tuple[Callable, tuple]]

    @functools.cache  # noqa: B019, a handful for the session
    def program(self, name: str) -> Any:
        """One of device_forward, to activations; device_kept, to activations and all that the
        way back needs; device_step, forward and backward; server_forward, to the loss;
        server_step, loss and gradients.
        """
        function, arguments = self.functions[name]
        return jax.jit(function).lower(*arguments).compile()


@functools.cache
def cut_model(cut, targets, *, layers=3, batch_size=32, width=128, heads=2) -> Halves:
    model = ViT(
        patch_size=2,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        pooling="cls",
        # As the adapters of single devices act: beside the weights.
        lora=LoraConfig(rank=4, targets=targets, per_device=True),
    )
    shape = EncoderShape.vit(
        image_size=16,
        patch_size=2,
        channels=3,
        num_blocks=layers,
        width=width,
        num_heads=heads,
        mlp_width=4 * width,
        num_outputs=CLASSES,
        lora_rank=4,
        lora_targets=targets,
    )
    images = jax.ShapeDtypeStruct((batch_size, 16, 16, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch_size, shape.tokens, width), jnp.float32)
    head = jax.ShapeDtypeStruct((CLASSES, width), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params = split_weights(model, variables["params"], cut)
    adapters = split_weights(model, variables["lora"], cut)
    halves = split(model, cut)

    def device(adapters, params, images):
        return halves.device_forward(params, adapters, images).tokens

    def kept(adapters, params, images):
        return jax.vjp(lambda a: device(a, params, images), adapters)

    def device_step(adapters, params, images, gradient):
        activations, pull = kept(adapters, params, images)
        return activations, pull(gradient)

    def loss(tokens, adapters, params, head):
        features = halves.server_forward(params, adapters, Activations(tokens))
        return jnp.sum(jnp.sin(features @ head.T))

    # Without adapters in front of the cut nobody asks for the gradient of the activations.
    wanted = (0, 1, 3) if cut else (1, 3)
    on_device = (adapters.device, params.device, images)
    on_server = (tokens, adapters.server, params.server, head)
    return Halves(
        shape,
        batch_size,
        {
            "device_forward": (device, on_device),
            "device_kept": (kept, on_device),
            "device_step": (device_step, (*on_device, tokens)),
            "server_forward": (loss, on_server),
            "server_step": (jax.value_and_grad(loss, argnums=wanted), on_server),
        },
    )


def in_a_row(apply, frozen, trained, tokens, start, stop):
    """`scan_blocks` without the loop, whose body the compiler would count once."""
    for i in range(start, stop):
        index = jnp.int32(i)
        own = jax.tree.map(lambda leaf: leaf[0], trained.copied(i, i + 1))
        tokens = apply(frozen.rows(index), own, tokens, index)
    return tokens


@pytest.fixture
def halves_of(monkeypatch):
    """`halves_of(cut, targets)`: the two halves of a small model, its blocks in a row."""
    monkeypatch.setattr("jaxsplit.models.base.scan_blocks", in_a_row)
    return cut_model
