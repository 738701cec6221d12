"""Images inside jit: equal to the processor of the checkpoint, and random where they should be."""

import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tolerances import within

from jaxsplit.data import ImageTransform

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PLAIN = ImageTransform(mean=(0.0,), std=(1.0,), scale=1.0)
AUGMENTED = ImageTransform(MEAN, STD, image_size=12, crop_padding=2, flip=True)


def random_images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def images():
    return jnp.asarray(random_images((6, 8, 8, 3)))


# Evaluation


def test_bytes_are_scaled_and_normalised(images):
    expected = (np.asarray(images) / 255 - MEAN) / STD
    np.testing.assert_allclose(ImageTransform(MEAN, STD)(images), expected, **within(expected, 3))


def test_floating_point_images_are_scaled_already(images):
    transform = ImageTransform(MEAN, STD)
    expected = transform(images)
    scaled = transform(images.astype(jnp.float32) / 255)
    np.testing.assert_allclose(scaled, expected, **within(expected, 3))


def processed(images, size, resample):
    vit = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    processor = vit.ViTImageProcessorPil(
        size={"height": size, "width": size}, resample=resample, image_mean=MEAN, image_std=STD
    )
    batch = processor(list(images), return_tensors="np", input_data_format="channels_last")
    return batch["pixel_values"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("old", "new", "resample", "method", "levels"),
    [
        (32, 32, 2, "bilinear", 0),
        (64, 32, 2, "bilinear", 0),
        (48, 32, 2, "bilinear", 0),
        (32, 224, 2, "bilinear", 0),
        # PIL's fixed-point weights round ties the other way here and there: 2 of 255 levels.
        (32, 48, 2, "bilinear", 2),
        (500, 224, 2, "bilinear", 2),
        (48, 32, 3, "cubic", 1),
        (32, 48, 3, "cubic", 1),
        (48, 32, 1, "lanczos3", 1),
        (64, 32, 0, "nearest", 0),
        (32, 224, 0, "nearest", 0),
    ],
)
def test_images_are_those_of_the_vit_processor(old, new, resample, method, levels):
    images = random_images((3, old, old, 3))
    ours = ImageTransform(MEAN, STD, image_size=new, method=method)(jnp.asarray(images))
    assert ours.shape == (3, new, new, 3)
    assert ours.dtype == jnp.float32
    difference = np.abs(np.asarray(ours) - processed(images, new, resample))
    assert difference.max() < levels / 255 / min(STD) + 1e-6
    assert (difference > 1e-6).mean() < 0.12


def test_a_rectangle_becomes_a_square_and_any_batch_goes():
    images = random_images((2, 5, 20, 30, 3))
    transform = ImageTransform(MEAN, STD, image_size=16)
    ours = transform(jnp.asarray(images))
    assert ours.shape == (2, 5, 16, 16, 3)
    np.testing.assert_array_equal(ours[1, 2], transform(jnp.asarray(images[1, 2])))


def test_floating_point_images_resize_without_rounding():
    ramp = jnp.broadcast_to(jnp.arange(4.0, dtype=jnp.float32)[None, :, None] / 4, (4, 4, 1))
    small = ImageTransform((0.0,), (1.0,), image_size=2)(ramp)
    expected = np.array([0.3125 / 1.75, 1 / 1.75])
    np.testing.assert_allclose(small[0, :, 0], expected, **within(expected, 8))


# Augmentation


def offsets_and_flips(transform, num_images, seed=0):
    """Where each crop of one distinct image was taken, and whether it was flipped."""
    size, pad = 5, transform.crop_padding
    image = 1 + np.arange(size * size, dtype=np.float32).reshape(size, size, 1)
    mode = "constant" if transform.padding == "zero" else "reflect"
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    crops = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + size, left : left + size]
            crops[crop.tobytes()] = (top, left, False)
            crops[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (top, left, True)
    batch = jnp.asarray(np.repeat(image[None], num_images, 0))
    varied = np.asarray(jax.jit(transform.augment)(jax.random.key(seed), batch))
    return np.array([crops[image.tobytes()] for image in varied])  # KeyError: no crop at all


@pytest.mark.parametrize(("padding", "pad"), [("zero", 2), ("reflect", 1)])
def test_each_crop_and_each_side_is_equally_likely(padding, pad):
    transform = ImageTransform((0.0,), (1.0,), crop_padding=pad, padding=padding, flip=True)
    seen = offsets_and_flips(transform, num_images=10_000)
    shape = (2 * pad + 1, 2 * pad + 1, 2)
    counts = np.bincount(np.ravel_multi_index(seen.T, shape), minlength=np.prod(shape))
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (2, False)])
def test_crop_and_flip_come_apart(pad, flip):
    seen = offsets_and_flips(
        ImageTransform((0.0,), (1.0,), crop_padding=pad, flip=flip), num_images=200
    )
    assert len(np.unique(seen[:, 0])) == 2 * pad + 1
    assert len(np.unique(seen[:, 2])) == 1 + flip


def test_without_augmentation_it_is_the_evaluation(images):
    transform = ImageTransform(MEAN, STD, image_size=4)
    np.testing.assert_array_equal(transform.augment(jax.random.key(0), images), transform(images))


def test_padding_is_black_before_normalising(images):
    corners = ImageTransform(MEAN, STD, crop_padding=8).augment(jax.random.key(0), images)
    black = -np.array(MEAN) / np.array(STD)
    is_black = np.isclose(np.asarray(corners), black, atol=1e-6).all(-1)
    assert is_black.any(axis=(1, 2)).sum() >= 4


def test_images_of_a_batch_do_not_depend_on_each_other(images):
    key = jax.random.key(3)
    whole = AUGMENTED.augment(key, images)
    other = AUGMENTED.augment(key, images.at[1:].set(0))
    np.testing.assert_array_equal(whole[0], other[0])
    equal = AUGMENTED.augment(key, jnp.repeat(images[:1], 6, axis=0))
    assert len({np.asarray(image).tobytes() for image in equal}) > 1  # each its own draw


def test_jit_and_vmap_change_nothing(images):
    key = jax.random.key(5)
    eager = AUGMENTED.augment(key, images)
    jitted = jax.jit(AUGMENTED.augment)(key, images)
    np.testing.assert_allclose(jitted, eager, **within(eager, 3))
    keys = jax.random.split(key, 3)
    devices = jnp.stack([images, images[::-1], images])
    batched = jax.vmap(AUGMENTED.augment)(keys, devices)
    looped = [AUGMENTED.augment(k, batch) for k, batch in zip(keys, devices, strict=True)]
    np.testing.assert_allclose(batched, jnp.stack(looped), **within(eager, 3))
    looped = jnp.stack([AUGMENTED(batch) for batch in devices])
    np.testing.assert_allclose(jax.vmap(AUGMENTED)(devices), looped, **within(looped, 3))


def test_an_equal_transform_is_one_trace(images):
    traces = 0

    def prepare(transform, key, batch):
        nonlocal traces
        traces += 1
        return transform.augment(key, batch)

    compiled = jax.jit(prepare, static_argnums=0)
    for seed in range(3):
        transform = ImageTransform(MEAN, STD, crop_padding=4, flip=True)
        compiled(transform, jax.random.key(seed), images)
    assert traces == 1


# Checkpoints


def write(folder: Path, **config):
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_states_its_transform(tmp_path):
    folder = write(
        tmp_path,
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
        rescale_factor=0.5,
        resample=3,
        size={"height": 16, "width": 16},
    )
    assert ImageTransform.from_checkpoint(folder, crop_padding=4, flip=True) == ImageTransform(
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 16, 0.5, "cubic", crop_padding=4, flip=True
    )


def test_what_a_checkpoint_switches_off_is_off(tmp_path, images):
    folder = write(tmp_path, do_normalize=False, do_rescale=False, do_resize=False)
    transform = ImageTransform.from_checkpoint(folder)
    assert transform == PLAIN
    np.testing.assert_array_equal(transform(images), images.astype(jnp.float32))


def test_an_old_checkpoint_has_one_size(tmp_path):
    folder = write(tmp_path, size=224, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert ImageTransform.from_checkpoint(folder).image_size == 224


COMPLETE = {"size": 32, "image_mean": [0.5], "image_std": [0.5]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": None}, "has no image_mean: add it"),
        ({"image_std": None}, "has no image_std: add it"),
        ({"size": None}, "has no size: add it"),
        ({"size": {"height": 32, "width": 48}}, "resizes to a square"),
        ({"size": {"shortest_edge": 256}}, "resizes to a square"),
        ({"do_center_crop": True}, "do_center_crop is set"),
        ({"resample": 4}, "resample=4 is not one of 0 (nearest)"),
    ],
)
def test_what_a_checkpoint_lacks_or_wants_is_named(tmp_path, change, message):
    config = {name: value for name, value in (COMPLETE | change).items() if value is not None}
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ImageTransform.from_checkpoint(write(tmp_path, **config))
    assert "preprocessor_config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="preprocessor_config"):
        ImageTransform.from_checkpoint(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        ImageTransform.from_checkpoint(tmp_path)


@pytest.mark.skipif("JAXSPLIT_MODELS" not in os.environ, reason="JAXSPLIT_MODELS is not set")
def test_a_real_checkpoint():
    folder = Path(os.environ["JAXSPLIT_MODELS"]) / "vit-small-tin32"
    transform = ImageTransform.from_checkpoint(folder)
    assert transform == ImageTransform((0.5,) * 3, (0.5,) * 3, 32, 0.00392156862745098)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": ()}, "mean=(), std=(0.5,): choose finite numbers, one per channel"),
        ({"mean": (0.5, 0.5)}, "one per channel"),
        ({"mean": (float("nan"),)}, "one per channel"),
        ({"std": (0.0,)}, "std=(0.0,): choose finite numbers above 0"),
        ({"image_size": 0}, "image_size=0: choose 1 or more pixels, or None"),
        ({"scale": 0.0}, "scale=0.0: choose a finite number above 0"),
        ({"method": "area"}, "method='area': choose one of nearest, lanczos3, bilinear, cubic"),
        ({"crop_padding": -1}, "crop_padding=-1: choose 0 or more pixels"),
        ({"padding": "edge"}, "padding='edge': choose zero or reflect"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageTransform(**{"mean": (0.5,), "std": (0.5,)} | options)


def test_channels_must_fit(images):
    with pytest.raises(ValueError, match="images of 3 channels: mean and std have 2"):
        ImageTransform((0.5, 0.5), (0.5, 0.5))(images)
