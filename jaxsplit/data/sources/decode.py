"""Image files to arrays of one size."""

import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from jaxsplit.data.sources.base import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 256
# Below this size of an encoded image, threads lose more by taking turns than they gain.
_THREADS_FROM_BYTES = 4096


def decode_images(
    images: Sequence[bytes],
    where: Callable[[int], str],
    size: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Decode image files to RGB of one size.

    Grey images get three equal channels. Images are resized (bilinear, without cropping) where
    `size` is given and, without it, only if they differ in size: then to the most frequent size.

    Args:
      images: encoded files (JPEG, PNG, …), M of them.
      where: file and row of an image, for messages.
      size: height and width in pixels; None leaves images of one size as they are.
      progress: is told ("decoding", done, total).

    Returns:
      Pixels, shape [M, H, W, 3] uint8.

    Raises:
      ValueError: an image that cannot be decoded.

    Example:
      >>> from PIL import Image
      >>> file = io.BytesIO()
      >>> Image.new("L", (6, 4), color=9).save(file, "PNG")
      >>> decode_images([file.getvalue()], "row {}".format).shape
      (1, 4, 6, 3)
      >>> decode_images([b"no image"], "row {}".format)
      Traceback (most recent call last):
      ValueError: row 0: the image cannot be decoded (cannot identify image file): replace it
    """
    from PIL import Image

    def load(row: int) -> "Image.Image":
        try:
            image = Image.open(io.BytesIO(images[row]))
            image.load()
        except Exception as error:  # a broken file can raise anything
            raise _undecodable(where(row), error) from error
        return image

    def shape(row: int) -> tuple[int, int]:
        if progress and row % _CHUNK == 0:
            progress("decoding", 0, len(images))
        try:
            with Image.open(io.BytesIO(images[row])) as image:
                return image.size
        except Exception as error:
            raise _undecodable(where(row), error) from error

    if size is None:
        width, height = Counter(map(shape, range(len(images)))).most_common(1)[0][0]
    else:
        width = height = size
    mean_bytes = sum(map(len, images)) / len(images)
    workers = min(8, os.cpu_count() or 1) if mean_bytes >= _THREADS_FROM_BYTES else 1
    return _render(load, len(images), (height, width), workers, progress)


def resize_images(images: np.ndarray, size: int, progress: Progress | None = None) -> np.ndarray:
    """Resize decoded images, bilinear.

    Args:
      images: shape [M, H, W, 3] uint8.
      size: new height and width in pixels.
      progress: is told ("decoding", done, total).

    Returns:
      Pixels, shape [M, size, size, 3] uint8; the same array if it has this size.

    Example:
      >>> resize_images(np.zeros((2, 8, 8, 3), np.uint8), 4).shape
      (2, 4, 4, 3)
    """
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    return _render(lambda row: Image.fromarray(images[row]), len(images), (size, size), 1, progress)


def _undecodable(place: str, error: Exception) -> ValueError:
    reason = str(error).split(" <")[0].splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{place}: the image cannot be decoded ({reason}): replace it")


def _render(
    load: "Callable[[int], Image]",
    count: int,
    size: tuple[int, int],
    workers: int,
    progress: Progress | None,
) -> np.ndarray:
    from PIL import Image

    pixels = np.empty((count, *size, 3), np.uint8)
    done = 0

    def render(start: int) -> int:
        stop = min(start + _CHUNK, count)
        for row in range(start, stop):
            image = load(row).convert("RGB")
            if image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(image)
        return stop - start

    pool = ThreadPoolExecutor(workers)
    try:
        for finished in pool.map(render, range(0, count, _CHUNK)):
            done += finished
            if progress:
                progress("decoding", done, count)
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels
