"""Handwritten digits that come with scikit-learn."""

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

from jaxsplit.data.sources.base import Dataset


def digits(
    classes: Sequence[int] = range(10), *, test_fraction: float = 0.2, seed: int = 0
) -> Dataset:
    """Handwritten digits, 8 × 8 grey levels in [0, 1] (scikit-learn's copy of the UCI test set).

    1,797 real images, nothing to download.

    Args:
      classes: which digits; they are relabelled 0, 1, … in this order.
      test_fraction: share held out as the common test set, between 0 and 1.
      seed: of the split into training and test set.

    Returns:
      A `Dataset` with inputs of shape [M, 8, 8, 1] float32.

    Raises:
      ValueError: no, repeated or unknown digits; `test_fraction` outside (0, 1).

    Example:
      >>> digits(classes=(5, 6, 7, 8, 9)).train_inputs.shape
      (717, 8, 8, 1)
    """
    classes = [int(digit) for digit in classes]
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(10)):
        raise ValueError(f"classes={classes!r}: choose different digits out of 0 to 9")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction}: choose a share between 0 and 1, say 0.2")
    pixels, digit = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(digit, classes))
    chosen = np.random.default_rng(seed).permutation(chosen)
    inputs = (pixels[chosen] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = np.array([classes.index(d) for d in digit[chosen]], np.int32)
    num_test = max(1, int(test_fraction * len(chosen)))
    return Dataset(
        inputs[num_test:],
        labels[num_test:],
        inputs[:num_test],
        labels[:num_test],
        label_names=tuple(str(d) for d in classes),
    )
