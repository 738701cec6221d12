"""The k greatest magnitudes of each row in plain NumPy, by a stable sort."""

import numpy as np


def topk_mask(x: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Mark the k greatest magnitudes of each row; the first of equals, NaN the greatest."""
    magnitude = np.where(np.isnan(x), np.inf, np.abs(x)).astype(np.float64)
    order = np.lexsort((-magnitude, ~np.isnan(x)), axis=-1)  # NaN first, then by magnitude
    is_kept = np.arange(x.shape[-1]) < np.asarray(k)[..., None]
    mask = np.zeros(x.shape, bool)
    np.put_along_axis(mask, order, np.broadcast_to(is_kept, x.shape), axis=-1)
    return mask
