"""Adapter uploads through a codec, with error feedback."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_round as reference
import xarray as xr
from tolerances import after_rounds, for_most_keys, within

import jaxsplit
from jaxsplit import compression
from jaxsplit.checkpoint import Checkpointing
from jaxsplit.commands.device_limits import device_bytes
from jaxsplit.compression import CodecParams
from jaxsplit.costs import wide_value
from jaxsplit.data import Dataset
from jaxsplit.federated import (
    LearningParams,
    UploadError,
    federated_round,
    fedft,
    fl_full,
    fl_lora,
    init_learning,
    payload,
    sft,
    sft_uncompressed,
    sl,
    upload_length,
)
from jaxsplit.federated.upload import Change, as_vector, init_residuals, upload
from jaxsplit.models import LoraConfig, by_block
from jaxsplit.network import Network
from jaxsplit.observer import Observer
from jaxsplit.scheduling import all_in
from jaxsplit.wireless import fixed_snr

jitted_round = jax.jit(federated_round, static_argnames="scheme")

LORA = LoraConfig(rank=2, alpha=4.0, init_std=0.3, targets=("query", "mlp_in"), per_device=True)
SMALL = {"lora": LORA, "batch_size": 4, "devices_per_step": 2, "schedule": None}
TOP_K = {"upload_codec": compression.top_k(), "error_feedback": True}
BLOCK, HEAD = 2 * ((8 + 8) + (8 + 16)), 8 * 3 + 3  # adapters of query and mlp_in; the head
SCHEMES = {
    "sft": lambda model: sft(
        model, 3, cut=1, codec=compression.identity(), local_steps=2, **SMALL, **TOP_K
    ),
    "fl_lora": lambda model: fl_lora(model, 3, **SMALL, **TOP_K),
    "fedft": lambda model: fedft(
        model, 3, cut=1, upload_codec=compression.top_k_quantization(), error_feedback=True, **SMALL
    ),
}
UPLOADED = {"sft": BLOCK, "fl_lora": 2 * BLOCK + HEAD, "fedft": BLOCK}
MASKS = np.array([[1, 0, 1, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1]], bool)


@functools.cache
def compiled(gradient):
    """A gradient of the plain loop; its scheme is static."""
    return jax.jit(gradient, static_argnums=4)


@pytest.fixture
def model(model):
    """With a large ε: of a token without any kept entry LayerNorm's slope is 1/√ε."""
    return model.clone(layer_norm_eps=0.1)


def params_at(ratio, levels=7.0):
    numbers = CodecParams(jnp.float32(ratio), jnp.float32(levels))
    return LearningParams(jnp.float32(0.2), jnp.float32(0.1), None, numbers)


def start(scheme, world):
    """A state in which all adapters count, as after some training."""
    state = init_learning(jax.random.key(1), scheme, params_at(0.2), world)
    rng = np.random.default_rng(1)

    def noise(leaf):
        return leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype)

    return state._replace(adapters=jax.tree.map(noise, state.adapters))


@pytest.mark.parametrize("name", SCHEMES)
def test_three_rounds_equal_the_plain_loop(name, model, world):
    """Sets of devices change, slots are padded, some devices rest with what they owe."""
    for_most_keys(functools.partial(check_three_rounds, name=name, model=model, world=world))


def check_three_rounds(seed, name, model, world):
    scheme, params = SCHEMES[name](model), params_at(0.1)
    state = expected = start(scheme, world)
    assert state.residuals.shape == (6, UPLOADED[name])
    for t, mask in enumerate(MASKS):
        key = jax.random.key(10 * seed + t)
        last = state.residuals
        after = reference.reference_round(
            key, expected, mask, scheme, params, world, compiled, by_hand=False
        )
        heads = jax.tree.map(lambda *rows: jnp.stack(rows), *after.heads)
        states = after.head_optimizers
        if scheme.heads == "personal":
            states = jax.tree.map(lambda *rows: jnp.stack(rows), *states)
        expected = expected._replace(
            adapters=after.adapters, heads=heads, head_optimizers=states, residuals=after.residuals
        )
        state, info = jitted_round(key, state, jnp.asarray(mask), scheme, params, world)
        found = (state.adapters, state.heads, state.residuals)
        wanted = (expected.adapters, expected.heads, expected.residuals)
        chex.assert_trees_all_close(found, wanted, **after_rounds(wanted, scheme, t + 1))
        bound = after_rounds(after.device_loss, scheme, t + 1)
        np.testing.assert_allclose(info.device_loss, after.device_loss, **bound)
        assert wide_value(info.upload_bits).tolist() == after.upload_bits.tolist()
        assert ((after.upload_bits > 0) == mask).all()
        assert (np.any(state.residuals != last, axis=-1) == mask).all()
    assert np.abs(state.residuals).max() > 1e-3


def test_numbers_sweep_in_one_trace_and_keeping_all_is_no_codec(model, world):
    scheme = SCHEMES["fl_lora"](model)
    plain = dataclasses.replace(scheme, upload_codec=None, error_feedback=False)
    before = jitted_round._cache_size()
    ends, bits, mask = [], [], jnp.asarray(MASKS[0])
    for ratio in (0.1, 0.5, 1.0):
        state = start(scheme, world)
        for t in range(2):
            key = jax.random.key(t)
            state, info = jitted_round(key, state, mask, scheme, params_at(ratio), world)
        ends.append(state)
        bits.append(int(wide_value(info.upload_bits)[0]))
    assert jitted_round._cache_size() <= before + 1
    size = UPLOADED["fl_lora"]
    assert bits == [size + 32 * round(ratio * size) for ratio in (0.1, 0.5, 1.0)]
    lost = [float(jnp.abs(end.residuals).max()) for end in ends]
    assert lost[0] > lost[1] > 1e-4
    assert lost[2] == 0
    state = start(plain, world)
    assert state.residuals == ()
    for t in range(2):
        state, info = jitted_round(jax.random.key(t), state, mask, plain, params_at(1.0), world)
    for new, old in ((ends[2].adapters, state.adapters), (ends[2].heads, state.heads)):
        chex.assert_trees_all_close(new, old, **after_rounds(old, scheme, 2))
    assert (wide_value(info.upload_bits) == 0).all()


def changes(rng):
    """What some device's round might change."""

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    blocks = {"blocks": {"query": {"a": draw(2, 2, 8), "b": draw(2, 8, 2)}}}
    return Change(blocks, {"params": {"kernel": draw(8, 3), "bias": draw(3)}})


@pytest.mark.parametrize("codec", compression.CODECS)
def test_nothing_is_lost(codec, model):
    """The residual is all changes minus all that arrived; the bits are those of real streams."""
    codec = compression.CODECS[codec]()
    scheme = fl_lora(model, 3, **SMALL, upload_codec=codec, error_feedback=True)
    send = jax.jit(lambda key, change, owed: upload(key, change, owed, scheme, codec.params))
    rng = np.random.default_rng(0)
    change = changes(rng)
    owed = init_residuals(*change, scheme, 1)[0]
    wanted, arrived = np.zeros(owed.shape), np.zeros(owed.shape)
    for t in range(20):
        change, key = changes(rng), jax.random.key(t)
        row = (as_vector(change) + owed)[None]
        sent, owed, bits = send(key, change, owed)
        wanted += np.asarray(as_vector(change), np.float64)
        arrived += np.asarray(as_vector(sent), np.float64)
        if codec.encode is None:
            assert wide_value(bits) == codec.transmit(key, row, codec.params)[1]
        elif t % 10 == 1:
            (stream,) = codec.encode(key, row, codec.params)
            assert wide_value(bits) == 8 * len(stream)
    np.testing.assert_allclose(owed, wanted - arrived, **within(wanted, 2 * 20))
    assert (np.abs(owed).max() > 0.1) == (codec is not compression.identity())


def test_only_the_devices_half_is_sent(model):
    scheme = sft_uncompressed(model, 3, cut=1, **SMALL, upload_codec=compression.top_k())
    change = changes(np.random.default_rng(0))
    sent, owed, _ = upload(jax.random.key(0), change, (), scheme, CodecParams(0.25))
    assert owed == ()
    of_sent, of_change = by_block(sent.adapters), by_block(change.adapters)
    chex.assert_trees_all_equal(of_sent["blocks_1"], of_change["blocks_1"])
    chex.assert_trees_all_equal(sent.head, change.head)
    first, as_it_was = as_vector(of_sent["blocks_0"]), as_vector(of_change["blocks_0"])
    assert int((first != 0).sum()) == 8
    assert ((first == 0) | (first == as_it_was)).all()
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), change)
    sent, _, _ = upload(jax.random.key(0), narrow, (), scheme, CodecParams(0.25))
    chex.assert_trees_all_equal_shapes_and_dtypes(sent, narrow)


def test_payload_leaves_the_upload_to_the_codec(model, world):
    for name, make in SCHEMES.items():
        scheme = make(model)
        plain = dataclasses.replace(scheme, upload_codec=None, error_feedback=False)
        assert payload(plain, world).upload_bits == 32 * UPLOADED[name]
        assert payload(scheme, world) == payload(plain, world)._replace(upload_bits=0)


def test_a_run_charges_the_upload_and_resumes_to_the_same_bits(model, world, tmp_path):
    """Two seeds in one program, stopped when devices owe something."""
    scheme = fl_lora(
        model, 3, **SMALL, upload_codec=compression.quantization(), error_feedback=True
    )
    dataset = Dataset(*(np.asarray(a) for a in (world.inputs, world.labels) * 2))
    states = {}

    class Keep(Observer):
        def finished(self, seed, state):
            states.setdefault(seed, []).append(state)

    class Stop(Observer):
        def evaluated(self, seed, rounds, metrics):
            if rounds == 2 and seed == 1:
                raise KeyboardInterrupt

    def run(observer, checkpointing=None):
        return jaxsplit.run(
            (0, 1), Network(6, fixed_snr(), all_in()), scheme, world.backbone, dataset,
            num_rounds=3, evaluate_every=2, learning_params=params_at(0.1), seeds_at_once=2,
            observer=observer, checkpointing=checkpointing,
        )  # fmt: skip

    whole = run(Keep()).drop_vars(["compile_s", "run_s"])
    size = UPLOADED["fl_lora"]
    assert (whole.sent_up_bits == (1 + 3) * size + 64).all()
    assert (whole.sent_down_bits == 32 * size).all()
    assert (whole.uplink_s < whole.downlink_s).all()
    checkpointing = Checkpointing(tmp_path, every_s=0, keep=1)
    with pytest.raises(KeyboardInterrupt):
        run(Stop(), checkpointing)
    xr.testing.assert_identical(whole, run(Keep(), checkpointing).drop_vars(["compile_s", "run_s"]))
    for once, resumed in states.values():
        assert np.abs(once.residuals).max() > 0
        jax.tree.map(np.testing.assert_array_equal, once, resumed)


def test_error_feedback_helps_where_little_is_sent(model, world):
    """4 of 187 entries per upload: final training loss under three seeds, with and without."""
    scheme, params, mask = SCHEMES["fl_lora"](model), params_at(0.02), jnp.ones(6, bool)
    final = {}
    for each in (scheme, dataclasses.replace(scheme, error_feedback=False)):
        for seed in range(3):
            state = init_learning(jax.random.key(seed), each, params, world)
            losses = []
            for t in range(100):
                key = jax.random.fold_in(jax.random.key(10 + seed), t)
                state, info = jitted_round(key, state, mask, each, params, world)
                losses.append(info.loss)
            final.setdefault(each.error_feedback, []).append(np.mean(losses[-20:]))
    assert (np.array(final[True]) < 0.9 * np.array(final[False])).all(), final


def test_residuals_count_in_a_devices_memory(model, world):
    scheme = SCHEMES["sft"](model)
    row = init_learning(jax.random.key(0), scheme, LearningParams(), world).residuals[0]
    without = dataclasses.replace(scheme, error_feedback=False)
    needed = [device_bytes(each, "sgd", world, scheme.cut) for each in (scheme, without)]
    assert needed[0] - needed[1] == row.nbytes == 4 * upload_length(scheme, world) > 0


def test_impossible_choices_are_refused(model, world):
    codec = compression.compressed()
    with pytest.raises(ValueError, match=r"error_feedback=True without .*choose an upload_codec"):
        fl_lora(model, 3, error_feedback=True)
    with pytest.raises(ValueError, match=r"global adapters: .*per_device=True"):
        fedft(model, 3, upload_codec=codec)
    with pytest.raises(ValueError, match=r"order='sequential': .*choose order='parallel'"):
        sl(model, 3, cut=1, upload_codec=codec)
    with pytest.raises(ValueError, match=r"gradient='masked': .*choose gradient='identity'"):
        fl_lora(model, 3, upload_codec=compression.compressed("masked"))
    nothing = sft(model, 3, cut=0, lora=LORA, upload_codec=codec)
    with pytest.raises(UploadError, match=r"nothing with cut=0; choose a cut"):
        init_learning(jax.random.key(0), nothing, LearningParams(), world)
    huge = {"embedding": jax.ShapeDtypeStruct((2**13, 2**13), jnp.float32)}
    full = fl_full(model, 3, upload_codec=codec)
    with pytest.raises(UploadError, match=r"uploads 67,108,864 values.* 65,075,262 at most"):
        init_residuals(huge, {}, full, 2)
    largest = jax.ShapeDtypeStruct((65_075_262,), jnp.float32)
    assert init_residuals({"embedding": largest}, {}, full, 2) == ()
    for name in ("identity", "top_k"):  # the bits of the longest row still fit
        member = compression.CODECS[name]()
        row = jax.ShapeDtypeStruct((1, 65_075_262), jnp.float32)
        assert 33 * row.size <= np.iinfo(np.int32).max
        jax.eval_shape(lambda x, m=member: m.transmit(jax.random.key(0), x, CodecParams()), row)
