"""Small backbones of both kinds, with adapters on every layer and no weight that is zero."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.models import Backbone, Bert, LoraConfig, ViT

LORA = LoraConfig(rank=2, alpha=6.0)


class Case(NamedTuple):
    model: Backbone  # with adapters on all that can carry one
    inputs: Any
    params: Any
    adapters: Any

    @property
    def variables(self):
        return {"params": self.params, "lora": self.adapters}


def draw_like(shapes, seed=0):
    """Weights without a zero: nothing hides behind a fresh B or a fresh bias."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def make_case(kind: str, pooling: str = "pooler") -> Case:
    rng = np.random.default_rng(1)
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "pooling": pooling,
    }
    if kind == "vit":
        model: Backbone = ViT(patch_size=2, **sizes)
        inputs: Any = jnp.asarray(rng.normal(size=(3, 4, 6, 2)), jnp.float32)
    else:
        first = 2 if kind == "roberta" else None
        model = Bert(vocab_size=20, max_position_embeddings=12, first_position=first, **sizes)
        mask = np.arange(7) < np.array([7, 4, 1])[:, None]
        ids = np.where(mask, rng.integers(2, 20, mask.shape), 1)  # padding is word 1
        inputs = {
            "input_ids": jnp.asarray(ids, jnp.int32),
            "attention_mask": jnp.asarray(mask, jnp.int32),
            "token_type_ids": jnp.asarray(rng.integers(0, 2, mask.shape), jnp.int32),
        }
    lora = LoraConfig(LORA.rank, LORA.alpha, model.lora_targets())
    model = model.with_adapters(lora)
    variables = draw_like(jax.eval_shape(model.init, jax.random.key(0), inputs))
    return Case(model, inputs, variables["params"], variables["lora"])


@pytest.fixture
def case_of():
    """`case_of(kind, pooling)`, kind "vit", "bert" or "roberta"."""
    return make_case


@pytest.fixture(params=["vit", "bert"])
def case(request):
    return make_case(request.param)


@pytest.fixture
def random_like():
    """`random_like(shapes, seed)`: arrays of those shapes, none of them zero."""
    return draw_like
