"""Rounds on texts, on stored images, with other heads and tasks, dropout and bfloat16."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_round as reference
from tolerances import after_rounds

from jaxsplit.data import Dataset, ImageTransform
from jaxsplit.federated import (
    LearningParams,
    World,
    evaluate,
    federated_round,
    fedft,
    init_learning,
    payload,
)
from jaxsplit.models import Bert, LoraConfig, MlpHead, ViT, stack_blocks

SIZES = np.array([3, 5, 7, 4], np.int32)  # the first device holds less than a batch
NUM_TESTS = 10
BATCH = 4
LENGTH = 6
MASK = np.array([1, 0, 1, 1], bool)
BLOCKS = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
}  # fmt: skip
jitted_round = jax.jit(federated_round, static_argnames="scheme")
jitted_evaluate = jax.jit(evaluate, static_argnames="scheme")


def make_texts(rng, count):
    """Token dictionaries; texts are of different length, padded with word 1."""
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (count, 1))
    return {
        "input_ids": np.where(mask, rng.integers(2, 20, mask.shape), 1).astype(np.int32),
        "attention_mask": mask.astype(np.int32),
        "token_type_ids": rng.integers(0, 2, mask.shape).astype(np.int32),
    }


def make_scheme(kind, **options):
    per_device = options.pop("per_device", False)
    lora = LoraConfig(rank=2, alpha=4.0, init_std=0.3, per_device=per_device)
    if dropout := options.pop("dropout", 0.0):
        lora = dataclasses.replace(lora, dropout=dropout, targets=("query", "pooler"))
    settings = {"lora": lora, "batch_size": BATCH, "devices_per_step": 2} | options
    if kind == "images":
        transform = ImageTransform((0.4,), (0.3,), image_size=4, crop_padding=1, flip=True)
        return fedft(ViT(patch_size=2, **BLOCKS), 3, transform=transform, **settings)
    bert = {"vocab_size": 20, "max_position_embeddings": LENGTH + 2} | BLOCKS
    if kind == "regression":
        lora = dataclasses.replace(lora, targets=("query", "mlp_out"))
        settings["lora"] = lora
        return fedft(Bert(pooling="mean", **bert), 1, task="regression", **settings)
    if kind == "mlp head":
        model = Bert(first_position=2, pooling="cls", **bert)
        settings["lora"] = dataclasses.replace(lora, targets=("key", "mlp_in"))
        return fedft(model, 3, head=MlpHead(3), **settings)
    return fedft(Bert(**bert), 3, **settings)


def make_dataset(kind, seed=0):
    rng = np.random.default_rng(seed)
    count = int(SIZES.sum())
    if kind == "images":
        images = rng.integers(0, 256, (count + NUM_TESTS, 6, 6, 1), np.uint8)
        train, test = images[:count], images[count:]
    else:
        train, test = make_texts(rng, count), make_texts(rng, NUM_TESTS)
    if kind == "regression":
        labels = rng.normal(size=count + NUM_TESTS).astype(np.float32)
        return Dataset(train, labels[:count], test, labels[count:], task="regression")
    labels = rng.integers(0, 3, count + NUM_TESTS).astype(np.int32)
    return Dataset(train, labels[:count], test, labels[count:], ("a", "b", "c"))


def draw_like(shapes, seed):
    """Random arrays, cheaper than an initialisation; scales are about 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_world(kind, scheme):
    data = make_dataset(kind)
    starts = np.cumsum(SIZES) - SIZES
    indices = np.minimum(starts[:, None] + np.arange(SIZES.max()), SIZES.sum() - 1)
    inputs = jax.tree.map(jnp.asarray, data.train_inputs)
    prepare = scheme.transform or (lambda inputs: inputs)
    shapes = jax.eval_shape(lambda x: scheme.model.init(jax.random.key(0), prepare(x)), inputs)
    return World(
        backbone=stack_blocks(draw_like(shapes["params"], 7)),
        inputs=inputs,
        labels=jnp.asarray(data.train_labels),
        indices=jnp.asarray(indices, jnp.int32),
        sizes=jnp.asarray(SIZES),
        test_inputs=jax.tree.map(jnp.asarray, data.test_inputs),
        test_labels=jnp.asarray(data.test_labels),
    )


def noisy_state(scheme, params, world):
    """A state in which every head and adapter differs, as after some training; of plain SGD."""
    shapes = jax.eval_shape(
        lambda key: init_learning(key, scheme, params, world), jax.random.key(1)
    )
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return state._replace(adapters=draw_like(shapes.adapters, 1), heads=draw_like(shapes.heads, 2))


KINDS = {
    "texts": {},
    "regression": {},
    "mlp head": {},
    "images": {},
    "texts with dropout": {"dropout": 0.3},
    "images with copies": {"dropout": 0.3, "per_device": True, "local_steps": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_equals_the_plain_loop(name, learning_params):
    kind = name.split(" with")[0]
    scheme = make_scheme(kind, **KINDS[name])
    world = make_world(kind, scheme)
    state, key = noisy_state(scheme, learning_params, world), jax.random.key(3)
    expected = reference.reference_round(
        key,
        state,
        MASK,
        scheme,
        learning_params,
        world,
        functools.partial(jax.jit, static_argnums=4),
    )
    heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected.heads)
    new, info = jitted_round(key, state, jnp.asarray(MASK), scheme, learning_params, world)
    for ours, theirs in (
        (new.adapters, expected.adapters), (new.heads, heads), (info.loss, expected.loss)
    ):  # fmt: skip
        chex.assert_trees_all_close(ours, theirs, **after_rounds(theirs, scheme))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new.adapters, state.adapters)
    assert all(jax.tree.leaves(moved))


def test_padding_changes_nothing(learning_params):
    """Other words under a mask of 0 give the same round."""
    scheme = make_scheme("texts")
    world = make_world("texts", scheme)
    state, key = noisy_state(scheme, learning_params, world), jax.random.key(3)

    def scrambled(texts):
        ids = jnp.where(texts["attention_mask"] > 0, texts["input_ids"], 19)
        return texts | {"input_ids": ids}

    other = world._replace(inputs=scrambled(world.inputs), test_inputs=scrambled(world.test_inputs))
    rounds = [
        jitted_round(key, state, jnp.asarray(MASK), scheme, learning_params, w)
        for w in (world, other)
    ]
    chex.assert_trees_all_close(*rounds, **after_rounds(rounds[0], scheme))
    metrics = [jitted_evaluate(state, scheme, w) for w in (world, other)]
    chex.assert_trees_all_close(*metrics, **after_rounds(metrics[0], scheme))


@pytest.mark.parametrize(("kind", "size"), [("texts", 3), ("images", 5)])
def test_evaluation_in_batches_equals_one_batch(kind, size, learning_params):
    """10 test samples in batches that do not divide them, and that do."""
    scheme = make_scheme(kind)
    world = make_world(kind, scheme)
    state = noisy_state(scheme, learning_params, world)
    whole = jitted_evaluate(state, scheme, world)
    batched = dataclasses.replace(scheme, test_batch_size=size)
    in_batches = jitted_evaluate(state, batched, world)
    chex.assert_trees_all_close(in_batches, whole, **after_rounds(whole, scheme))


def test_augmentation_follows_the_key_and_spares_the_evaluation(learning_params):
    scheme = make_scheme("images")
    plain = dataclasses.replace(
        scheme, transform=dataclasses.replace(scheme.transform, crop_padding=0, flip=False)
    )
    world = make_world("images", scheme)
    state = noisy_state(scheme, learning_params, world)
    mask = jnp.asarray(MASK)

    def trained(key, scheme):
        key = jax.random.key(key)
        return jitted_round(key, state, mask, scheme, learning_params, world)[0].adapters

    chex.assert_trees_all_equal(trained(3, scheme), trained(3, scheme))
    for other in (trained(4, scheme), trained(3, plain)):
        with pytest.raises(AssertionError):
            chex.assert_trees_all_close(trained(3, scheme), other, rtol=1e-3)
    metrics = [jitted_evaluate(state, s, world) for s in (scheme, plain)]
    chex.assert_trees_all_equal(*metrics)


def test_dropout_follows_the_key_and_spares_the_evaluation(learning_params):
    scheme = make_scheme("texts", dropout=0.3)
    lora = dataclasses.replace(scheme.model.lora, dropout=0.0)
    plain = dataclasses.replace(scheme, model=scheme.model.clone(lora=lora))
    world = make_world("texts", scheme)
    state = noisy_state(scheme, learning_params, world)

    def trained(scheme, mask=MASK, key=3):
        key = jax.random.key(key)
        return jitted_round(key, state, jnp.asarray(mask), scheme, learning_params, world)

    again = trained(scheme)
    chex.assert_trees_all_equal(trained(scheme), again)
    assert trained(scheme)[1].loss != trained(plain)[1].loss
    # Each device has its own draws, whoever else is scheduled.
    alone = trained(scheme, np.array([0, 0, 1, 0], bool))[0]
    heads = [jax.tree.map(lambda leaf: leaf[2], s.heads) for s in (alone, again[0])]
    chex.assert_trees_all_close(*heads, **after_rounds(heads[0], scheme))
    metrics = [jitted_evaluate(state, s, world) for s in (scheme, plain)]
    chex.assert_trees_all_close(*metrics, **after_rounds(metrics[0], scheme))


def test_bfloat16_stays_close(learning_params):
    """Frozen weights and computation in bfloat16; what is trained stays float32."""
    scheme = make_scheme("texts")
    world = make_world("texts", scheme)
    state = noisy_state(scheme, learning_params, world)
    narrow_scheme = dataclasses.replace(scheme, model=scheme.model.clone(dtype=jnp.bfloat16))
    narrow_world = world._replace(
        backbone=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), world.backbone)
    )
    key, mask = jax.random.key(3), jnp.asarray(MASK)
    new, info = jitted_round(key, state, mask, scheme, learning_params, world)
    with jax.numpy_dtype_promotion("standard"):  # jax's attention mixes dtypes on the way back
        narrow, narrow_info = jitted_round(
            key, state, mask, narrow_scheme, learning_params, narrow_world
        )
    chex.assert_trees_all_equal_shapes_and_dtypes(narrow, new)
    np.testing.assert_allclose(narrow_info.loss, info.loss, rtol=2.0**-6)

    def step(new):
        moved = jax.tree.map(lambda a, b: (a - b).ravel(), new.adapters, state.adapters)
        return np.concatenate(jax.tree.leaves(moved))

    wide = step(new)
    error = np.linalg.norm(step(narrow) - wide) / np.linalg.norm(wide)
    assert error < 16 * 2.0**-8  # a few roundings of 8 bits, in a row
    sent = payload(narrow_scheme, narrow_world)
    # Tokens cross in 16 bit, features in 32.
    assert sent.up_bits == BATCH * (LENGTH * (16 * 8 + 1) + 32 * 8)
    assert jnp.isfinite(jitted_evaluate(narrow, narrow_scheme, narrow_world).loss)


def test_payload_of_texts_counts_tokens_and_mask(learning_params):
    """Up B·S·D + B·D values of 32 bit and B·S bits of the mask; down B·D values."""
    for kind in ("texts", "regression", "mlp head"):
        scheme = make_scheme(kind)
        sent = payload(scheme, make_world(kind, scheme))
        assert sent.up_bits == 32 * BATCH * (LENGTH * 8 + 8) + BATCH * LENGTH
        assert sent.down_bits == 32 * BATCH * 8
    scheme = make_scheme("images")  # resized from 6 to 4 pixels: 4 patches and CLS, no mask
    sent = payload(scheme, make_world("images", scheme))
    assert sent.up_bits == 32 * BATCH * (5 * 8 + 8)


def test_one_trace_for_all_numbers():
    scheme = make_scheme("texts")
    world = make_world("texts", scheme)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def one(key, mask, params):
        state = init_learning(key, scheme, params, world)
        return federated_round(key, state, mask, scheme, params, world)

    for seed, rate in ((0, 0.1), (1, 0.0)):
        params = LearningParams(jnp.float32(rate), jnp.float32(rate))
        one(jax.random.key(seed), jnp.asarray(MASK if seed else ~MASK), params)
