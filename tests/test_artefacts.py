"""Weights and card of a run: kept exactly, averaged as the evaluation does, checked when read."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tolerances import within

from jaxsplit.artefacts import (
    ArtefactError,
    RunCard,
    Weights,
    load_card,
    load_weights,
    mean_head,
    save_card,
    save_weights,
    weights_path,
)
from jaxsplit.federated import LearningState, evaluate
from jaxsplit.federated.evaluate import test_features as features_of
from jaxsplit.models import LoraConfig

PARTICIPATION = [0, 1, 3, 0, 2, 0]
CARD = RunCard(
    checkpoint="some/model",
    pooling="mean",
    image_size=None,
    lora=LoraConfig(rank=3, alpha=5.5, targets=("query", "mlp_out"), dropout=0.1),
    task="classification",
    num_outputs=3,
    label_names=("no", "maybe", "yes"),
    policies=("all_in", "greedy"),
    seeds=2,
    configuration={"rounds": 5, "out": "somewhere"},
)


@pytest.fixture
def state():
    """A state of six devices in which every head differs."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return LearningState(
        adapters={"blocks_0": {"query": {"a": draw(2, 8), "b": draw(8, 2)}}},
        adapter_optimizer=(),
        heads={"params": {"out": {"kernel": draw(6, 8, 3), "bias": draw(6, 3)}}},
        head_optimizers=(),
        participation=jnp.array(PARTICIPATION, jnp.int32),
    )


def test_weights_come_back_bit_for_bit(state, tmp_path):
    path = weights_path(tmp_path, "greedy", 1)
    save_weights(path, state)
    weights = load_weights(tmp_path, "greedy", 1)
    for name in Weights._fields:
        left, right = getattr(state, name), getattr(weights, name)
        left, right = ({"": left}, {"": right}) if name == "participation" else (left, right)
        left, right = flatten_dict(left), flatten_dict(right)
        assert left.keys() == right.keys()
        for key, leaf in left.items():
            assert leaf.dtype == right[key].dtype
            np.testing.assert_array_equal(leaf, right[key])
    assert [file.name for file in path.parent.iterdir()] == ["greedy-seed1.safetensors"]


@pytest.mark.parametrize("participation", [PARTICIPATION, [0] * 6])
def test_the_mean_head_is_that_of_the_evaluation(participation, state, scheme, world):
    """Weighted by participation, and the plain mean before any."""
    state = state._replace(participation=jnp.array(participation, jnp.int32))
    head = mean_head(Weights(state.adapters, state.heads, state.participation))
    total = sum(participation)
    shares = np.array(participation) / total if total else np.full(6, 1 / 6)
    expected = jax.tree.map(lambda leaf: np.tensordot(shares, np.float64(leaf), 1), state.heads)
    jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, **within(pair[1], 6)), head, expected
    )
    adapters = jax.eval_shape(scheme.model.init, jax.random.key(0), world.inputs)["lora"]
    adapters = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), adapters)

    @jax.jit
    def scores(state, head):
        outputs = scheme.head.apply(head, features_of(adapters, scheme, world))
        score = scheme.task.metric(outputs, world.test_labels)
        return score, evaluate(state, scheme, world).score_mean_head

    np.testing.assert_allclose(*scores(state._replace(adapters=adapters), head), rtol=1e-6)


def test_a_card_comes_back_equal(tmp_path):
    save_card(tmp_path / "new" / "folder", CARD)
    assert load_card(tmp_path / "new" / "folder") == CARD
    vit = dataclasses.replace(CARD, image_size=48, pooling="cls", label_names=())
    save_card(tmp_path, vit)
    assert load_card(tmp_path) == vit
    all_weights = dataclasses.replace(CARD, lora=None)
    save_card(tmp_path / "full", all_weights)
    assert load_card(tmp_path / "full") == all_weights
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["jaxsplit"]  # the version
    (tmp_path / "run.json").write_text(json.dumps(content | {"new in a later version": 1}))
    assert load_card(tmp_path) == vit


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("policies"),
        lambda content: content.pop("lora"),
        lambda content: content["lora"].pop("targets"),
        lambda content: content["lora"].update(rank=0),
        lambda content: content["lora"].update(targets=["head"]),
        lambda content: content["lora"].update(colour="red"),
        lambda content: content.update(lora=[]),
        lambda content: content.update(policies=None),
        lambda content: content.update(policies=[]),
        lambda content: content.update(seeds="two"),
    ],
)
def test_a_damaged_card_is_told(change, tmp_path):
    save_card(tmp_path, CARD)
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=r"run.json is damaged \(.*\): run again"):
        load_card(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"3", b'"text"', b"\xff\xfe"])
def test_a_card_that_is_no_card_is_told(raw, tmp_path):
    (tmp_path / "run.json").write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"run.json is damaged"):
        load_card(tmp_path)


def test_missing_files_are_told(state, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ArtefactError, match=r"run.json is missing: give the --out folder"):
            load_card(place)
        with pytest.raises(ArtefactError, match=r"all_in-seed0.safetensors is missing: did the"):
            load_weights(place, "all_in", 0)


def test_damaged_weights_are_told(state, tmp_path):
    path = weights_path(tmp_path, "all_in", 0)
    save_weights(path, state)
    whole = path.read_bytes()
    for raw in (whole[:-10], whole[:5], b"", b"\xff" * 100):
        path.write_bytes(raw)
        with pytest.raises(ArtefactError, match=r"all_in-seed0.safetensors is damaged"):
            load_weights(tmp_path, "all_in", 0)
    from safetensors.numpy import save_file

    save_file({"adapters/a": np.zeros(3, np.float32)}, path)  # sound, but not of a run
    with pytest.raises(ArtefactError, match=r"is damaged \('heads'\)"):
        load_weights(tmp_path, "all_in", 0)
