"""Low-rank adapters: both ways to multiply, dtypes, dropout, merging, counts."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import GRADIENT, roundings, within

from jaxsplit.models import Bert, LoraConfig, LoraDense, count, merge, unmerge
from jaxsplit.models.dense import Layer, merged_product, separate_product
from jaxsplit.models.lora import TARGETS, apply_dense

SCALE, RANK, WIDTH, OUT = 1.5, 2, 6, (5, 6, 7)
SUM_LENGTH = WIDTH + RANK + sum(OUT)  # the longest: the gradient of x, through all layers


def random(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def make_layers(has_adapter, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Layer(
            random(rng, out, WIDTH),
            None,
            random(rng, RANK, WIDTH) if adapted else None,
            random(rng, out, RANK) if adapted else None,
        )
        for out, adapted in zip(OUT, has_adapter, strict=True)
    ]


def plain(x, layers):
    """The formula; JAX derives the gradients of this one by itself."""
    outputs = [x @ (w.weight if w.a is None else w.weight + SCALE * (w.b @ w.a)).T for w in layers]
    return jnp.concatenate(outputs, axis=-1)


def merged(x, layers):
    return merged_product(x, layers, SCALE)


def separate(x, layers):
    return separate_product(x, [x] * len(layers), layers, SCALE)


# -- both products against the formula -------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize("product", [merged, separate])
@pytest.mark.parametrize(
    "has_adapter", [(True, True, True), (False, True, False), (False, False, False), (True,)]
)
def test_products_equal_the_formula(product, has_adapter):
    """Values and the gradients of x, W, A and B, for any mixture of layers."""
    rng = np.random.default_rng(1)
    layers = make_layers((*has_adapter,) + (False,) * (3 - len(has_adapter)))[: len(has_adapter)]
    x = random(rng, 2, 3, WIDTH)
    weights = random(rng, 2, 3, sum(OUT[: len(has_adapter)]))

    def loss(x, layers, product):
        y = product(x, layers)
        return jnp.sum(weights * jnp.sin(y)), y

    @jax.jit
    def both(x, layers):
        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        return gradient(x, layers, product), gradient(x, layers, plain)

    ours, expected = both(x, layers)
    chex.assert_trees_all_close(ours, expected, **within(expected, GRADIENT * SUM_LENGTH))


@pytest.mark.numerics
@pytest.mark.parametrize("product", [merged, separate])
@pytest.mark.parametrize("is_shared", [True, False])
def test_products_under_vmap(product, is_shared):
    """Devices with shared weights, and adapters shared or of their own, equal a loop."""
    rng = np.random.default_rng(2)
    layers = make_layers((True, False, True))
    x = random(rng, 4, 3, WIDTH)
    if not is_shared:
        layers = [
            w if w.a is None else w._replace(a=random(rng, 4, RANK, WIDTH), b=w.b) for w in layers
        ]
    axes = [Layer(None, None, None if is_shared or w.a is None else 0, None) for w in layers]

    def gradient(x, layers):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(product(x, w))), (0, 1))(x, layers)

    batched = jax.jit(jax.vmap(gradient, in_axes=(0, axes)))(x, layers)

    def of_device(n):
        own = [w if is_shared or w.a is None else w._replace(a=w.a[n]) for w in layers]
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(plain(x, w))), (0, 1))(x[n], own)

    looped = jax.jit(
        lambda: jax.tree.map(lambda *parts: jnp.stack(parts), *map(of_device, range(4)))
    )()
    chex.assert_trees_all_close(batched, looped, **within(looped, GRADIENT * SUM_LENGTH))


# -- dtypes, devices, dropout ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_update_below_the_rounding_of_the_weights_counts(dtype):
    """In bfloat16 1 + 10⁻⁴ is 1: W + ΔW would lose ΔW, with it every early step of training."""
    layer = LoraDense(1, LoraConfig(1, 1.0, ("query",)), use_bias=False, dtype=dtype, name="query")
    adapter = {"a": jnp.array([[1.0, -1.0]]), "b": jnp.array([[1e-4]])}
    x = jnp.array([[3.0, -3.0]])  # W x = 0, ΔW x = 6·10⁻⁴

    def output(b):
        variables = {"params": {"weight": jnp.ones((1, 2))}, "lora": adapter | {"b": b}}
        return layer.apply(variables, x)[0, 0].astype(jnp.float32)

    value, gradient = jax.value_and_grad(output)(adapter["b"])
    rounding = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(value, 6e-4, rtol=4 * max(rounding, 2e-4))
    np.testing.assert_allclose(gradient, [[6.0]], rtol=4 * rounding)


def gradient_program(case, per_device):
    """The jaxpr of a gradient over five devices, each with adapters of its own."""
    lora = LoraConfig(2, 6.0, case.model.lora_targets(), per_device=per_device)
    model = case.model.clone(lora=lora)

    def loss(adapters, inputs):
        return jnp.sum(model.apply({"params": case.params, "lora": adapters}, inputs))

    def stacked(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((5, *x.shape), x.dtype), tree)

    program = jax.make_jaxpr(jax.vmap(jax.grad(loss)))
    return str(program(stacked(case.adapters), stacked(case.inputs)))


def test_adapters_of_devices_never_meet_the_weights(case):
    """No [N, D_out, D_in] anywhere, where the sum W + ΔW would make one per layer."""
    width, hidden = case.model.hidden_size, case.model.intermediate_size
    shapes = [
        f"f32[5,{out},{into}]"
        for out, into in (
            (width, width), (3 * width, width), (2 * width, width),
            (hidden, width), (width, hidden),
        )
    ]  # fmt: skip
    text = gradient_program(case, per_device=True)
    assert not [shape for shape in shapes if shape in text]
    assert [shape for shape in shapes if shape in gradient_program(case, per_device=False)]


def test_per_device_changes_the_way_not_the_result(case):
    apply = [
        case.model.clone(lora=LoraConfig(2, 6.0, case.model.lora.targets, per_device=own)).apply
        for own in (False, True)
    ]
    one, other = jax.jit(lambda v: [f(v, case.inputs) for f in apply])(case.variables)
    np.testing.assert_allclose(one, other, **within(other, roundings(case.model)))


def test_dropout_is_unbiased_and_off_without_a_key():
    """On the adapter's input alone: the mean over keys is the output without dropout."""
    config = LoraConfig(2, 2.0, ("query",), dropout=0.4)
    layer = LoraDense(3, config, name="query")
    rng = np.random.default_rng(0)
    variables = {
        "params": {"weight": random(rng, 3, 5), "bias": random(rng, 3)},
        "lora": {"a": random(rng, 2, 5), "b": random(rng, 3, 2)},
    }
    x = random(rng, 4, 5)
    plain_layer = LoraDense(3, LoraConfig(2, 2.0, ("query",)), name="query")

    @jax.jit
    def run(keys):
        dropped = jax.vmap(lambda key: layer.apply(variables, x, rngs={"dropout": key}))(keys)
        return dropped, layer.apply(variables, x), plain_layer.apply(variables, x)

    dropped, off, expected = run(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_array_equal(off, expected)
    assert dropped.std(0).min() > 0
    error = (dropped.mean(0) - expected) / (dropped.std(0) / math.sqrt(len(dropped)))
    assert np.abs(error).max() < 4.5  # twelve normal numbers


class Pair(nn.Module):
    """Two adapted layers and a bare one on the same input."""

    @nn.compact
    def __call__(self, x):
        lora = LoraConfig(2, 2.0, ("query", "key"), dropout=0.5)
        return apply_dense(x, *(LoraDense(3, lora, name=n) for n in ("query", "key", "value")))


def test_layers_draw_their_dropout_apart_and_bare_ones_none():
    rng = np.random.default_rng(0)
    weight, adapter = random(rng, 3, 5), {"a": random(rng, 2, 5), "b": random(rng, 3, 2)}
    params = {n: {"weight": weight, "bias": jnp.zeros(3)} for n in ("query", "key", "value")}
    variables = {"params": params, "lora": {"query": adapter, "key": adapter}}
    x, keys = random(rng, 4, 5), {"dropout": jax.random.key(1)}
    query, key, value = jnp.split(Pair().apply(variables, x, rngs=keys), 3, axis=-1)
    assert np.any(query != key)
    np.testing.assert_array_equal(value, Pair().apply(variables, x)[:, 6:])


# -- fresh adapters, merging -----------------------------------------------------------------------


def test_fresh_adapters_change_nothing(model):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 6, 2)), jnp.float32)
    model = model.clone(num_hidden_layers=1)
    adapted = model.with_adapters()

    @jax.jit
    def run(key):
        fresh = adapted.init(key, images)
        bare = model.apply({"params": fresh["params"]}, images)
        return fresh["lora"], adapted.apply(fresh, images), bare

    adapters, ours, bare = run(jax.random.key(1))
    np.testing.assert_array_equal(ours, bare)
    for part in (*adapters["blocks_0"]["attention"].values(), adapters["pooler"]):
        assert np.all(part["a"] != 0)
        assert np.all(part["b"] == 0)


def test_adapters_and_bare_model_share_weights(case):
    bare = case.model.clone(lora=None)
    params = jax.eval_shape(bare.init, jax.random.key(1), case.inputs)
    chex.assert_trees_all_equal_shapes(params["params"], case.params)
    assert "lora" not in params


@pytest.mark.numerics
def test_merged_weights_are_the_adapted_model(case):
    lora = case.model.lora
    merged_weights = merge(case.params, case.adapters, lora)
    bare = jax.jit(case.model.clone(lora=None).apply)({"params": merged_weights}, case.inputs)
    adapted = jax.jit(case.model.apply)(case.variables, case.inputs)
    np.testing.assert_allclose(bare, adapted, **within(adapted, roundings(case.model)))
    back = unmerge(merged_weights, case.adapters, lora)
    chex.assert_trees_all_close(back, case.params, **within(case.params, lora.rank + 2))
    assert merged_weights["position_embedding"] is case.params["position_embedding"]  # shared


def test_merging_keeps_the_dtype_of_the_weights():
    params = {"query": {"weight": jnp.ones((2, 2), jnp.bfloat16)}}
    adapters = {"query": {"a": jnp.ones((1, 2)), "b": jnp.ones((2, 1))}}
    merged_weights = merge(params, adapters, LoraConfig(1, 1.0))
    assert merged_weights["query"]["weight"].dtype == jnp.bfloat16


# -- counts and targets ----------------------------------------------------------------------------


def test_adapter_count_by_hand(case):
    """(D_in + D_out)·r for each target."""
    width, hidden = case.model.hidden_size, case.model.intermediate_size
    per_block = 4 * (width + width) + 2 * (width + hidden)
    total = case.model.num_hidden_layers * per_block + 2 * width
    assert count(case.adapters) == case.model.lora.rank * total


def test_bert_base_adapters_are_a_fifth_of_a_million():
    """FedFT §V-A: rank 4 on q, k, v and pooler of BERT-base is 0.2 M of 110 M."""
    model = Bert(
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
    ).with_adapters()
    inputs = {"input_ids": jax.ShapeDtypeStruct((1, 8), jnp.int32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert count(shapes["lora"]) == 37 * 2 * 768 * 4  # 227,328
    assert count(shapes["params"]) == 109_482_240  # as published: 110 M


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_makes_one_kind_of_adapter(target, case_of):
    case = case_of("bert")
    model = case.model.with_adapters(LoraConfig(targets=(target,)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), case.inputs)["lora"]
    parents = {path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    assert parents == {target}
    number = 1 if target == "pooler" else model.num_hidden_layers
    assert len(jax.tree.leaves(shapes)) == 2 * number


def test_defaults_follow_the_backbone(model):
    """The paper's targets, less the pooler where there is none."""
    assert model.with_adapters().lora.targets == ("query", "key", "value", "pooler")
    without = model.clone(pooling="mean").with_adapters()
    assert without.lora.targets == ("query", "key", "value")


def test_wrong_adapters_are_named(model):
    with pytest.raises(ValueError, match=r"pooling='cls' has no pooler; choose some of query"):
        model.clone(pooling="cls").with_adapters(LoraConfig(targets=("query", "pooler")))
    with pytest.raises(ValueError, match=r"targets=\('qkv',\): choose some of query"):
        LoraConfig(targets=("qkv",))
    with pytest.raises(ValueError, match="targets="):
        LoraConfig(targets=())
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        LoraConfig(dropout=1.0)
