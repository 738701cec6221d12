"""Digits, partitions and mini-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.data import digits, draw_batch, iid


def test_digits_are_the_real_ones():
    everything = digits()
    assert len(everything.train_labels) + len(everything.test_labels) == 1797
    assert everything.num_classes == 10
    assert everything.train_inputs.shape[1:] == (8, 8, 1)
    assert 0 <= everything.train_inputs.min() < everything.train_inputs.max() <= 1


def test_chosen_digits_are_relabelled_and_split_without_overlap():
    low, high = digits((0, 1, 2, 3, 4)), digits((5, 6, 7, 8, 9))
    assert len(low.train_labels) + len(low.test_labels) == 901
    assert len(high.train_labels) + len(high.test_labels) == 896
    assert set(high.train_labels) == set(high.test_labels) == {0, 1, 2, 3, 4}
    train = {image.tobytes() for image in high.train_inputs}
    shared = sum(image.tobytes() in train for image in high.test_inputs)
    assert shared <= 1  # the source holds hardly any image twice
    np.testing.assert_array_equal(high.train_inputs, digits((5, 6, 7, 8, 9)).train_inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": (1, 1)}, "choose different digits"),
        ({"classes": (10,)}, "choose different digits"),
        ({"classes": ()}, "choose different digits"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
    ],
)
def test_wrong_digits_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        digits(**options)


@pytest.mark.parametrize("num_devices", [1, 7, 20, 50])
def test_iid_uses_each_sample_once_and_evenly(num_devices):
    partition = iid(3, np.zeros(50), num_devices)
    used = np.concatenate(
        [row[:size] for row, size in zip(partition.indices, partition.sizes, strict=True)]
    )
    assert sorted(used) == list(range(50))
    assert partition.sizes.max() - partition.sizes.min() <= 1
    other = iid(4, np.zeros(50), num_devices)
    assert num_devices == 50 or not np.array_equal(partition.indices, other.indices)


@pytest.mark.parametrize("num_devices", [0, 51])
def test_impossible_partitions_are_named(num_devices):
    with pytest.raises(ValueError, match=f"num_devices={num_devices}: choose 1 to 50"):
        iid(0, np.zeros(50), num_devices)


def test_batches_come_from_the_device_without_repetition():
    indices = jnp.arange(100, 120, dtype=jnp.int32)
    draw = jax.jit(draw_batch, static_argnums=3)
    counts = np.zeros(120)
    for seed in range(400):
        batch = np.asarray(draw(jax.random.key(seed), indices, jnp.int32(12), 6))
        assert len(set(batch.tolist())) == 6
        counts[batch] += 1
    assert not counts[112:].any()  # padding is never drawn
    expected = 400 * 6 / 12
    assert np.all(np.abs(counts[100:112] - expected) < 5 * np.sqrt(expected / 2))


def test_a_small_device_repeats_its_samples_evenly():
    batch = draw_batch(jax.random.key(0), jnp.arange(5, dtype=jnp.int32), jnp.int32(3), 8)
    assert sorted(np.bincount(np.asarray(batch), minlength=5).tolist()) == [0, 0, 2, 3, 3]
