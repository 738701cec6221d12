"""Strict arithmetic for every test, and the small world that learning tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.data import Partition
from jaxsplit.federated import LearningParams, Scheme, World, fedft
from jaxsplit.models import LoraConfig, ViT, stack_blocks

pytest_plugins = ("compile_report", "margin_report", "workers")

os.environ["JAXSPLIT_COMPILE_CACHE"] = "off"  # here and in the processes that tests start
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

_MANY_MAPPINGS = 25_000  # of the 65,530 that Linux gives a process by default
_MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _few_compiled_programs() -> Iterator[None]:
    """Drop compiled programs in time: each has memory mappings, and XLA dies without any left."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()


NUM_DEVICES = 6
NUM_CLASSES = 3


@pytest.fixture
def model() -> ViT:
    return ViT(
        patch_size=2,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )


@pytest.fixture
def scheme(model: ViT) -> Scheme:
    lora = LoraConfig(rank=2, alpha=4.0, init_std=0.3)
    return fedft(model, NUM_CLASSES, lora=lora, batch_size=4, devices_per_step=4)


@pytest.fixture
def learning_params() -> LearningParams:
    return LearningParams(jnp.float32(0.2), jnp.float32(0.1))


@pytest.fixture
def world(model: ViT) -> World:
    """Random images on six devices of unequal size."""
    rng = np.random.default_rng(0)
    sizes = np.array([3, 5, 7, 4, 6, 8], np.int32)  # the first holds less than a batch
    offsets = np.cumsum(sizes) - sizes
    indices = np.minimum(offsets[:, None] + np.arange(8), sizes.sum() - 1).astype(np.int32)
    partition = Partition(indices, sizes)
    images = jnp.asarray(rng.normal(size=(sizes.sum(), 4, 4, 1)), jnp.float32)
    return World(
        backbone=stack_blocks(model.init(jax.random.key(7), images[:1])["params"]),
        inputs=images,
        labels=jnp.asarray(rng.integers(0, NUM_CLASSES, len(images)), jnp.int32),
        indices=jnp.asarray(partition.indices),
        sizes=jnp.asarray(partition.sizes),
        test_inputs=images[:10],
        test_labels=jnp.asarray(rng.integers(0, NUM_CLASSES, 10), jnp.int32),
    )
