"""How much XLA has to compile: the operations of a lowered program, which its users wait for."""

import jax
import jax.numpy as jnp
import pytest
from jaxsplit_kernels import bandwidth_for_rate, compress, compressed_bits, topk_mask
from jaxsplit_kernels.quantize import Quantized


def operations(function, *arguments):
    """Operations of the program, those of loop bodies and of called functions once each."""
    text = jax.jit(function).lower(*arguments).as_text()
    return sum(" = " in line for line in text.splitlines())


def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 320), ("bfloat16", 330)])
def test_topk_mask(dtype, most):
    assert operations(topk_mask, array(dtype, 16, 50_000), array("int32")) <= most


def test_compress():
    x, ratio, levels = array("float32", 16, 50_000), array("float32"), array("int32")
    assert operations(compress, jax.random.key(0), x, ratio, levels) <= 1400


def test_compressed_bits():
    codes, rows = array("uint8", 16, 50_000), array("float32", 16)
    mask, sign = array("bool", 16, 50_000), array("int8", 16, 50_000)
    q = Quantized(codes, sign, mask, rows, rows, array("int32", 16))
    assert operations(compressed_bits, q) <= 750


def test_bandwidth_for_rate_and_its_slope():
    def both(rate, snr_hz):
        return jax.jvp(lambda rate: bandwidth_for_rate(rate, snr_hz), (rate,), (rate,))

    assert operations(both, array("float32", 20), array("float32", 20)) <= 330


def test_the_count_does_not_grow_with_the_row():
    counts = {operations(topk_mask, array(jnp.float32, 2, n), array("int32")) for n in (256, 2**20)}
    assert len(counts) == 1
