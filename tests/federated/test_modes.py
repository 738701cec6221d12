"""Every configuration of the one round against the plain loop."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference_round as reference
from tolerances import after_rounds

from jaxsplit.federated import (
    federated_round,
    fedft,
    init_learning,
    payload,
    run_chunk,
    run_chunk_of_seeds,
    world_axes,
)
from jaxsplit.models import LoraConfig, ViT

MASKS = {
    "three": [1, 0, 1, 0, 0, 1],
    "all": [1, 1, 1, 1, 1, 1],  # 4 and 2 devices of a group of 4
    "one": [0, 0, 0, 1, 0, 0],
    "five": [1, 1, 0, 1, 1, 1],
}
MODES = {
    "global, personal": {},
    "global, shared": {"heads": "shared"},
    "copies, personal": {"per_device": True, "local_steps": 3},
    "copies, shared": {"per_device": True, "heads": "shared", "local_steps": 3},
}
SIZES = np.array([14, 8, 5, 3, 2, 1], np.int32)  # about 14 / n
HEAD_BITS = 32 * (8 * 3 + 3)  # a dense layer from 8 features to 3 classes
DECAY = optax.exponential_decay(1.0, 1, 0.5)
jitted_round = jax.jit(federated_round, static_argnames="scheme")
jitted_gradient = jax.jit(reference.loss_and_gradients, static_argnums=4)


def clipped_momentum(rate):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate, momentum=0.9))


def clipped_adam(rate):
    """ε is large, or gradients that are 0 but for rounding would decide the direction."""
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate, eps=0.1))


def make_scheme(scheme, *, per_device=False, **options):
    """The scheme in another mode."""
    lora = dataclasses.replace(scheme.model.lora, per_device=per_device)
    return dataclasses.replace(scheme, model=scheme.model.clone(lora=lora), **options)


def with_partition(world, sizes, seed=0):
    """The same samples, dealt out anew."""
    samples = np.random.default_rng(seed).permutation(len(world.labels))
    starts = np.cumsum(sizes) - sizes
    positions = np.minimum(starts[:, None] + np.arange(max(SIZES)), len(samples) - 1)
    return world._replace(
        indices=jnp.asarray(samples[positions], jnp.int32), sizes=jnp.asarray(sizes, jnp.int32)
    )


@pytest.fixture
def model():
    return ViT(
        patch_size=2,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
    )


@pytest.fixture
def world(world):
    return with_partition(world, SIZES)


def trained_state(scheme, params, world, seed=1):
    """Adapters and heads as after some training; the optimizers are fresh."""
    shapes = jax.eval_shape(
        lambda key: init_learning(key, scheme, params, world), jax.random.key(seed)
    )
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    rng = np.random.default_rng(seed)

    def noise(leaf):
        return jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    heads = jax.tree.map(noise, fresh.heads)
    if scheme.heads == "shared":
        heads = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), heads)
    return fresh._replace(adapters=jax.tree.map(noise, fresh.adapters), heads=heads)


def stacked(rows):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def assert_equals_the_plain_loop(state, mask, scheme, params, world, *, round_index=0, **options):
    """Compare one round; returns the state after it."""
    # The reference's gradient is that of any mode: compile it once.
    plain = make_scheme(
        dataclasses.replace(
            scheme, local_steps=1, heads="personal", schedule=None, optimizer=optax.sgd
        )
    )

    def gradient(adapters, head, inputs, labels, _, *others):
        return jitted_gradient(adapters, head, inputs, labels, plain, *others)

    key, mask = jax.random.key(3), np.array(mask, bool)
    expected = reference.reference_round(
        key, state, mask, scheme, params, world, lambda _: gradient, **options
    )
    head_optimizers = expected.head_optimizers
    if scheme.heads == "personal":
        head_optimizers = stacked(head_optimizers)
    new, info = jitted_round(key, state, jnp.asarray(mask), scheme, params, world, round_index)
    for ours, theirs in (
        ((new.adapters, new.heads), (expected.adapters, stacked(expected.heads))),
        (
            (new.adapter_optimizer, new.head_optimizers),
            (expected.adapter_optimizer, head_optimizers),
        ),
        (info.loss, expected.loss),
        (info.device_loss, expected.device_loss),  # NaN = NaN
    ):
        chex.assert_trees_all_close(ours, theirs, **after_rounds(theirs, scheme))
    assert (new.participation - state.participation).tolist() == mask.astype(int).tolist()
    return new


@pytest.mark.parametrize("mode", MODES)
def test_sgd_equals_the_plain_loop(mode, scheme, learning_params, world):
    scheme = make_scheme(scheme, **MODES[mode])
    state = trained_state(scheme, learning_params, world)
    for mask in MASKS.values():
        assert_equals_the_plain_loop(state, mask, scheme, learning_params, world)


@pytest.mark.parametrize(
    ("mode", "optimizer"),
    [
        ("global, shared", clipped_adam),
        ("copies, personal", clipped_adam),
        ("copies, shared", clipped_momentum),
    ],
)
def test_optax_equals_the_plain_loop(mode, optimizer, scheme, learning_params, world):
    """Round after round, so that a state which is kept, or started anew, shows; η falls."""
    scheme = make_scheme(scheme, optimizer=optimizer, schedule=DECAY, **MODES[mode])
    traces = jitted_round._cache_size()
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes counts and floats
        state = trained_state(scheme, learning_params, world)
        for index, mask in enumerate(MASKS.values()):
            state = assert_equals_the_plain_loop(
                state,
                mask,
                scheme,
                learning_params,
                world,
                round_index=index,
                factor=np.float32(0.5**index),
                by_hand=False,
            )
        idle, info = jitted_round(
            jax.random.key(5), state, jnp.zeros(6, bool), scheme, learning_params, world, 0
        )
    assert jitted_round._cache_size() <= traces + 1  # one trace for all rounds
    chex.assert_trees_all_equal(idle, state)  # an empty round changes nothing, momentum included
    assert np.isnan(info.loss)
    assert np.isnan(info.device_loss).all()
    if scheme.heads == "shared":
        chex.assert_trees_all_equal(
            *(jax.tree.map(lambda x, n=n: x[n], state.heads) for n in (0, 5))
        )
    assert (state.adapter_optimizer == ()) == scheme.adapters_per_device


def test_grouping_of_copies_does_not_show(scheme, learning_params, world):
    scheme = make_scheme(scheme, **MODES["copies, shared"])
    state = trained_state(scheme, learning_params, world)
    mask = jnp.asarray(MASKS["five"], bool)
    rounds = [
        jitted_round(
            jax.random.key(3),
            state,
            mask,
            dataclasses.replace(scheme, devices_per_step=group),
            learning_params,
            world,
            0,
        )
        for group in (1, 4)
    ]
    chex.assert_trees_all_close(*rounds, **after_rounds(rounds[0], scheme))


def test_one_step_of_equal_devices_is_a_global_step(scheme, learning_params, world):
    """Σ|D_n|(ΔW − η g_n) / Σ|D_m| = ΔW − η Σ g_n / K."""
    world = with_partition(world, np.full(6, 5))
    schemes = [make_scheme(scheme, heads="shared", per_device=copies) for copies in (False, True)]
    for mask in (MASKS["three"], MASKS["all"]):
        common, copies = (
            jitted_round(
                jax.random.key(3),
                trained_state(scheme, learning_params, world),
                jnp.asarray(mask, bool),
                scheme,
                learning_params,
                world,
                0,
            )
            for scheme in schemes
        )
        for name in ("adapters", "heads", "participation"):
            found, expected = getattr(copies[0], name), getattr(common[0], name)
            chex.assert_trees_all_close(found, expected, **after_rounds(expected, scheme))
        chex.assert_trees_all_close(copies[1], common[1], **after_rounds(common[1], scheme))


@pytest.fixture
def decaying(scheme):
    """Copies whose learning rates fall from round to round."""
    options = {"optimizer": clipped_momentum, "schedule": DECAY} | MODES["copies, shared"]
    return make_scheme(scheme, **options)


def test_a_chunk_passes_the_round_to_the_schedule(decaying, learning_params, world):
    state = trained_state(decaying, learning_params, world)
    key, masks = jax.random.key(4), np.zeros((4, 6), bool)
    masks[1] = MASKS["five"]  # in round 2 + 1
    new, info = jitted_round(
        jax.random.fold_in(key, 3), state, jnp.asarray(masks[1]), decaying, learning_params, world,
        3,
    )  # fmt: skip
    chunk, infos, _ = run_chunk(
        key, state, jnp.asarray(masks), jnp.int32(2), decaying, learning_params, world
    )
    chex.assert_trees_all_close(chunk, new, **after_rounds(new, decaying))
    bound = after_rounds(info.device_loss, decaying)
    np.testing.assert_allclose(infos.device_loss[1], info.device_loss, **bound)
    assert np.isnan(infos.loss).tolist() == [True, False, True, True]


def test_a_chunk_of_seeds_equals_each_seed(decaying, learning_params, world):
    """Seeds differ in key, state, schedule and partition; sets differ in size, some are empty."""
    keys = jax.random.split(jax.random.key(8), 3)
    worlds = [
        with_partition(world, sizes, seed)
        for seed, sizes in enumerate((SIZES, SIZES[::-1], np.full(6, 5)))
    ]
    states = [trained_state(decaying, learning_params, w, seed) for seed, w in enumerate(worlds)]
    empty = [0] * 6
    masks = jnp.asarray(
        [
            [MASKS["three"], MASKS["five"], MASKS["all"], empty],
            [MASKS["one"], empty, MASKS["three"], empty],
            [empty, MASKS["one"], MASKS["five"], empty],
        ],
        bool,
    )
    together = world._replace(
        indices=jnp.stack([w.indices for w in worlds]), sizes=jnp.stack([w.sizes for w in worlds])
    )
    everyone, first_round = stacked(states), jnp.int32(1)
    numbers = [
        learning_params._replace(adapter_learning_rate=jnp.float32(r)) for r in (0.1, 0.2, 0)
    ]
    result = run_chunk_of_seeds(
        keys, everyone, masks, first_round, decaying, stacked(numbers), together
    )
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(everyone.adapters))  # donated
    for seed, (state, of_seed) in enumerate(zip(states, worlds, strict=True)):
        alone = run_chunk(
            keys[seed], state, masks[seed], first_round, decaying, numbers[seed], of_seed
        )
        ours = jax.tree.map(lambda leaf, seed=seed: leaf[seed], result)
        chex.assert_trees_all_close(ours, alone, **after_rounds(alone, decaying, rounds=4))


def test_seeds_share_all_but_the_partition(scheme, learning_params, world):
    axes = world_axes()
    assert {name for name, axis in axes._asdict().items() if axis == 0} == {"indices", "sizes"}
    together = jax.eval_shape(
        jax.vmap(lambda _, w: w, in_axes=(0, None), out_axes=axes), jnp.zeros(5), world
    )
    states = jax.eval_shape(
        jax.vmap(lambda key: init_learning(key, scheme, learning_params, world)),
        jax.random.split(jax.random.key(0), 5),
    )
    program = run_chunk_of_seeds.lower(
        jax.random.split(jax.random.key(0), 5),
        states,
        jax.ShapeDtypeStruct((5, 2, 6), bool),
        jnp.int32(0),
        scheme,
        stacked([learning_params] * 5),
        together,
    )
    text = program.as_text()
    kernel = world.backbone["blocks"]["mlp_in"]["weight"]
    assert kernel.shape == (1, 12, 8)
    assert "tensor<1x12x8xf32>" in text
    for copies in ("5x1x12x8", "1x5x12x8", "5x12x8"):
        assert f"tensor<{copies}xf32>" not in text
    assert "tensor<5x33x4x4x1xf32>" not in text  # images of all devices


def test_errors_say_what_to_do(scheme):
    with pytest.raises(ValueError, match=r"^local_steps=3: global adapters .*per_device=True"):
        fedft(scheme.model, 3, local_steps=3)
    with pytest.raises(ValueError, match="local_steps=0: choose 1 or more"):
        make_scheme(scheme, local_steps=0, per_device=True)
    with pytest.raises(ValueError, match="heads='common': choose one of personal, shared"):
        fedft(scheme.model, 3, heads="common")
    decay = optax.exponential_decay(1.0, 1, 0.5)
    lora = LoraConfig(per_device=True)
    options = {"heads": "shared", "local_steps": 3, "schedule": decay}
    made = fedft(scheme.model, 3, lora=lora, **options)
    assert made.adapters_per_device
    assert (made.heads, made.local_steps, made.schedule) == ("shared", 3, decay)


@pytest.mark.parametrize("local_steps", [1, 3])
def test_a_shared_head_and_local_steps_are_paid_for(scheme, world, local_steps):
    plain = payload(scheme, world)
    assert payload(make_scheme(scheme, heads="shared"), world) == plain._replace(
        weight_bits=HEAD_BITS, upload_bits=HEAD_BITS
    )
    copies = make_scheme(scheme, per_device=True, heads="shared", local_steps=local_steps)
    assert payload(copies, world) == plain._replace(
        activation_bits=local_steps * plain.activation_bits,
        feature_bits=local_steps * plain.feature_bits,
        weight_bits=HEAD_BITS,
        upload_bits=HEAD_BITS,
    )
