"""Sizes by hand, against SFT's Table III and against the models themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.costs import BLOCK_LAYERS, EncoderShape
from jaxsplit.models import Bert, LoraConfig, ViT, count, split_weights

MIB = 2**20
FUSED = ("qkv", "attention_output", "mlp_in", "mlp_out")  # timm's layers


def test_activation_by_hand():
    shape = EncoderShape.vit_base(num_outputs=100)
    assert shape.activation_bits == 197 * 768 * 32  # SPEC 2.6: 4.84 Mbit
    assert round(shape.activation_bits / 1e6, 2) == 4.84


def test_papers_counts():
    """SFT §V-C: 12D² + 18Dr per block, (P²C + N + 3)D with N patches, DK + K."""
    shape = EncoderShape.vit_base(num_outputs=100)
    assert shape.block_adapters == 18 * 768 * 16
    assert shape.block_parameters == 12 * 768**2 + 13 * 768  # biases and norms
    assert shape.embedding_parameters == (16 * 16 * 3 + 196 + 3) * 768
    assert shape.head_parameters == 768 * 100 + 100
    fused = EncoderShape.vit_base(num_outputs=100, lora_targets=FUSED)
    assert fused.block_adapters == 16 * 768 * 16


def test_table_iii():
    """Model, LoRA and input of SFT's Table III, in MiB."""
    shape = EncoderShape.vit_base(num_outputs=200, lora_targets=FUSED)
    assert shape.parameters == 85_952_456
    assert round(shape.parameters * 4 / MIB, 2) == 327.88
    patch_lora, head_lora = 16 * (768 + 768), 16 * (768 + 200)
    with_lora = shape.parameters + shape.adapters + patch_lora + head_lora
    # 337.035: the paper's last digit is cut, not rounded.
    assert np.floor(with_lora * 4 / MIB * 100) / 100 == 337.03
    # The table's five blocks come with the patch embedding, without CLS token and positions.
    patch_embedding = (768 + 1) * 768
    device = 5 * shape.block_parameters + patch_embedding
    assert round(device * 4 / MIB, 2) == 137.44
    assert round(int(shape.device_adapters(5)) * 4 / MIB, 2) == 3.75
    assert round((device + int(shape.device_adapters(5))) * 4 / MIB, 2) == 141.19


@pytest.mark.parametrize("pooling", ["cls", "pooler", "mean"])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_counts_are_those_of_the_vit(pooling, cut):
    model = ViT(
        patch_size=2,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        pooling=pooling,
    )
    model = model.with_adapters(LoraConfig(rank=2, targets=model.lora_targets()))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 6, 6, 3)))
    shape = EncoderShape.vit(
        image_size=6,
        patch_size=2,
        channels=3,
        num_blocks=3,
        width=8,
        num_heads=2,
        mlp_width=24,
        num_outputs=5,
        lora_rank=2,
        lora_targets=model.lora_targets(),
        pooling=pooling,
    )
    assert shape.parameters == count(shapes["params"]) + 9 * 5
    assert shape.adapters == count(shapes["lora"])
    assert shape.device_parameters(cut) == count(split_weights(model, shapes["params"], cut).device)
    assert shape.device_adapters(cut) == count(split_weights(model, shapes["lora"], cut).device)


def test_counts_are_those_of_bert():
    model = Bert(
        vocab_size=20,
        max_position_embeddings=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    ).with_adapters()
    ids = {"input_ids": jnp.ones((1, 7), jnp.int32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)
    shape = EncoderShape(
        num_blocks=2,
        width=8,
        tokens=7,
        num_heads=2,
        mlp_width=16,
        num_outputs=3,
        embedding_parameters=(20 + 12 + 2 + 2) * 8,  # words, positions, types, norm
        lora_rank=4,
        lora_targets=("query", "key", "value", "pooler"),
        pooling="pooler",
        final_norm=False,
    )
    assert shape.parameters == count(shapes["params"]) + 9 * 3
    assert shape.adapters == count(shapes["lora"])


def test_cuts_are_vectorised():
    shape = EncoderShape.vit_base(num_outputs=100)
    cuts = np.arange(13)
    assert shape.device_parameters(cuts).tolist() == [int(shape.device_parameters(k)) for k in cuts]
    assert shape.device_adapters(0) == 0
    assert shape.device_adapters(12) == shape.adapters


def test_distribution():
    shape = EncoderShape.vit_base(num_outputs=100)
    later = shape.distribution_bits(np.arange(13), first_round=False)
    assert later.tolist() == [32 * k * 18 * 768 * 16 for k in range(13)]
    first = shape.distribution_bits(np.arange(13), first_round=True)
    assert (first - later).tolist() == [32 * int(shape.device_parameters(k)) for k in range(13)]


@pytest.mark.parametrize("cut", [-1, 13, 2.5, float("nan"), [3, 13]])
def test_cut_outside_the_model(cut):
    with pytest.raises(ValueError, match=r"cut=.* from 0 .* to 12"):
        EncoderShape.vit_base(num_outputs=100).device_parameters(cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width=0: choose 1 or more"),
        ({"lora_rank": -1}, "lora_rank=-1"),
        ({"embedding_parameters": -5}, "embedding_parameters=-5: choose 0 or more"),
        ({"pooling": "max"}, "pooling='max': choose one of"),
        ({"lora_targets": ("pooler",)}, "lora_targets=.*choose some of"),
        ({"lora_targets": ("qkv", "key")}, "'qkv' or some of its three parts"),
    ],
)
def test_impossible_shapes(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EncoderShape.vit_base(num_outputs=100), **change)


def test_patch_must_divide_the_image():
    sizes = {"num_blocks": 1, "width": 8, "num_heads": 1, "mlp_width": 8, "num_outputs": 2}
    with pytest.raises(ValueError, match="patch_size=5 must divide image_size=32"):
        EncoderShape.vit(image_size=32, patch_size=5, channels=3, **sizes)


def test_layer_widths():
    shape = EncoderShape.vit_base(num_outputs=100)
    assert [shape.layer_widths(name) for name in (*BLOCK_LAYERS, "qkv", "pooler")] == [
        *[(768, 768)] * 4,
        (768, 3072),
        (3072, 768),
        (768, 2304),
        (768, 768),
    ]
