"""FLOP by hand, and against what the compiler counts."""

import numpy as np
import pytest

from jaxsplit.costs import BLOCK_LAYERS, EncoderShape, model_flops, split_flops

VIT = EncoderShape.vit_base(num_outputs=100)
BLOCK = 24 * 197 * 768**2 + 4 * 197**2 * 768  # of one sample, SFT §V-C
HEAD = 2 * 197 * 768 * 100


def test_paper_to_the_letter():
    flops = split_flops(VIT, 5, 64, "paper")
    assert flops.device_forward == 64 * (5 * BLOCK + HEAD)
    assert flops.device_backward == 64 * (10 * BLOCK + 2 * HEAD)
    assert flops.server_forward == 64 * 7 * BLOCK
    assert flops.server_backward == 64 * (14 * BLOCK + 2 * HEAD)
    assert flops.server == flops.server_forward + flops.server_backward
    whole = model_flops(VIT, 64, "paper")
    assert whole.forward == 64 * (12 * BLOCK + HEAD)
    assert whole.backward == 2 * whole.forward


def test_vit_base_has_the_known_number():
    """A ViT-B forward pass takes 17.6 G multiply-adds on one image, 35.1 GFLOP."""
    plain = EncoderShape.vit_base(num_outputs=1000, lora_targets=())
    all_tokens = split_flops(plain, 12, 1)
    total = float(all_tokens.device_forward + all_tokens.server_forward)
    assert total == pytest.approx(2 * 17.56e9, rel=2e-3)


def test_exact_by_hand():
    """One block in the middle of ViT-B with adapters on all six layers."""
    flops = split_flops(VIT, [1, 2], 1)
    lora = 2 * 197 * 16 * 18 * 768
    assert np.diff(flops.device_forward)[0] == BLOCK + lora
    # Frozen layers once, attention and adapters twice.
    middle = 24 * 197 * 768**2 + 8 * 197**2 * 768 + 2 * lora
    assert np.diff(flops.device_backward)[0] == middle
    # The first block's query, key and value need no gradient of their input.
    saved = 6 * 197 * 768**2 + 2 * 197 * 16 * 3 * 768
    assert flops.device_backward[0] == middle - saved
    # The last block, of which only the CLS token is read, and the head.
    last = split_flops(VIT, 11, 1)
    one, all_ = 2 * 768**2, 197 * 2 * 768**2
    low_one, low_all = 2 * 16 * 768, 197 * 2 * 16 * 768
    forward = 2 * all_ + 10 * one + 4 * 197 * 768 + 4 * low_all + 14 * low_one
    assert last.server_forward == forward + 2 * 768 * 100
    assert last.server_backward == (
        2 * all_ + 10 * one + 8 * 197 * 768 + 2 * (4 * low_all + 14 * low_one) + 4 * 768 * 100
    )


def test_ends():
    """No block on the device: the embedding only. No block on the server: the head only."""
    flops = split_flops(VIT, [0, 12], 2)
    assert flops.device_forward[0] == 2 * 2 * 196 * 768 * 768
    assert flops.device_backward[0] == 0
    assert flops.server_forward[1] == 2 * 2 * 768 * 100
    assert flops.server_backward[1] == 2 * 4 * 768 * 100


def test_the_whole_is_both_halves():
    whole = model_flops(VIT, 3)
    halves = split_flops(VIT, np.arange(12), 3)
    assert np.allclose(halves.device_forward + halves.server_forward, whole.forward, rtol=1e-12)
    assert np.allclose(halves.device_backward + halves.server_backward, whole.backward, rtol=1e-12)


def test_trained_weights_cost_twice_the_way_back():
    """Every product twice, but for pixels, which want no gradient."""
    full = model_flops(VIT, 1, train_weights=True)
    assert full.backward == 2 * full.forward - 2 * 196 * 768 * 768
    lora = model_flops(VIT, 1)
    assert lora.backward < 0.6 * full.backward


def test_without_adapters_only_the_head_is_trained():
    plain = EncoderShape.vit_base(num_outputs=100, lora_targets=())
    flops = split_flops(plain, 5, 1)
    assert flops.device_backward == 0
    assert flops.server_backward == 2 * 768 * 100


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_cuts_are_vectorised_and_samples_count(mode):
    cuts = np.arange(13)
    together = split_flops(VIT, cuts, 64, mode)
    for cut in (0, 1, 7, 12):
        alone = split_flops(VIT, cut, 64, mode)
        assert [part[cut] for part in together] == [float(part) for part in alone]
    assert all(part.dtype == np.float64 and part.shape == (13,) for part in together)
    half = split_flops(VIT, cuts, 32, mode)
    assert all(np.array_equal(2 * a, b) for a, b in zip(half, together, strict=True))
    assert np.all(np.diff(together.device_forward) > 0)
    assert np.all(np.diff(together.server) < 0)


@pytest.mark.parametrize(
    ("cut", "targets"),
    [(2, BLOCK_LAYERS), (1, ("query", "value")), (0, ("mlp_in", "mlp_out"))],
)
def test_the_compiler_counts_the_same(halves_of, cut, targets):
    """Ours are the products; the compiler's 1 to 5 % more are the elementwise operations.

    Factors of layers that share an input are multiplied side by side, with zeros between them.
    """
    halves = halves_of(cut, targets)
    shape, blocks = halves.shape, halves.shape.num_blocks
    ours = split_flops(shape, cut, halves.batch_size)
    on_device = cut * zeros(halves, ("query", "key", "value"), targets)
    on_server = (blocks - cut - 1) * zeros(halves, ("query", "key", "value"), targets)
    on_server += zeros(halves, ("key", "value"), targets)  # the last block's query is apart
    expected = {
        "server_forward": ours.server_forward + on_server,
        "server_step": ours.server + 3 * on_server,
    }
    if cut:
        expected["device_forward"] = ours.device_forward + on_device
        expected["device_step"] = ours.device_forward + ours.device_backward + 3 * on_device
    for name, flops in expected.items():
        assert 1 < halves.program(name).cost_analysis()["flops"] / flops < 1.05, name


def zeros(halves, layers, targets):
    """FLOP of a pass with the zeros between the factors B of layers that share an input."""
    shape, adapted = halves.shape, len(set(layers) & set(targets))
    tokens = halves.batch_size * shape.tokens
    return 2 * tokens * adapted * (len(layers) - 1) * shape.lora_rank * shape.width


def test_errors():
    with pytest.raises(ValueError, match=r"cut=13 .* from 0 .* to 12"):
        split_flops(VIT, 13, 64)
    with pytest.raises(ValueError, match=r"mode='guess' is unknown: choose one of"):
        split_flops(VIT, 5, 64, "guess")
    with pytest.raises(ValueError, match=r"mode='guess' is unknown"):
        model_flops(VIT, 64, "guess")
    with pytest.raises(ValueError, match="batch_size=0: choose more than 0"):
        model_flops(VIT, 0)
