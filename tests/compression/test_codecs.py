"""The contract of a codec, over all members."""

import jax
import jax.numpy as jnp
import jaxsplit_kernels as kernels
import numpy as np
import pytest

from jaxsplit import compression


@pytest.mark.parametrize("name", compression.CODECS)
def test_every_codec_keeps_its_contract(name):
    """jit = eager, vmap = loop, shape and dtype kept, counted bits = real bytes."""
    codec = compression.CODECS[name]()
    x = jax.random.normal(jax.random.key(0), (3, 4, 200))
    keys = jax.random.split(jax.random.key(1), 3)
    sent = jax.jit(jax.vmap(lambda key, x: codec.transmit(key, x, codec.params)))(keys, x)
    alone = [codec.transmit(keys[i], x[i], codec.params) for i in range(3)]
    for i, (x_hat, bits) in enumerate(alone):
        np.testing.assert_array_equal(sent[0][i], x_hat)
        np.testing.assert_array_equal(sent[1][i], bits)
    assert sent[0].shape == x.shape
    assert sent[0].dtype == x.dtype
    assert sent[1].dtype == jnp.int32
    assert (sent[1] > 0).all()
    assert (sent[1] <= 32 * 200 + 64).all()
    if codec.encode is not None:
        streams = codec.encode(keys[1], x[1], codec.params)
        assert [8 * len(stream) for stream in streams] == sent[1][1].tolist()
        for row, stream in enumerate(streams):  # the other end gets the very same numbers
            np.testing.assert_array_equal(kernels.decode(stream), sent[0][1, row])


def test_each_stage_compresses_as_the_paper_counts():
    """ρ = 0.2, 3 bits: 4.3 times by top-K alone, 17.8 with quantization, more without loss."""
    x = jax.random.normal(jax.random.key(0), (2, 100_000))
    ratio = {}
    for name in ("top_k", "top_k_quantization", "compressed"):
        codec = compression.CODECS[name]()
        ratio[name] = float(32 * 100_000 / codec.transmit(jax.random.key(1), x, codec.params)[1][0])
    assert abs(ratio["top_k"] - 4.32) < 0.01
    assert abs(ratio["top_k_quantization"] - 17.77) < 0.02
    assert 24 < ratio["compressed"] < 25.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: compression.top_k("none"), "gradient='none'"),
        (lambda: compression.check_codec_params(compression.CodecParams(0.0, 7)), "ratio=0"),
        (lambda: compression.check_codec_params(compression.CodecParams(0.5, 2.5)), "levels=2.5"),
    ],
)
def test_wrong_choices_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
