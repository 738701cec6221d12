"""The fast round against the plain loop, and what a round must leave alone."""

import dataclasses
import functools
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference_round as reference
from tolerances import after_rounds

from jaxsplit.federated import LearningParams, federated_round, init_learning, payload, run_chunk

MASKS = {
    "all": [1, 1, 1, 1, 1, 1],
    "one": [0, 0, 0, 1, 0, 0],
    "three": [1, 0, 1, 0, 0, 1],
    "five": [1, 1, 0, 1, 1, 1],
}
jitted_round = jax.jit(federated_round, static_argnames="scheme")


@pytest.fixture
def state(scheme, learning_params, world):
    """A state in which every head and adapter differs, as after some training."""
    fresh = init_learning(jax.random.key(1), scheme, learning_params, world)
    leaves, tree = jax.tree.flatten((fresh.adapters, fresh.heads))
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    adapters, heads = jax.tree.unflatten(tree, noisy)
    return fresh._replace(adapters=adapters, heads=heads)


@pytest.mark.numerics
@pytest.mark.parametrize("name", MASKS)
def test_equals_the_plain_loop(name, state, scheme, learning_params, world):
    mask, key = np.array(MASKS[name], bool), jax.random.key(3)
    compiled = functools.partial(jax.jit, static_argnums=4)
    expected = reference.reference_round(key, state, mask, scheme, learning_params, world, compiled)
    heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected.heads)
    for devices_per_step in (1, 4, 100):  # the grouping must not show
        scheme = dataclasses.replace(scheme, devices_per_step=devices_per_step)
        new, info = jitted_round(key, state, jnp.asarray(mask), scheme, learning_params, world)
        for ours, theirs in (
            (new.adapters, expected.adapters), (new.heads, heads), (info.loss, expected.loss)
        ):  # fmt: skip
            chex.assert_trees_all_close(ours, theirs, **after_rounds(theirs, scheme))
        assert new.participation.tolist() == mask.astype(int).tolist()


def test_the_round_moves_what_it_should(state, scheme, learning_params, world):
    mask = jnp.asarray(MASKS["three"], bool)
    new, _ = jitted_round(jax.random.key(3), state, mask, scheme, learning_params, world)
    for old_leaf, new_leaf in zip(
        jax.tree.leaves(state.heads), jax.tree.leaves(new.heads), strict=True
    ):
        moved = np.any(np.asarray(old_leaf != new_leaf).reshape(len(mask), -1), axis=-1)
        assert moved.tolist() == mask.tolist()
    assert all(
        bool(jnp.any(a != b))
        for a, b in zip(jax.tree.leaves(state.adapters), jax.tree.leaves(new.adapters), strict=True)
    )


@pytest.mark.parametrize(
    "optimizer", [optax.sgd, lambda rate: optax.sgd(rate, momentum=0.9), optax.adam]
)
def test_optimizer_state_of_unscheduled_devices_rests(
    optimizer, state, scheme, learning_params, world
):
    scheme = dataclasses.replace(scheme, optimizer=optimizer)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes counts and floats
        state = init_learning(jax.random.key(1), scheme, learning_params, world)
        mask = jnp.asarray(MASKS["three"], bool)
        state, _ = jitted_round(jax.random.key(3), state, mask, scheme, learning_params, world)
        new, _ = jitted_round(jax.random.key(4), state, ~mask, scheme, learning_params, world)
        idle, info = jitted_round(
            jax.random.key(5), state, jnp.zeros_like(mask), scheme, learning_params, world
        )
    for old_leaf, new_leaf in zip(
        jax.tree.leaves((state.heads, state.head_optimizers)),
        jax.tree.leaves((new.heads, new.head_optimizers)),
        strict=True,
    ):
        np.testing.assert_array_equal(old_leaf[np.asarray(mask)], new_leaf[np.asarray(mask)])
    chex.assert_trees_all_equal(idle, state)  # an empty round changes nothing, momentum included
    assert np.isnan(info.loss)


def with_copies(scheme, **options):
    """The same scheme with adapters per device."""
    lora = dataclasses.replace(scheme.model.lora, per_device=True)
    return dataclasses.replace(scheme, model=scheme.model.clone(lora=lora), **options)


@pytest.mark.parametrize("per_device", [False, True])
def test_unscheduled_devices_cost_nothing(per_device, state, scheme, learning_params, world):
    """The number of encoded groups follows the set: the loop's trip count is ceil(K / group)."""
    scheme = dataclasses.replace(scheme, devices_per_step=1)
    if per_device:
        scheme = with_copies(scheme, local_steps=2)
        state = state._replace(adapter_optimizer=())
    jaxpr = jax.make_jaxpr(federated_round, static_argnums=3)(
        jax.random.key(0), state, jnp.asarray(MASKS["one"], bool), scheme, learning_params, world
    )
    primitives = [equation.primitive.name for equation in jaxpr.jaxpr.eqns]
    assert primitives.count("while") == 1  # a trip count known at run time only
    assert "scan" not in primitives
    assert "dot_general" not in primitives  # no forward pass outside the loop


def test_a_round_without_devices_takes_no_time(scheme, learning_params, world):
    """XLA may not move the training of a group out of the loop, where it would always run."""
    scheme = with_copies(scheme, heads="shared", local_steps=200, devices_per_step=6)
    state = init_learning(jax.random.key(1), scheme, learning_params, world)

    def seconds(mask):
        taken = []
        for _ in range(4):  # the first compiles
            begin = time.perf_counter()
            jax.block_until_ready(
                jitted_round(jax.random.key(0), state, mask, scheme, learning_params, world)
            )
            taken.append(time.perf_counter() - begin)
        return min(taken)

    assert seconds(jnp.zeros(6, bool)) < 0.2 * seconds(jnp.ones(6, bool))


@pytest.mark.parametrize("per_device", [False, True])
def test_backbone_is_never_copied_per_device(per_device, state, scheme, learning_params, world):
    """Nothing that the round computes has a device axis in front of a backbone weight's shape."""
    scheme = dataclasses.replace(scheme, devices_per_step=5)
    if per_device:
        lora = dataclasses.replace(scheme.model.lora, targets=("query", "mlp_in"))
        scheme = dataclasses.replace(scheme, model=scheme.model.clone(lora=lora))
        scheme = with_copies(scheme, local_steps=2)
        state = init_learning(jax.random.key(1), scheme, learning_params, world)
    everyone = jnp.ones(6, bool)
    program = jitted_round.lower(
        jax.random.key(0), state, everyone, scheme, learning_params, world
    ).compile()
    text = program.as_text()
    kernel = world.backbone["blocks"]["mlp_in"]["weight"]
    assert kernel.shape == (2, 16, 8)
    assert "f32[2,16,8]" in text
    for copies in ("5,2,16,8", "2,5,16,8", "5,16,8", "6,2,16,8", "2,6,16,8", "6,16,8"):
        assert f"f32[{copies}]" not in text


def test_chunks_do_not_change_the_run(scheme, learning_params, world):
    """Two chunks of two rounds equal one chunk of four; empty rows are padding."""
    masks = jnp.asarray(list(MASKS.values()), bool)
    key = jax.random.key(5)

    def fresh():
        return init_learning(jax.random.key(1), scheme, learning_params, world)

    whole, info, _ = run_chunk(key, fresh(), masks, jnp.int32(0), scheme, learning_params, world)
    half, first, _ = run_chunk(
        key, fresh(), masks[:2], jnp.int32(0), scheme, learning_params, world
    )
    half, second, _ = run_chunk(key, half, masks[2:], jnp.int32(2), scheme, learning_params, world)
    chex.assert_trees_all_close(whole, half, **after_rounds(half, scheme, rounds=4))
    losses = np.concatenate([first.loss, second.loss])
    np.testing.assert_allclose(info.loss, losses, **after_rounds(losses, scheme, rounds=4))

    padded = jnp.concatenate([masks, jnp.zeros_like(masks)])
    same, _, _ = run_chunk(key, fresh(), padded, jnp.int32(0), scheme, learning_params, world)
    chex.assert_trees_all_close(whole, same, **after_rounds(same, scheme, rounds=4))


def test_vmap_over_seeds_equals_a_loop(scheme, learning_params, world):
    keys = jax.random.split(jax.random.key(0), 3)
    masks = jnp.asarray([MASKS["all"], MASKS["one"], MASKS["three"]], bool)

    def one(key, mask):
        state = init_learning(key, scheme, learning_params, world)
        return federated_round(key, state, mask, scheme, learning_params, world)

    batched = jax.jit(jax.vmap(one))(keys, masks)
    for i in range(3):
        single = jax.jit(one)(keys[i], masks[i])
        of_seed = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        chex.assert_trees_all_close(of_seed, single, **after_rounds(single, scheme))


def test_one_trace_for_all_numbers(scheme, world):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def one(key, mask, params):
        state = init_learning(key, scheme, params, world)
        return federated_round(key, state, mask, scheme, params, world)

    for seed, rate, mask in ((0, 0.1, "all"), (1, 0.5, "one"), (2, 0.0, "three")):
        params = LearningParams(jnp.float32(rate), jnp.float32(rate))
        one(jax.random.key(seed), jnp.asarray(MASKS[mask], bool), params)


def test_payload_counts_what_crosses_the_link(scheme, world):
    """Up B·S·D + B·D, down B·D values of 32 bit: S = 4 patches + CLS, D = 8, B = 4."""
    sent = payload(scheme, world)
    assert sent.up_bits == 32 * (4 * 5 * 8 + 4 * 8)
    assert sent.down_bits == 32 * 4 * 8
    assert sent.total_bits == sent.up_bits + sent.down_bits
    thrice = payload(with_copies(scheme, local_steps=3), world)
    assert thrice.total_bits == 3 * sent.total_bits
