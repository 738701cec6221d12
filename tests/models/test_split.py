"""The cut: two halves that are the whole model, whatever its family and wherever it is cut."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import GRADIENT, roundings, within

from jaxsplit.models import Activations, ViT, split, split_weights


@pytest.mark.numerics
def test_split_is_exact(case):
    """Features and gradients of device and server adapters, at each cut, are the whole model's."""
    model, inputs = case.model, case.inputs
    cuts = range(model.num_hidden_layers + 1)

    def loss(features):
        return jnp.sum(jnp.sin(features))

    def run_whole(adapters):
        features = model.apply({"params": case.params, "lora": adapters}, inputs)
        return loss(features), features

    def run_split(whole_adapters, cut):
        halves = split(model, cut)
        frozen, adapters = (
            split_weights(model, tree, cut) for tree in (case.params, whole_adapters)
        )

        def device_half(adapters):
            tokens, mask = halves.device_forward(frozen.device, adapters, inputs)
            return tokens, mask

        def server_half(adapters, tokens):
            return halves.server_forward(frozen.server, adapters, Activations(tokens, mask))

        tokens, device_backward, mask = jax.vjp(device_half, adapters.device, has_aux=True)
        features, server_backward = jax.vjp(server_half, adapters.server, tokens)
        server_gradient, token_gradient = server_backward(jax.grad(loss)(features))
        return {**device_backward(token_gradient)[0], **server_gradient}, features

    @jax.jit
    def both(adapters):
        whole = jax.grad(run_whole, has_aux=True)(adapters)
        return [run_split(adapters, cut) for cut in cuts], whole

    splits, (expected, whole_features) = both(case.adapters)
    assert len(splits) == 3
    for gradient, features in splits:
        np.testing.assert_allclose(
            features, whole_features, **within(whole_features, roundings(model))
        )
        assert set(gradient) == set(expected)
        chex.assert_trees_all_close(
            gradient, expected, **within(expected, roundings(model, GRADIENT))
        )


def test_what_crosses_the_cut(case):
    """Tokens [B, S, D] and, for text, the padding mask."""
    halves = split(case.model, 1)
    device = split_weights(case.model, case.params, 1).device
    adapters = split_weights(case.model, case.adapters, 1).device
    sent = jax.eval_shape(halves.device_forward, device, adapters, case.inputs)
    assert isinstance(sent, Activations)
    assert sent.tokens.shape == (3, 7, case.model.hidden_size)
    if isinstance(case.model, ViT):
        assert sent.mask is None
    else:
        assert sent.mask.shape == (3, 7)
        assert sent.mask.dtype == bool


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_halves_are_views_and_complete(cut, case):
    for tree in (case.params, case.adapters):
        device, server = split_weights(case.model, tree, cut)
        assert set(device) | set(server) == set(tree)
        assert not set(device) & set(server)
        for half in (device, server):
            for name, part in half.items():
                assert part is tree[name]
    device, server = split_weights(case.model, case.params, cut)
    assert sum(name.startswith("blocks_") for name in device) == cut
    assert {"position_embedding"} <= set(device)
    assert {"pooler"} <= set(server)


@pytest.mark.parametrize("cut", [-1, 3])
def test_cuts_outside_the_model_are_named(cut, model):
    message = rf"cut={cut} is outside the model: choose 0 .* to 2"
    with pytest.raises(ValueError, match=message):
        split(model, cut)
    with pytest.raises(ValueError, match=message):
        split_weights(model, {}, cut)
