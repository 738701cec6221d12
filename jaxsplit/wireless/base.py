"""The contract of a channel model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class ChannelModel(NamedTuple):
    """A block-fading channel between one server and N devices, as a pair of pure functions.

    A member is made by a lower-case factory that closes over choices; numbers travel in
    `params`, a pytree, so that a sweep over them is one trace.

    Attributes:
      init: `(key, num_devices, params) -> state`. Draws what stays fixed over a run (positions).
      sample: `(key, state, params) -> (state, gain)`. Draws one round: the channel power gains
        |h_n|², linear, shape [N]. Called once per round with a fresh key.
      params: the default parameters, a pytree of numbers.
    """

    init: Callable[[jax.Array, int, Any], Any]
    sample: Callable[[jax.Array, Any, Any], tuple[Any, jax.Array]]
    params: Any
