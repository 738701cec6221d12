"""The backbone against a NumPy twin, its adapters, and the cut."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxsplit.models import LoraConfig, ViT, split, split_weights

LORA = LoraConfig(rank=2, alpha=6.0, init_std=0.5)


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(0), (3, 4, 6, 2))


@pytest.fixture
def variables(model, images):
    """Weights and adapters of which none is zero."""
    fresh = model.clone(lora=LORA).init(jax.random.key(1), images)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            leaf + 0.3 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )


def numpy_vit(variables, images, model, lora):
    """The vision transformer written out in float64, one image at a time."""
    params, adapters = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables[name])
        for name in ("params", "lora")
    )

    def dense(x, layer, adapter=None):
        y = x @ layer["kernel"] + layer["bias"]
        if adapter is not None:
            y = y + lora.alpha / lora.rank * (x @ adapter["a"] @ adapter["b"])
        return y

    def norm(x, layer):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * layer["scale"] + layer["bias"]

    def attention(x, layer, adapter):
        q, k, v = (dense(x, layer[n]["base"], adapter[n]) for n in ("query", "key", "value"))
        width = x.shape[-1] // model.num_attention_heads
        heads = []
        for h in range(model.num_attention_heads):
            columns = slice(h * width, (h + 1) * width)
            logits = q[:, columns] @ k[:, columns].T / math.sqrt(width)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, columns])
        return dense(np.concatenate(heads, -1), layer["attention_output"]["base"])

    features = []
    for image in np.asarray(images, np.float64):
        side = model.patch_size
        patches = [
            image[i : i + side, j : j + side].reshape(-1)
            for i in range(0, image.shape[0], side)
            for j in range(0, image.shape[1], side)
        ]
        x = dense(np.array(patches), params["patch_embedding"])
        x = np.concatenate([params["cls_token"][0], x]) + params["position_embedding"][0]
        for block in range(model.num_hidden_layers):
            layer = params[f"blocks_{block}"]
            adapter = adapters[f"blocks_{block}"]["attention"]
            x = x + attention(norm(x, layer["norm_before"]), layer["attention"], adapter)
            hidden = dense(norm(x, layer["norm_after"]), layer["mlp_in"]["base"])
            hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
            x = x + dense(hidden, layer["mlp_out"]["base"])
        pooled = norm(x[0], params["norm"])
        features.append(np.tanh(dense(pooled, params["pooler"]["base"], adapters["pooler"])))
    return np.array(features)


def test_vit_equals_its_numpy_twin(model, variables, images):
    features = jax.jit(model.clone(lora=LORA).apply)(variables, images)
    np.testing.assert_allclose(
        features, numpy_vit(variables, images, model, LORA), rtol=2e-5, atol=2e-6
    )


def test_fresh_adapters_change_nothing(model, images):
    adapted = model.clone(lora=LORA)
    variables = adapted.init(jax.random.key(1), images)
    bare = model.apply({"params": variables["params"]}, images)
    np.testing.assert_array_equal(adapted.apply(variables, images), bare)


def test_adapters_and_bare_model_share_weights(model, images):
    bare = model.init(jax.random.key(1), images)
    adapted = model.clone(lora=LORA).init(jax.random.key(1), images)
    chex.assert_trees_all_equal_shapes(bare["params"], adapted["params"])
    assert "lora" not in bare


def test_adapter_count_by_hand(model, images):
    """q, k, v in each block and the pooler, 2·D·r each."""
    adapters = model.clone(lora=LORA).init(jax.random.key(1), images)["lora"]
    count = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert count == (3 * model.num_hidden_layers + 1) * 2 * model.hidden_size * LORA.rank


def test_bert_base_scale_adapters_are_well_under_one_per_cent():
    """FedFT: rank 4 on q, k, v and pooler of a 12 × 768 encoder is 0.2 M of 110 M."""
    model = ViT(16, 768, 12, 12, 3072, LoraConfig())
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 224, 224, 3))), jax.random.key(0)
    )
    sizes = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes[name]))
        for name in ("params", "lora")
    }
    assert sizes["lora"] == 37 * 2 * 768 * 4  # 227,328
    assert sizes["lora"] < 0.003 * sizes["params"]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_split_is_exact(cut, model, variables, images):
    """Features and the gradients of device and server adapters equal those of the whole model."""
    adapted = model.clone(lora=LORA)
    halves = split(adapted, cut)
    frozen, adapters = (split_weights(adapted, variables[n], cut) for n in ("params", "lora"))
    target = jax.random.normal(jax.random.key(9), (3, model.hidden_size))

    def whole_loss(adapters):
        features = adapted.apply({"params": variables["params"], "lora": adapters}, images)
        return jnp.sum((features - target) ** 2)

    def run_split():
        tokens, device_backward = jax.vjp(
            lambda a: halves.device_forward(frozen.device, a, images), adapters.device
        )
        features, server_backward = jax.vjp(
            lambda a, t: halves.server_forward(frozen.server, a, t), adapters.server, tokens
        )
        server_gradient, token_gradient = server_backward(2 * (features - target))
        return features, {**device_backward(token_gradient)[0], **server_gradient}

    features, gradient = jax.jit(run_split)()
    np.testing.assert_allclose(
        features, jax.jit(adapted.apply)(variables, images), rtol=1e-5, atol=1e-6
    )
    expected = jax.jit(jax.grad(whole_loss))(variables["lora"])
    chex.assert_trees_all_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_halves_are_views_and_complete(cut, model, variables):
    params = variables["params"]
    device, server = split_weights(model, params, cut)
    assert set(device) | set(server) == set(params)
    assert not set(device) & set(server)
    assert sum(name.startswith("blocks_") for name in device) == cut
    for half in (device, server):
        for name, part in half.items():
            assert part is params[name]


@pytest.mark.parametrize("cut", [-1, 3])
def test_cuts_outside_the_model_are_named(cut, model):
    message = rf"cut={cut} is outside the model: choose 0 .* to 2"
    with pytest.raises(ValueError, match=message):
        split(model, cut)
    with pytest.raises(ValueError, match=message):
        split_weights(model, {}, cut)


def test_wrong_shapes_are_named(model):
    with pytest.raises(ValueError, match="patch_size=2 must divide the image size 5×4"):
        model.init(jax.random.key(0), jnp.zeros((1, 5, 4, 1)))
    with pytest.raises(ValueError, match="num_heads=3 must divide the width 8"):
        model.clone(num_attention_heads=3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="rank=0"):
        LoraConfig(rank=0)
