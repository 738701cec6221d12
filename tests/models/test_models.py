"""The backbones against NumPy twins, and the shortcut of the last block."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, ndtr
from tolerances import GRADIENT, roundings, within

from jaxsplit.models import LoraConfig, ViT
from jaxsplit.models.base import POOLINGS
from jaxsplit.models.transformer import LayerNorm, gelu

# -- the twins: float64, one input at a time, no padding because there is nothing to pad to --------


def dense(x, layer, adapter, lora):
    y = x @ layer["weight"].T + layer["bias"]
    if adapter is not None:
        y = y + lora.alpha / lora.rank * (x @ adapter["a"].T @ adapter["b"].T)
    return y


def norm(x, layer, epsilon):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return scaled * layer["scale"] + layer["bias"]


def attention(x, layer, adapter, model):
    q, k, v = (dense(x, layer[n], adapter[n], model.lora) for n in ("query", "key", "value"))
    width = x.shape[-1] // model.num_attention_heads
    heads = []
    for h in range(model.num_attention_heads):
        columns = slice(h * width, (h + 1) * width)
        logits = q[:, columns] @ k[:, columns].T / math.sqrt(width)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, columns])
    name = "attention_output"
    return dense(np.concatenate(heads, -1), layer[name], adapter[name], model.lora)


def perceptron(x, layer, adapter, model):
    hidden = dense(x, layer["mlp_in"], adapter["mlp_in"], model.lora)
    hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
    return dense(hidden, layer["mlp_out"], adapter["mlp_out"], model.lora)


def pool(x, params, adapters, model):
    if model.pooling == "mean":
        return x.mean(0)
    if model.pooling == "cls":
        return x[0]
    return np.tanh(dense(x[0], params["pooler"], adapters["pooler"], model.lora))


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def numpy_vit(case):
    model, params, adapters = case.model, in_float64(case.params), in_float64(case.adapters)
    side, epsilon = model.patch_size, model.layer_norm_eps
    features = []
    for image in np.asarray(case.inputs, np.float64):
        patches = [
            image[i : i + side, j : j + side].reshape(-1)
            for i in range(0, image.shape[0], side)
            for j in range(0, image.shape[1], side)
        ]
        x = dense(np.array(patches), params["patch_embedding"], None, None)
        x = np.concatenate([params["cls_token"][0], x]) + params["position_embedding"][0]
        for i in range(model.num_hidden_layers):
            layer, adapter = params[f"blocks_{i}"], adapters[f"blocks_{i}"]
            seen = norm(x, layer["attention_norm"], epsilon)
            x = x + attention(seen, layer["attention"], adapter["attention"], model)
            x = x + perceptron(norm(x, layer["mlp_norm"], epsilon), layer, adapter, model)
        features.append(pool(norm(x, params["norm"], epsilon), params, adapters, model))
    return np.array(features)


def numpy_bert(case):
    model, params, adapters = case.model, in_float64(case.params), in_float64(case.adapters)
    epsilon = model.layer_norm_eps
    features = []
    for ids, mask, types in zip(
        *(
            np.asarray(case.inputs[name])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ),
        strict=True,
    ):
        length = mask.sum()  # the padding is cut off
        position = np.arange(length) + (model.first_position or 0)
        x = (
            params["word_embedding"][ids[:length]]
            + params["position_embedding"][position]
            + params["type_embedding"][types[:length]]
        )
        x = norm(x, params["embedding_norm"], epsilon)
        for i in range(model.num_hidden_layers):
            layer, adapter = params[f"blocks_{i}"], adapters[f"blocks_{i}"]
            x = x + attention(x, layer["attention"], adapter["attention"], model)
            x = norm(x, layer["attention_norm"], epsilon)
            x = norm(x + perceptron(x, layer, adapter, model), layer["mlp_norm"], epsilon)
        features.append(pool(x, params, adapters, model))
    return np.array(features)


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("vit", "pooler"), ("bert", "pooler"), ("bert", "mean"), ("roberta", "cls")],
)
def test_backbone_equals_its_numpy_twin(kind, pooling, case_of):
    case = case_of(kind, pooling)
    twin = numpy_vit if kind == "vit" else numpy_bert
    features = jax.jit(case.model.apply)(case.variables, case.inputs)
    expected = twin(case)
    np.testing.assert_allclose(features, expected, **within(expected, roundings(case.model)))


def test_masks_and_types_may_be_left_out(case_of):
    """All tokens count, all are of type 0."""
    case = case_of("bert", "mean")
    ids = case.inputs["input_ids"]
    spelled = {
        "input_ids": ids,
        "attention_mask": jnp.ones_like(ids),
        "token_type_ids": jnp.zeros_like(ids),
    }
    apply = jax.jit(case.model.apply)
    short, full = (apply(case.variables, inputs) for inputs in ({"input_ids": ids}, spelled))
    np.testing.assert_allclose(short, full, **within(full, roundings(case.model)))


def test_a_sequence_of_padding_alone_is_finite(case_of):
    case = case_of("bert", "mean")
    inputs = case.inputs | {"attention_mask": jnp.zeros_like(case.inputs["attention_mask"])}
    gradient = jax.jit(
        jax.grad(lambda a: jnp.sum(case.model.apply({"params": case.params, "lora": a}, inputs)))
    )(case.adapters)
    chex.assert_tree_all_finite(gradient)


# -- the last block reads one token ----------------------------------------------------------------


def test_last_block_for_one_token_is_the_whole_one(case):
    """`features` equals `pool(encode(...))` in values and in gradients of all adapters."""

    def full(module, inputs):
        return module.pool(module.encode(module.embed(inputs)))

    def run(adapters, pooling, method):
        model = case.model.clone(pooling=pooling)
        features = model.apply(case.variables | {"lora": adapters}, case.inputs, method=method)
        return jnp.sum(jnp.sin(features)), features

    @jax.jit
    def all_poolings(adapters):
        gradient = jax.grad(run, has_aux=True)
        return [[gradient(adapters, p, method) for p in POOLINGS] for method in (None, full)]

    ours, whole = all_poolings(case.adapters)
    for (gradient, features), (full_gradient, full_features) in zip(ours, whole, strict=True):
        bound = within(full_features, roundings(case.model))
        np.testing.assert_allclose(features, full_features, **bound)
        bound = within(full_gradient, roundings(case.model, GRADIENT))
        chex.assert_trees_all_close(gradient, full_gradient, **bound)


def test_last_block_for_one_token_is_cheaper(case_of):
    """Attention's output and the perceptron run on [B, 1, D] there."""
    case = case_of("vit", "cls")
    batch, tokens = 3, 7
    text = str(jax.make_jaxpr(case.model.apply)(case.variables, case.inputs))
    width = case.model.intermediate_size
    assert f"f32[{batch},{tokens},{width}]" in text  # the first block
    assert f"f32[{batch},1,{width}]" in text  # the last


@pytest.mark.usefixtures("optimized")
def test_remat_gives_the_same_gradient_in_less_memory(model, random_like):
    """With XLA's scheduler for memory: that for concurrency, a CPU's default, recomputes early."""
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if on_cpu else None
    deep = model.clone(num_hidden_layers=4, pooling="mean").with_adapters()
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype(np.float32)
    variables = random_like(jax.eval_shape(deep.init, jax.random.key(0), images))
    gradients, sizes = [], []
    for net in (deep, deep.clone(remat=True)):

        def loss(adapters, net=net):
            features = net.apply({"params": variables["params"], "lora": adapters}, images)
            return jnp.sum(jnp.sin(features))

        program = jax.jit(jax.grad(loss), compiler_options=options)
        program = program.lower(variables["lora"]).compile()
        gradients.append(program(variables["lora"]))
        sizes.append(program.memory_analysis().temp_size_in_bytes)
    bound = within(gradients[0], roundings(deep, GRADIENT))
    chex.assert_trees_all_close(*gradients, **bound)
    assert sizes[1] < 0.7 * sizes[0]


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.numerics
def test_gelu_equals_scipy():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-30, -1e-30, 1e4, -1e4]])
    x = x.astype(np.float32)
    value, derivative = jax.jit(lambda x: jax.jvp(gelu, (x,), (jnp.ones_like(x),)))(x)
    wide = x.astype(np.float64)
    eps = np.finfo(np.float32).eps
    # Backward error: Φ's absolute error is a rounding, so that of x·Φ is a rounding of x.
    assert np.all(np.abs(value - wide * ndtr(wide)) <= 2 * eps * np.abs(wide))
    density = np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(derivative, ndtr(wide) + wide * density, rtol=0, atol=4 * eps)


@pytest.mark.numerics
def test_layer_norm_of_a_large_mean_keeps_its_digits():
    """The mean goes first: E[x²] − E[x]² would lose everything here."""
    x = 1e4 + np.random.default_rng(0).normal(size=(3, 64))
    x32 = jnp.asarray(x, jnp.float32)
    variables = {"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}
    wide = np.asarray(x32, np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    bound = within(expected, x.shape[-1], scale=1e4)  # the terms of the mean
    np.testing.assert_allclose(LayerNorm().apply(variables, x32), expected, **bound)


def test_bfloat16_stays_near_float32(case):
    """Rounding of the computation's dtype alone; the features come as float32."""
    exact = jax.jit(case.model.apply)(case.variables, case.inputs)
    narrow = jax.jit(case.model.clone(dtype=jnp.bfloat16).apply)(case.variables, case.inputs)
    assert narrow.dtype == jnp.float32
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    # About ten roundings per block, which add up like independent errors; a margin of three.
    depth = 10 * case.model.num_hidden_layers
    error = np.sqrt(np.mean((np.asarray(narrow) - np.asarray(exact)) ** 2))
    assert 0 < error < 3 * math.sqrt(depth) * eps / 2


# -- wrong values ----------------------------------------------------------------------------------


def test_wrong_shapes_are_named(model, case_of):
    with pytest.raises(ValueError, match="patch_size=2 must divide the image size 5×4"):
        model.init(jax.random.key(0), jnp.zeros((1, 5, 4, 1)))
    with pytest.raises(ValueError, match="num_heads=3 must divide the width 8"):
        model.clone(num_attention_heads=3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="rank=0"):
        LoraConfig(rank=0)
    with pytest.raises(ValueError, match=r"pooling='max': choose one of pooler, cls, mean"):
        model.clone(pooling="max").init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize(("kind", "capacity"), [("bert", 12), ("roberta", 10)])
def test_more_tokens_than_positions(kind, capacity, case_of):
    """RoBERTa's first two positions belong to padding."""
    case = case_of(kind)
    ids = jnp.full((1, capacity + 1), 3, jnp.int32)
    jax.eval_shape(case.model.apply, case.variables, {"input_ids": ids[:, :-1]})
    with pytest.raises(ValueError, match=rf"{capacity + 1} tokens: .* positions for {capacity}"):
        case.model.apply(case.variables, {"input_ids": ids})


def test_fields_are_keywords():
    with pytest.raises(TypeError):
        ViT(2, 8, 2, 2, 16)
