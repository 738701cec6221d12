"""Every preset, cut, codec and order of the one round against the plain loop."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference_round as reference
from tolerances import after_rounds, for_most_keys

from jaxsplit import compression
from jaxsplit.costs import wide_value
from jaxsplit.federated import (
    PRESETS,
    LearningParams,
    federated_round,
    fedft,
    fl_lora,
    init_learning,
    payload,
    run_chunk,
    sft,
    sft_uncompressed,
    sl,
)
from jaxsplit.models import LoraConfig

jitted_round = jax.jit(federated_round, static_argnames="scheme")


@functools.cache
def compiled(gradient):
    """A gradient of the plain loop; its scheme is static."""
    return jax.jit(gradient, static_argnums=4)


LORA = LoraConfig(rank=2, alpha=4.0, init_std=0.3, targets=("query", "mlp_in"))
SMALL = {"batch_size": 4, "local_steps": 2, "devices_per_step": 4, "schedule": None}
COPIES = {**SMALL, "lora": LORA}
LOSSY = compression.top_k_quantization()  # compiles much faster than with the lossless code
SCHEMES = {
    "sft": lambda model: sft(model, 3, cut=1, **COPIES),
    "sft of the embedding": lambda model: sft(model, 3, cut=0, codec=LOSSY, **COPIES),
    "sft, masked": lambda model: sft(
        model, 3, cut=1, codec=compression.top_k_quantization("masked"), **COPIES
    ),
    "sft_uncompressed": lambda model: sft_uncompressed(model, 3, cut=1, **COPIES),
    "sl, compressed": lambda model: dataclasses.replace(sl(model, 3, cut=1, **COPIES), codec=LOSSY),
    "fl_lora": lambda model: fl_lora(model, 3, **COPIES),
    "fl_full": lambda model: PRESETS["fl_full"](model, 3, **SMALL),
    "fedft, cut 1, compressed": lambda model: fedft(
        model, 3, lora=LORA, batch_size=4, cut=1, codec=LOSSY, heads="shared"
    ),
    "fedft, cut 2": lambda model: fedft(model, 3, lora=LORA, batch_size=4, cut=2),
}
MASKS = {"three": [1, 0, 1, 0, 0, 1], "all": [1, 1, 1, 1, 1, 1]}


@pytest.fixture
def model(model):
    """With a large ε: of a token without any kept entry LayerNorm's slope is 1/√ε."""
    return model.clone(layer_norm_eps=0.1)


@pytest.fixture
def params():
    return LearningParams(jnp.float32(0.2), jnp.float32(0.1))


def noisy_state(scheme, params, world):
    """As after some training."""
    state = init_learning(jax.random.key(1), scheme, params, world)
    rng = np.random.default_rng(1)

    def noise(leaf):
        return leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype)

    heads = jax.tree.map(noise, state.heads)
    if scheme.heads == "shared":
        heads = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), heads)
    return state._replace(adapters=jax.tree.map(noise, state.adapters), heads=heads)


@pytest.mark.parametrize(
    "name",
    [
        "sft",
        "sft of the embedding",
        "sft, masked",
        "sl, compressed",
        "fl_lora",
        "fl_full",
        "fedft, cut 1, compressed",
    ],
)
def test_equals_the_plain_loop(name, model, params, world):
    scheme = SCHEMES[name](model)
    state = noisy_state(scheme, params, world)

    def check(seed, mask):
        key, mask = jax.random.key(seed), np.array(mask, bool)
        expected = reference.reference_round(
            key, state, mask, scheme, params, world, compiled, by_hand=False
        )
        new, info = jitted_round(key, state, jnp.asarray(mask), scheme, params, world)
        heads = jax.tree.map(lambda *rows: jnp.stack(rows), *expected.heads)
        after = (expected.adapters, heads)
        chex.assert_trees_all_close((new.adapters, new.heads), after, **after_rounds(after, scheme))
        bound = after_rounds(expected.device_loss, scheme)
        np.testing.assert_allclose(info.device_loss, expected.device_loss, **bound)
        bits = np.stack([wide_value(words) for words in info.coded_bits], axis=-1)
        assert bits.tolist() == expected.coded_bits.tolist()
        assert (bits.sum() > 0) == (scheme.codec is not None)
        # Something moved on both sides of the cut.
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new.adapters, state.adapters)
        assert all(any(jax.tree.leaves(part)) for part in moved.values())

    if scheme.codec:
        for_most_keys(functools.partial(check, mask=MASKS["three"]))
    else:
        for mask in MASKS.values():
            check(3, mask)


def sgd_scheme(make, model, **options):
    lora = dataclasses.replace(LORA, per_device=True)
    return make(model, 3, lora=lora, batch_size=4, optimizer=optax.sgd, schedule=None, **options)


def test_one_step_of_sft_is_fedfts_aggregation(model, params, world):
    """Identity codec, K = 1, plain SGD, equal sizes: the mean of copies is a step on the mean."""
    world = world._replace(sizes=jnp.full_like(world.sizes, 3))
    copies = sgd_scheme(sft, model, cut=1, codec=compression.identity())
    common = fedft(model, 3, lora=LORA, batch_size=4, optimizer=optax.sgd, cut=1, heads="shared")
    mask = jnp.array([1, 1, 0, 1, 0, 1], bool)
    state = noisy_state(copies, params, world)
    after, _ = jitted_round(jax.random.key(3), state, mask, copies, params, world)
    start = noisy_state(common, params, world)
    expected, _ = jitted_round(jax.random.key(3), start, mask, common, params, world)
    for new, old in ((after.adapters, expected.adapters), (after.heads, expected.heads)):
        chex.assert_trees_all_close(new, old, **after_rounds(old, common))


def test_fl_lora_is_centralised_training_on_the_union(model, params, world):
    """K = 1, equal sizes: the step of plain SGD on all mini-batches as one batch."""
    world = world._replace(sizes=jnp.full_like(world.sizes, 3))
    scheme = sgd_scheme(fl_lora, model)
    state = noisy_state(scheme, params, world)
    key, count = jax.random.key(3), len(world.sizes)
    after, _ = jitted_round(key, state, jnp.ones(count, bool), scheme, params, world)
    batches = [
        reference.draw_batch(jax.random.fold_in(key, n), world.indices[n], world.sizes[n], 4)
        for n in range(count)
    ]
    union = jnp.concatenate(batches)
    head = jax.tree.map(lambda leaf: leaf[0], state.heads)
    labels = [world.labels[i].item() for i in union]
    _, (of_adapters, of_head) = reference.loss_and_gradients(
        state.adapters, head, world.inputs[union], labels, scheme, world
    )

    def step(rate):
        return lambda weight, gradient: weight - rate * gradient

    expected = jax.tree.map(step(0.2), state.adapters, of_adapters)
    chex.assert_trees_all_close(after.adapters, expected, **after_rounds(expected, scheme))
    expected = jax.tree.map(step(0.1), head, of_head)
    first = jax.tree.map(lambda leaf: leaf[0], after.heads)
    chex.assert_trees_all_close(first, expected, **after_rounds(expected, scheme))


def test_a_cut_alone_changes_nothing(model, params, world):
    """Where nothing is compressed, the cut decides bits and not numbers."""
    mask = jnp.array([1, 0, 1, 0, 0, 1], bool)
    ends = []
    for cut in (0, 1, 2):
        scheme = sgd_scheme(sft_uncompressed, model, cut=cut)
        state = noisy_state(scheme, params, world)
        ends.append(jitted_round(jax.random.key(3), state, mask, scheme, params, world)[0])
    for end in ends[1:]:
        bound = after_rounds(ends[0].adapters, scheme)
        chex.assert_trees_all_close(end.adapters, ends[0].adapters, **bound)


def test_codec_numbers_sweep_in_one_trace(model, world):
    scheme = SCHEMES["sft"](model)
    traced = chex.assert_max_traces(
        lambda key, state, mask, params: federated_round(key, state, mask, scheme, params, world),
        n=1,
    )
    step = jax.jit(traced)
    bits = []
    for ratio, levels in ((0.1, 1), (0.2, 7), (1.0, 255)):
        numbers = compression.CodecParams(jnp.float32(ratio), jnp.float32(levels))
        params = LearningParams(jnp.float32(0.1), jnp.float32(0.1), numbers)
        state = noisy_state(scheme, params, world)
        _, info = step(jax.random.key(0), state, jnp.ones(6, bool), params)
        bits.append(int(wide_value(info.coded_bits.up).sum()))
    assert bits[0] < bits[1] < bits[2]


TOKENS = 5 * 8  # four patches and the first token, eight wide
HEAD_BITS = 32 * (8 * 3 + 3)
BLOCK_BITS = 32 * 2 * ((8 + 8) + (8 + 16))  # adapters of query and mlp_in


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        ("sft", BLOCK_BITS, BLOCK_BITS),
        ("sft_uncompressed", 2 * 4 * TOKENS * 32 + BLOCK_BITS, 2 * 4 * TOKENS * 32 + BLOCK_BITS),
        ("sft of the embedding", 0, 0),
        ("fl_lora", 2 * BLOCK_BITS + HEAD_BITS, 2 * BLOCK_BITS + HEAD_BITS),
        ("fedft, cut 2", 32 * (4 * TOKENS + 4 * 8) + 2 * BLOCK_BITS,
         32 * (4 * TOKENS + 4 * 8) + 2 * BLOCK_BITS),
    ],
)  # fmt: skip
def test_payload_beside_the_codec(name, up, down, model, world):
    sent = payload(SCHEMES[name](model), world)
    assert (sent.up_bits, sent.down_bits) == (up, down)


def test_payload_of_all_weights(model, world):
    weights = sum(leaf.size for leaf in jax.tree.leaves(world.backbone))
    expected = 32 * weights + HEAD_BITS
    assert payload(SCHEMES["fl_full"](model), world) == (0, 0, 0, expected, expected)


def test_counted_bits_of_the_identity_are_its_payload(model, params, world):
    scheme = sgd_scheme(sft, model, cut=1, codec=compression.identity())
    plain = sgd_scheme(sft_uncompressed, model, cut=1)
    state = noisy_state(scheme, params, world)
    _, info = jitted_round(jax.random.key(0), state, jnp.ones(6, bool), scheme, params, world)
    up, down = (int(wide_value(words)[0]) for words in info.coded_bits)
    beside = payload(scheme, world)
    assert beside._replace(activation_bits=up, gradient_bits=down) == payload(plain, world)


def test_a_sequential_round_ends_with_the_last_device(model, params, world):
    """In turn, without the others, is what each device would do alone, one round after another."""
    scheme = sgd_scheme(sl, model, cut=1)
    state = noisy_state(scheme, params, world)
    key = jax.random.key(3)
    together, _ = jitted_round(
        key, state, jnp.array([1, 0, 0, 1, 0, 0], bool), scheme, params, world
    )
    for n in (0, 3):
        state, _ = jitted_round(key, state, jnp.arange(6) == n, scheme, params, world)
    for new, old in ((together.adapters, state.adapters), (together.heads, state.heads)):
        chex.assert_trees_all_close(new, old, **after_rounds(old, scheme))


@pytest.mark.parametrize("name", ["sft", "fl_full"])
def test_a_chunk_trains_and_evaluates(name, model, params, world):
    """An easy problem, brightness: over three seeds most of the loss goes, compressed or not."""
    scheme = SCHEMES[name](model)
    brightness = 2 * (world.labels - 1).astype(jnp.float32)
    world = world._replace(inputs=world.inputs + brightness[:, None, None, None])
    masks, losses = jnp.ones((60, 6), bool), []
    for seed in range(3):
        state = init_learning(jax.random.key(seed), scheme, params, world)
        if name == "fl_full":  # its weights are the backbone's, which a chunk would take over
            state = jax.tree.map(jnp.copy, state)
        _, info, evaluation = run_chunk(
            jax.random.key(seed), state, masks, jnp.int32(0), scheme, params, world
        )
        losses.append(info.loss)
        assert np.isfinite(evaluation.loss)
    curve = np.mean(losses, axis=0)
    assert curve[-5:].mean() < 0.75 * curve[:3].mean()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cut": 3}, ["cut=3", "0 (after the embedding) to 2", "None"]),
        ({"cut": -1}, ["cut=-1"]),
        ({"cut": None, "codec": compression.compressed()}, ["cut=None", "codec"]),
        ({"cut": None, "head_side": "server"}, ["cut=None", "head_side"]),
        ({"order": "sequential"}, ["sequential", "per_device=True"]),
        ({"order": "both"}, ["order='both'", "parallel, sequential"]),
        ({"head_side": "cloud"}, ["head_side='cloud'", "device, server"]),
    ],
)
def test_impossible_choices_are_refused(options, words, model):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(fedft(model, 3, lora=LORA), **options)
    for word in words:
        assert word in str(error.value)
