"""What a scheduled device exchanges with the server, and what both compute."""

import functools
from typing import Any, NamedTuple, cast

import jax

from jaxsplit.costs import EncoderShape, Payload, Pooling, bits_of, model_flops, split_flops
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import World
from jaxsplit.federated.upload import Change, row_length, uploaded
from jaxsplit.models import ViT, split_weights, stack_blocks


class Work(NamedTuple):
    """What a device's local step costs to compute, and what must be there before round 0."""

    device_forward_flop: Any
    device_backward_flop: Any
    server_flop: Any
    backbone_bits: Any  # frozen weights of the device's half, sent once


class _Shapes(NamedTuple):
    """Shapes of a mini-batch on its way."""

    inputs: Any
    trained: Any  # adapters, or all weights
    head: Any
    sent: Any  # activations at the cut
    features: Any


def payload(scheme: Scheme, world: World) -> Payload:
    """Bits that one scheduled device exchanges in a round, from the real shapes and dtypes.

    Once per local step: activations go up, with their padding mask where they have one; their
    gradient comes down where the device trains anything; features come down to a head on the
    device and their gradient goes up. Once per round: what the device trains together with
    others, its adapters and a shared head, comes down, and its change, or its gradient, goes up.
    Labels are not counted. What a codec compresses, of activations or uploads, is not counted
    either: the round counts it.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      The payload of one device and round.
    """
    shapes = _shapes(scheme, world)
    in_common = uploaded(Change(shapes.trained, shapes.head), scheme)
    weight_bits = bits_of(in_common)
    upload_bits = weight_bits if scheme.upload_codec is None else 0
    if scheme.cut is None:
        return Payload(weight_bits=weight_bits, upload_bits=upload_bits)
    coded = bits_of(shapes.sent.tokens) if scheme.codec is None else 0
    features = bits_of(shapes.features) if scheme.head_side == "device" else 0
    return Payload(
        activation_bits=scheme.local_steps * (coded + bits_of(shapes.sent.mask)),
        gradient_bits=scheme.local_steps * coded if in_common.adapters else 0,
        feature_bits=scheme.local_steps * features,
        weight_bits=weight_bits,
        upload_bits=upload_bits,
    )


def upload_length(scheme: Scheme, world: World) -> int:
    """Values that a device uploads once per round, one row for an upload codec.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      P.
    """
    shapes = _shapes(scheme, world)
    return row_length(Change(shapes.trained, shapes.head), scheme)


def work(scheme: Scheme, world: World) -> Work:
    """What one local step of one device costs to compute (`jaxsplit.costs`, exact counts).

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      FLOP of a mini-batch on both sides.
    """
    shape, batch = encoder_shape(scheme, world), scheme.batch_size
    if scheme.cut is None:
        flop = model_flops(shape, batch, train_weights=scheme.trains_all_weights)
        frozen = 0 if scheme.trains_all_weights else bits_of(world.backbone)
        return Work(float(flop.forward), float(flop.backward), 0.0, frozen)
    split = split_flops(shape, scheme.cut, batch)
    frozen = bits_of(jax.eval_shape(TrainedHalves(scheme, None).divide, world.backbone).device)
    return Work(
        float(split.device_forward), float(split.device_backward), float(split.server), frozen
    )


def encoder_shape(scheme: Scheme, world: World) -> EncoderShape:
    """The sizes of a scheme's model for the cost models.

    Args:
      scheme: the choices.
      world: backbone and data (shapes suffice).

    Returns:
      The shape; its adapters are those of the scheme.
    """
    model, shapes = scheme.model, _shapes(scheme, world)
    divide = functools.partial(split_weights, model, cut=0)
    of_embedding = jax.eval_shape(divide, world.backbone).device
    patch = of_embedding["patch_embedding"]["weight"].shape[-1] if isinstance(model, ViT) else 0
    outputs = jax.eval_shape(scheme.head.apply, shapes.head, shapes.features)
    return EncoderShape(
        num_blocks=model.num_hidden_layers,
        width=model.hidden_size,
        tokens=shapes.sent.tokens.shape[1],
        num_heads=model.num_attention_heads,
        mlp_width=model.intermediate_size,
        num_outputs=outputs.shape[-1],
        embedding_parameters=sum(leaf.size for leaf in jax.tree.leaves(of_embedding)),
        patch_values=patch,
        lora_rank=model.lora.rank if model.lora else 1,
        lora_targets=model.lora.targets if model.lora else (),
        pooling=cast(Pooling, model.pooling),
        final_norm=model.pre_norm,
        bytes_per_value=shapes.sent.tokens.dtype.itemsize,
    )


def _shapes(scheme: Scheme, world: World) -> _Shapes:
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((scheme.batch_size, *leaf.shape[1:]), leaf.dtype),
        world.inputs,
    )
    if scheme.transform is not None:
        inputs = jax.eval_shape(scheme.transform, inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    trained = world.backbone
    if not scheme.trains_all_weights:
        adapters = jax.eval_shape(scheme.model.init, key, inputs)["lora"]
        trained = jax.eval_shape(stack_blocks, adapters)

    def forward(backbone: Any, trained: Any, inputs: Any) -> tuple[Any, jax.Array]:
        halves = TrainedHalves(scheme, backbone)
        on_device, on_server = halves.divide(trained)
        sent = halves.embed(on_device, inputs)
        return sent, halves.encode(on_server, sent)

    sent, features = jax.eval_shape(forward, world.backbone, trained, inputs)
    head = jax.eval_shape(scheme.head.init, key, features)
    return _Shapes(inputs, trained, head, sent, features)
