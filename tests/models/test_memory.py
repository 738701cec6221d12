"""The frozen backbone is held once, however many devices train against it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxsplit.models import Bert, LoraConfig, count

TOKENS = 4
BACKBONE = Bert(
    vocab_size=64,
    hidden_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=8,
)


class Memory(NamedTuple):
    """Bytes of a compiled gradient."""

    arguments: int
    total: int  # arguments and temporaries
    backbone: int  # the frozen weights, once
    adapters: int  # those of one device


def bytes_of(num_devices, batch, per_device):
    """Memory of a LoRA gradient over devices, with adapters on every layer."""
    lora = LoraConfig(targets=BACKBONE.lora_targets(), per_device=per_device)
    model = BACKBONE.with_adapters(lora)
    ids = jax.ShapeDtypeStruct((num_devices, batch, TOKENS), jnp.int32)
    one = {"input_ids": jax.ShapeDtypeStruct((batch, TOKENS), jnp.int32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), one)
    params, adapters = shapes["params"], shapes["lora"]
    if per_device:
        adapters = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_devices, *leaf.shape), leaf.dtype), adapters
        )

    def loss(adapters, params, ids):
        variables = {"params": params, "lora": adapters}
        return jnp.sum(jnp.sin(model.apply(variables, {"input_ids": ids})))

    axes = (0 if per_device else None, None, 0)

    def gradient(adapters, params, ids):
        if per_device:
            return jax.vmap(jax.grad(loss), in_axes=axes)(adapters, params, ids)
        return jax.grad(lambda a: jnp.sum(jax.vmap(loss, in_axes=axes)(a, params, ids)))(adapters)

    memory = jax.jit(gradient).lower(adapters, params, ids).compile().memory_analysis()
    return Memory(
        arguments=memory.argument_size_in_bytes,
        total=memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        backbone=4 * count(params),
        adapters=4 * count(shapes["lora"]),
    )


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("per_device", "copies"),
    [(False, 2), (True, 1)],  # shared adapters make W + ΔW, once for all devices
    ids=["shared", "own"],
)
def test_backbone_is_held_once_for_all_devices(per_device, copies):
    """Eight devices with one sequence each need what two with four need, and their adapters."""
    few, many = bytes_of(2, 4, per_device), bytes_of(8, 1, per_device)
    own_adapters = 6 * many.adapters if per_device else 0
    assert many.arguments - few.arguments < own_adapters + 1024
    assert many.total - few.total < own_adapters + 0.1 * many.backbone
    for num_devices, memory in ((2, few), (8, many)):
        # Query, key and value of a block have their B of all devices side by side, [3 D, 3 r].
        factors = 4 * num_devices * 3 * BACKBONE.hidden_size * 3 * LoraConfig().rank
        assert memory.total < (copies + 0.5) * memory.backbone + per_device * factors
