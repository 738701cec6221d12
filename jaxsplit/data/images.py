"""Images prepared and augmented inside the jitted round."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Method = Literal["nearest", "bilinear", "cubic", "lanczos3"]

# PIL's codes of resampling filters, which checkpoints state, as `jax.image.resize` names them.
_METHODS: dict[int, Method] = {0: "nearest", 1: "lanczos3", 2: "bilinear", 3: "cubic"}
_ONLY = "resizes to a square, rescales and normalises only"


@dataclass(frozen=True)
class ImageTransform:
    """What stands between stored images and a model: the scaling of pixels, and augmentation.

    Calling it prepares a batch for evaluation; `augment` for training. Both are pure, keep shapes
    fixed and work under `jit` and `vmap`, so that a data set can stay on the accelerator as bytes.
    It is hashable: an equal transform is no new trace. Bytes are resized to bytes, first columns,
    then rows, as PIL does: but for rounded ties of 1 or 2 levels in 255 the result is that of
    `ViTImageProcessor` ("nearest" may take the other one of two pixels that are equally near).

    Attributes:
      mean: of each channel, or one value for all of them; subtracted after scaling.
      std: likewise; divided by.
      image_size: side S of the square images that the model takes; None leaves the size as it is.
      scale: multiplies images of integers (bytes); floating-point images are taken as scaled.
      method: how `jax.image.resize` interpolates; it averages (antialiases) when it shrinks.
      crop_padding: `augment` pads each side by so many pixels and crops the old size at random.
      padding: "zero" pads with black pixels, as is usual for CIFAR, "reflect" with mirrored ones.
      flip: `augment` mirrors an image, left to right, with probability 1/2.

    Raises:
      ValueError: a field out of range.

    Example:
      >>> transform = ImageTransform(mean=(0.5,), std=(0.5,), image_size=4, crop_padding=1)
      >>> images = np.full((2, 8, 8, 3), 51, np.uint8)
      >>> print(jax.jit(transform)(images)[0, 0, 0].round(3))
      [-0.6 -0.6 -0.6]
      >>> transform.augment(jax.random.key(0), images).shape
      (2, 4, 4, 3)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None = None
    scale: float = 1 / 255
    method: Method = "bilinear"
    crop_padding: int = 0
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False

    def __post_init__(self) -> None:
        if not (len(self.mean) == len(self.std) > 0 and np.isfinite(self.mean).all()):
            raise ValueError(
                f"mean={self.mean}, std={self.std}: choose finite numbers, one per channel in each"
            )
        if not (np.isfinite(self.std).all() and min(self.std) > 0):
            raise ValueError(f"std={self.std}: choose finite numbers above 0")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size={self.image_size}: choose 1 or more pixels, or None")
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale={self.scale}: choose a finite number above 0, say 1/255")
        if self.method not in _METHODS.values():
            raise ValueError(
                f"method={self.method!r}: choose one of {', '.join(_METHODS.values())}"
            )
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding={self.crop_padding}: choose 0 or more pixels")
        if self.padding not in ("zero", "reflect"):
            raise ValueError(f"padding={self.padding!r}: choose zero or reflect")

    @classmethod
    def from_checkpoint(
        cls, folder: str | Path, *, crop_padding: int = 0, flip: bool = False
    ) -> "ImageTransform":
        """The transform that a Hugging Face checkpoint was trained with.

        What a ViT's `preprocessor_config.json` leaves out is as `ViTImageProcessor` has it, except
        mean, standard deviation and size, which differ between checkpoints: those must be there.

        Args:
          folder: with the file `preprocessor_config.json`.
          crop_padding: for `augment`, which checkpoints do not state.
          flip: likewise.

        Returns:
          The transform.

        Raises:
          ValueError: the file is not JSON, lacks one of those three, or asks for what this class
            does not do.
          FileNotFoundError: there is no such file.

        Example:
          >>> import tempfile
          >>> text = '{"size": 32, "image_mean": [0.5], "image_std": [0.25]}'
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     _ = (Path(folder) / "preprocessor_config.json").write_text(text)
          ...     ImageTransform.from_checkpoint(folder).std
          (0.25,)
        """
        path = Path(folder) / "preprocessor_config.json"
        try:
            config = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        for choice in ("do_center_crop", "do_pad"):
            if config.get(choice):
                raise ValueError(f"{path}: {choice} is set, and this transform {_ONLY}")
        normalises = config.get("do_normalize", True)
        if config.get("resample", 2) not in _METHODS:
            raise ValueError(
                f"{path}: resample={config['resample']} is not one of 0 (nearest), 1 (Lanczos), "
                "2 (bilinear), 3 (bicubic)"
            )
        return cls(
            mean=tuple(_entry(path, config, "image_mean")) if normalises else (0.0,),
            std=tuple(_entry(path, config, "image_std")) if normalises else (1.0,),
            image_size=_side(path, config) if config.get("do_resize", True) else None,
            scale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
            method=_METHODS[config.get("resample", 2)],
            crop_padding=crop_padding,
            flip=flip,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Prepare images for evaluation: resize, scale, normalise.

        Args:
          images: integers 0 … 255, or floating point and scaled already, shape [..., H, W, C].

        Returns:
          Shape [..., S, S, C] float32.

        Raises:
          ValueError: the images have another number of channels.
        """
        *batch, height, width, channels = images.shape
        if len(self.mean) not in (1, channels):
            raise ValueError(f"images of {channels} channels: mean and std have {len(self.mean)}")
        is_integer = jnp.issubdtype(images.dtype, jnp.integer)
        pixels = jnp.asarray(images, jnp.float32)
        side = self.image_size
        if side is not None and (height, width) != (side, side):
            for size in ((height, side), (side, side)):  # columns first, as PIL does
                pixels = jax.image.resize(pixels, (*batch, *size, channels), self.method)
                if is_integer:  # bytes stay bytes; cubic and Lanczos overshoot at edges
                    pixels = jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
        per_channel = (1,) * (images.ndim - 1) + (len(self.mean),)
        mean = jnp.asarray(self.mean, jnp.float32).reshape(per_channel)
        std = jnp.asarray(self.std, jnp.float32).reshape(per_channel)
        return (pixels * (self.scale if is_integer else 1.0) - mean) / std

    def augment(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Prepare images for training: crop and flip at random, then as for evaluation.

        Each image has its own draws. Crops are taken at the stored size, before resizing.

        Args:
          key: PRNG key of this batch.
          images: as for the call, shape [B, H, W, C].

        Returns:
          Shape [B, S, S, C] float32.
        """
        if self.crop_padding or self.flip:
            images = jax.vmap(self._vary)(jax.random.split(key, len(images)), images)
        return self(images)

    def _vary(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Crop and flip one image, [H, W, C]."""
        crop_key, flip_key = jax.random.split(key)
        varied = image
        if pad := self.crop_padding:
            mode = "constant" if self.padding == "zero" else "reflect"
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
            top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
            varied = jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)
        if self.flip:
            varied = jnp.where(jax.random.bernoulli(flip_key), varied[:, ::-1], varied)
        return varied


def _entry(path: Path, config: dict[str, Any], name: str) -> Any:
    if name not in config:
        raise ValueError(f"{path} has no {name}: add it, or make an ImageTransform by hand")
    return config[name]


def _side(path: Path, config: dict[str, Any]) -> int:
    """The side of the square that a checkpoint takes."""
    size = _entry(path, config, "size")
    sides = {size} if isinstance(size, int) else {size.get("height"), size.get("width")}
    if len(sides) > 1 or None in sides:
        raise ValueError(f"{path}: size={size}, and this transform {_ONLY}")
    return sides.pop()
