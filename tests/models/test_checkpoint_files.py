"""Bad checkpoints are told by file, tensor and remedy, and none of them is executed."""

import json
import os
import pickle
import struct
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import load_file, save_file
from tolerances import within

from jaxsplit.models import (
    CheckpointError,
    LoraConfig,
    by_block,
    checkpoint_files,
    from_pretrained,
)
from jaxsplit.models.positions import resize_positions

WIDTH, HIDDEN, BLOCKS = 4, 8, 1
BERT = {
    "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2, "intermediate_size": HIDDEN, "vocab_size": 9,
    "max_position_embeddings": 6, "type_vocab_size": 2, "hidden_act": "gelu",
}  # fmt: skip
VIT = {
    "model_type": "vit", "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2, "intermediate_size": HIDDEN, "image_size": 4, "patch_size": 2,
    "num_channels": 3,
}  # fmt: skip


def dense(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def bert_shapes():
    """The published names, written out by hand."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (9, WIDTH),
        "bert.embeddings.position_embeddings.weight": (6, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        **norm("bert.embeddings.LayerNorm"),
    }
    for i in range(BLOCKS):
        block = f"bert.encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{block}.attention.{name}", WIDTH, WIDTH)
        shapes |= norm(f"{block}.attention.output.LayerNorm")
        shapes |= dense(f"{block}.intermediate.dense", HIDDEN, WIDTH)
        shapes |= dense(f"{block}.output.dense", WIDTH, HIDDEN)
        shapes |= norm(f"{block}.output.LayerNorm")
    return shapes | dense("bert.pooler.dense", WIDTH, WIDTH) | dense("classifier", 3, WIDTH)


def vit_shapes():
    shapes = {
        "vit.embeddings.cls_token": (1, 1, WIDTH),
        "vit.embeddings.position_embeddings": (1, 5, WIDTH),
        "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, 2, 2),
        "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
        **norm("vit.layernorm"),
    }
    for i in range(BLOCKS):
        block = f"vit.encoder.layer.{i}"
        for name in ("attention.query", "attention.key", "attention.value", "output.dense"):
            shapes |= dense(f"{block}.attention.{name}", WIDTH, WIDTH)
        shapes |= norm(f"{block}.layernorm_before") | norm(f"{block}.layernorm_after")
        shapes |= dense(f"{block}.intermediate.dense", HIDDEN, WIDTH)
        shapes |= dense(f"{block}.output.dense", WIDTH, HIDDEN)
    return shapes | dense("classifier", 3, WIDTH)


def random_tensors(shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def bert(tmp_path):
    return write(tmp_path / "bert", BERT, random_tensors(bert_shapes()))


@pytest.fixture
def vit(tmp_path):
    return write(tmp_path / "vit", VIT, random_tensors(vit_shapes()))


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(folder, *words, **options):
    """The error is one line that holds all the words."""
    with pytest.raises(CheckpointError) as caught:
        from_pretrained(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# -- what is read ----------------------------------------------------------------------------------


def test_tensors_arrive_where_they_belong(bert):
    checkpoint, tensors = from_pretrained(bert), load_file(bert / "model.safetensors")
    block = by_block(checkpoint.params)["blocks_0"]
    prefix = "bert.encoder.layer.0"
    for ours, theirs in (
        (block["attention"]["key"]["weight"], f"{prefix}.attention.self.key.weight"),
        (block["mlp_in"]["bias"], f"{prefix}.intermediate.dense.bias"),
        (block["mlp_norm"]["scale"], f"{prefix}.output.LayerNorm.weight"),
        (checkpoint.head["params"]["out"]["kernel"].T, "classifier.weight"),
    ):
        np.testing.assert_array_equal(ours, tensors[theirs])
    assert checkpoint.label_names == ("LABEL_0", "LABEL_1")
    assert checkpoint.name == str(bert)


def test_patches_are_read_as_pixels_then_channels(vit):
    """A convolution's [D, C, P, P] becomes [D, P·P·C]."""
    kernel = load_file(vit / "model.safetensors")[
        "vit.embeddings.patch_embeddings.projection.weight"
    ]
    ours = from_pretrained(vit).params["patch_embedding"]["weight"]
    patch = np.random.default_rng(1).normal(size=(2, 2, 3))
    expected = np.einsum("dchw,hwc->d", kernel, patch)
    found = ours @ patch.reshape(-1).astype(np.float32)
    np.testing.assert_allclose(found, expected, **within(expected, patch.size))


def test_old_names_of_normalisations(bert):
    """The first BERT files say gamma and beta."""

    def rename(tensors):
        for name in [n for n in tensors if "LayerNorm" in n]:
            new = name.replace("weight", "gamma").replace("bias", "beta")
            tensors[new] = tensors.pop(name)

    expected = from_pretrained(bert).params
    change_tensors(bert, rename)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(bert).params, expected)


def test_newer_names_of_a_vit(vit):
    """Transformers 5 calls the parts by these names; both kinds of files are read."""

    def rename(tensors):
        for old, new in (
            ("encoder.layer.", "layers."),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ):
            for name in [n for n in tensors if old in n]:
                tensors[name.replace(old, new)] = tensors.pop(name)
        assert "vit.layers.0.attention.q_proj.weight" in tensors

    expected = from_pretrained(vit).params
    change_tensors(vit, rename)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(vit).params, expected)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files(bert, dtype):
    """Each narrow number is a float32 exactly."""
    narrow = random_tensors(bert_shapes(), dtype)
    save_file(narrow, bert / "model.safetensors")
    params = from_pretrained(bert).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.float32.dtype}
    np.testing.assert_array_equal(
        params["pooler"]["weight"], narrow["bert.pooler.dense.weight"].astype(np.float32)
    )


def test_weights_may_be_kept_in_bfloat16(bert):
    params = from_pretrained(bert, param_dtype=jnp.bfloat16).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.bfloat16.dtype}


def test_buffers_and_heads_of_pretraining_are_passed_over(bert):
    def add(tensors):
        tensors["bert.embeddings.position_ids"] = np.arange(6)[None]
        tensors["cls.predictions.bias"] = np.zeros(9, np.float32)
        tensors["cls.seq_relationship.weight"] = np.zeros((2, WIDTH), np.float32)

    change_tensors(bert, add)
    from_pretrained(bert)


def shard(folder, parts=3):
    """The weights in shards with an index, as large checkpoints come."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for k in range(parts):
        file = f"model-{k + 1:05}-of-{parts:05}.safetensors"
        held = names[k::parts]
        save_file({name: tensors[name] for name in held}, folder / file)
        places |= dict.fromkeys(held, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, places


def test_shards_are_read(bert):
    expected = from_pretrained(bert).params
    shard(bert)
    jax.tree.map(np.testing.assert_array_equal, from_pretrained(bert).params, expected)


# -- damaged files ---------------------------------------------------------------------------------


def test_missing_tensors(bert):
    name = "encoder.layer.0.output.dense.bias"
    change_tensors(bert, lambda t: t.pop(f"bert.{name}"))
    refused(bert, str(bert), "1 of 23 tensors are missing", name)


def test_extra_tensors(bert):
    """A block too many would be silently dropped otherwise."""
    name = "encoder.layer.1.output.dense.bias"
    change_tensors(bert, lambda t: t.update({f"bert.{name}": np.zeros(WIDTH, np.float32)}))
    refused(bert, str(bert), "1 tensors that config.json knows nothing of", name, "remove them")


@pytest.mark.parametrize("name", ["pooler.dense.weight", "embeddings.word_embeddings.weight"])
def test_wrong_shapes(bert, name):
    change_tensors(bert, lambda t: t.update({f"bert.{name}": np.zeros((5, 3), np.float32)}))
    refused(bert, str(bert), name, "(5, 3)", "do not belong together")


def test_a_head_of_another_shape(bert):
    """The head is the checkpoint's own: its width must be the backbone's."""
    change_tensors(bert, lambda t: t.update({"classifier.weight": np.zeros((3, 5), np.float32)}))
    refused(bert, "classifier.weight", "(3, 5)")


def test_a_head_without_bias(bert):
    change_tensors(bert, lambda t: t.pop("classifier.bias"))
    assert from_pretrained(bert).head is None


def test_no_pooler(bert):
    def remove(tensors):
        del tensors["bert.pooler.dense.weight"], tensors["bert.pooler.dense.bias"]

    change_tensors(bert, remove)
    refused(bert, "pooler.dense", "choose pooling='cls' or 'mean'")
    assert from_pretrained(bert, pooling="mean").model.pooling == "mean"


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(bert, kept):
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(bert, str(path), "damaged or cut short", "get it again")


def test_a_header_longer_than_the_file(bert):
    path = bert / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(bert, str(path), "damaged or cut short")


def test_missing_shard(bert):
    _, places = shard(bert)
    lost = bert / next(iter(places.values()))
    lost.unlink()
    refused(bert, str(lost), "is missing", "index.json names it")


def test_a_tensor_that_no_shard_holds(bert):
    index, places = shard(bert)
    promised = {"weight_map": places | {"bert.extra": next(iter(places.values()))}}
    index.write_text(json.dumps(promised))
    refused(bert, str(index), "promises 'bert.extra'", "no shard holds")


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_shards_outside_the_folder(bert, place):
    index, places = shard(bert)
    index.write_text(json.dumps({"weight_map": places | {"bert.extra": place}}))
    refused(bert, str(index), repr(place))


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 3}}])
def test_an_index_of_another_form(bert, content):
    index, _ = shard(bert)
    index.write_text(json.dumps(content))
    refused(bert, str(index), "no weight_map")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_a_pickle_is_never_executed(bert, tmp_path):
    (bert / "model.safetensors").unlink()
    sprung = tmp_path / "sprung"
    weights = bert / "pytorch_model.bin"
    weights.write_bytes(pickle.dumps(Trap(sprung)))
    refused(bert, str(bert), "pytorch_model.bin", "never executed", "save_pretrained")
    assert not sprung.exists()
    pickle.loads(weights.read_bytes())
    assert sprung.read_text() == "executed"  # the trap was armed


def test_no_weights(bert):
    (bert / "model.safetensors").unlink()
    refused(bert, str(bert), "holds no model.safetensors", "right folder")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b'{"model_type": "bert",', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1, 2]", "no JSON object"),
        (None, "is missing"),
    ],
)
def test_damaged_configuration(bert, content, word):
    path = bert / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    refused(bert, str(path), word)


# -- what is not supported -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "gpt2"}, ["model_type='gpt2' is not supported", "bert, distilbert"]),
        ({"model_type": "deit"}, ["model_type='deit'", "distillation token"]),
        ({"model_type": None}, ["model_type=None"]),
        ({"is_decoder": True}, ["is_decoder=True", "only encoders"]),
        ({"position_embedding_type": "relative_key"}, ["relative_key", "only 'absolute'"]),
        ({"hidden_act": "mish"}, ["hidden_act='mish'", "gelu, gelu_new"]),
        ({"num_attention_heads": 3}, ["3", "divide"]),
        ({"num_hidden_layers": 2}, ["16 of 39 tensors are missing", "encoder.layer.1."]),
        ({"intermediate_size": 9}, ["(8, 4)", "(9, 4)"]),
        ({"max_position_embeddings": 7}, ["position_embeddings", "(7, 4)"]),
        ({"hidden_size": "wide"}, ["hidden_size"]),
    ],
)  # fmt: skip
def test_configurations_that_no_backbone_fits(bert, fields, words):
    change_config(bert, **fields)
    refused(bert, str(bert), *words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"patch_size": [2, 1]}, ["patch_size", "only square patches"]),
        ({"pooler_act": "relu"}, ["pooler_act='relu'"]),
        ({"patch_size": 4}, ["(4, 12)", "(4, 48)", "patch_embeddings"]),
        ({"patch_size": 0}, ["config.json"]),
        ({"image_size": 8}, ["position_embeddings", "(1, 17, 4)"]),
        ({"num_channels": 1}, ["patch_embeddings"]),
    ],
)  # fmt: skip
def test_images_that_no_backbone_fits(vit, fields, words):
    change_config(vit, **fields)
    refused(vit, str(vit), *words)


def test_a_list_of_equal_sides_is_a_square_patch(vit):
    change_config(vit, patch_size=[2, 2], image_size=[4, 4])
    assert from_pretrained(vit).model.patch_size == 2


def test_positions_at_another_size(vit):
    assert from_pretrained(vit, image_size=6).params["position_embedding"].shape == (1, 10, WIDTH)
    for size in (0, 1, 5):
        with pytest.raises(ValueError, match=f"image_size={size}: .* multiple of its patch_size=2"):
            from_pretrained(vit, image_size=size)
    with pytest.raises(ValueError, match="side=0: the image is smaller than a patch"):
        resize_positions(np.zeros((1, 5, WIDTH), np.float32), 0)
    with pytest.raises(ValueError, match="6 positions are no square grid"):
        resize_positions(np.zeros((1, 7, WIDTH), np.float32), 3)


def test_unknown_choices(bert):
    with pytest.raises(ValueError, match=r"pooling='max': choose one of pooler, cls, mean"):
        from_pretrained(bert, pooling="max")
    model = from_pretrained(bert, pooling="mean").model
    with pytest.raises(ValueError, match=r"has no pooler; choose some of query"):
        model.with_adapters(LoraConfig(targets=("query", "pooler")))


def test_too_many_tokens(bert):
    checkpoint = from_pretrained(bert)
    with pytest.raises(ValueError, match=r"7 tokens: this checkpoint has positions for 6"):
        checkpoint.model.apply(
            {"params": checkpoint.params}, {"input_ids": jnp.ones((1, 7), jnp.int32)}
        )


# -- where a checkpoint is looked for --------------------------------------------------------------


def test_nothing_found(tmp_path, monkeypatch):
    """Neither folder nor cache nor hub, which no test asks: the message lists all three."""
    asked = []

    def nothing(name, **options):
        asked.append((name, options["local_files_only"]))
        raise LocalEntryNotFoundError("no network\nand more lines")

    monkeypatch.setattr(checkpoint_files, "snapshot_download", nothing)
    refused("some/model", "'some/model'", "the folder some/model", "cache", "hub", "no network")
    assert asked == [("some/model", True), ("some/model", False)]
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere"), "config.json")
    refused("a/b/c", "a/b/c")
    assert len(asked) == 2  # a path is no name on the hub


def test_only_json_and_safetensors_are_asked_of_the_hub(bert, monkeypatch):
    def download(name, *, revision, allow_patterns, local_files_only):
        assert (name, revision) == ("some/model", "v1")
        assert not [p for p in allow_patterns if p.endswith((".bin", ".pt", ".py"))]
        return os.fspath(bert)

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    assert from_pretrained("some/model", revision="v1").name == "some/model"
    assert callable(huggingface_hub.snapshot_download)


def test_a_name_is_looked_for_in_the_users_folder_of_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.setenv("JAXSPLIT_MODELS", str(tmp_path / "models"))
    assert checkpoint_files.find_checkpoint("mine") == tmp_path / "models" / "mine"
    with pytest.raises(CheckpointError, match=r"looked in the folder other; the folder .*other"):
        checkpoint_files.find_checkpoint("other")
    (tmp_path / "mine").mkdir()  # a folder at hand goes first
    assert str(checkpoint_files.find_checkpoint("mine")) == "mine"
