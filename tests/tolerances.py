"""How far two ways to compute the same floats may lie apart: from the format, never from a machine.

Vector units, fused multiply-adds and threads decide in which order a sum is added, and every order
is as good. A rounding is an error of ε/2 at most, relative to the terms of the sum and not to what
is left of them, so that all entries of an array, zeros included, carry an error of the scale of the
largest. Those of n roundings in a row add up like independent errors, √n of them:

    |a − b| ≤ MARGIN · ε · √roundings · max |b|.

Both sides have such an error, and neither is normal: a margin of 8 for both. A mistake in a formula
is a thousand times larger. `--margin-report FILE` shows how much of it each comparison uses up.
"""

import jax
import jax.numpy as jnp
import numpy as np

MARGIN = 8
SUMS_PER_BLOCK = 10  # norms, products and softmax of a transformer block, one after another
FORWARD, GRADIENT = 1, 3  # passes: a backward pass is twice a forward one


def roundings(model, passes=FORWARD, *, steps=1):
    """Of a backbone: all sums on the way, each of as many terms as the model is wide."""
    return steps * passes * SUMS_PER_BLOCK * max(1, model.num_hidden_layers) * model.hidden_size


def largest(tree):
    """The largest finite absolute value of all float arrays of a tree."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    leaves = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    finite = [np.abs(leaf[np.isfinite(leaf)].astype(np.float64)) for leaf in leaves]
    return max((leaf.max(initial=0) for leaf in finite), default=0.0)


def within(expected, roundings, *, dtype=jnp.float32, scale=None):
    """`rtol` and `atol` for arrays that should equal `expected` after so many roundings in a row.

    `scale` is the largest term of the last sums where that is more than their largest value.
    """
    scale = max(largest(expected), scale or 0)
    return {"rtol": 0, "atol": MARGIN * float(jnp.finfo(dtype).eps) * roundings**0.5 * scale}


def after_rounds(expected, scheme, rounds=1):
    """`within`, for what a training leaves after so many rounds."""
    steps = rounds * scheme.local_steps
    return within(expected, roundings(scheme.model, GRADIENT, steps=steps))


def for_most_keys(check, keys=(3, 4, 5)):
    """Call `check(key)`; of three keys one may fail, where a rounding decides between two codes.

    An entry at the edge of two quantization levels, or of the k largest, may fall to either side
    under another order of summation, and all that follows from it differs. A mistake shows under
    every key.
    """
    first, *others = keys
    try:
        check(first)
    except AssertionError:
        for key in others:
            check(key)
