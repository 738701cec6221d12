"""Position embeddings of a ViT at another image size."""

import numpy as np


def _cubic_weights(size: int, new_size: int) -> np.ndarray:
    """Matrix [new_size, size] of Keys' bicubic interpolation, a = −0.75, clamped at the edges.

    The convention of PyTorch's `interpolate(mode="bicubic", align_corners=False)`, which the
    published ViT checkpoints were resized with; `jax.image.resize` takes a = −0.5.
    """
    a = -0.75
    centre = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((new_size, size))
    for tap in range(-1, 3):
        distance = np.abs(centre - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        column = np.clip(first + tap, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), column), np.where(distance <= 1, near, far))
    return weights


def resize_positions(table: np.ndarray, side: int) -> np.ndarray:
    """Interpolate the grid of a position table; the CLS token's row stays.

    Args:
      table: [1, 1 + g², D], CLS first, then a square grid of g × g patches, row by row.
      side: g of the new grid.

    Returns:
      [1, 1 + side², D] float32.

    Raises:
      ValueError: the table's grid is not square, or `side` is below 1.

    Example:
      >>> resize_positions(np.ones((1, 1 + 4, 8), np.float32), 3).shape
      (1, 10, 8)
    """
    old = round((table.shape[1] - 1) ** 0.5)
    if old * old != table.shape[1] - 1:
        raise ValueError(f"{table.shape[1] - 1} positions are no square grid of patches")
    if side < 1:
        raise ValueError(f"side={side}: the image is smaller than a patch")
    if side == old:
        return table
    weights = _cubic_weights(old, side)
    grid = table[0, 1:].astype(np.float64).reshape(old, old, -1)
    grid = np.einsum("ip,jq,pqd->ijd", weights, weights, grid).reshape(side * side, -1)
    return np.concatenate([table[:, :1], grid[None].astype(table.dtype)], axis=1)
