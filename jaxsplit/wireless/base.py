"""The contract of a channel model, and of the parts that a fading channel is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class ChannelModel(NamedTuple):
    """A block-fading channel between one server and N devices, as a pair of pure functions.

    A member is made by a lower-case factory that closes over choices; numbers travel in
    `params`, a pytree, so that a sweep over them is one trace.

    Attributes:
      init: `(key, num_devices, params) -> state`. Draws what a run starts from (positions).
      sample: `(key, state, params) -> (state, gain)`. Draws one round: the channel power gains
        |h_n|², linear, shape [N]. Called once per round with a fresh key. What evolves
        (correlated fading, moving devices) does so in the state.
      params: the default parameters, a pytree of numbers.
    """

    init: Callable[[jax.Array, int, Any], Any]
    sample: Callable[[jax.Array, Any, Any], tuple[Any, jax.Array]]
    params: Any


class Placement(NamedTuple):
    """Where the devices stand in a round, the server being at (0, 0).

    Attributes:
      init: `(key, num_devices, params) -> state`, with a field `position_m`, shape [N, 2].
      move: `(key, state, params) -> state`, by one round.
      params: the default parameters, a pytree of numbers.
    """

    init: Callable[[jax.Array, int, Any], Any]
    move: Callable[[jax.Array, Any, Any], Any]
    params: Any


class PathLoss(NamedTuple):
    """The large scale of a channel: the mean power gain at a place.

    Attributes:
      init: `(key, position_m, params) -> state`, `()` for a law of distance alone; else what
        the surroundings of each device decide (line of sight, shadowing).
      sample: `(key, state, position_m, params) -> (state, gain)`, linear, shape [N]. Devices
        that stand still keep their surroundings, so that their gain does not change.
      params: the default parameters, a pytree of numbers.
    """

    init: Callable[[jax.Array, jax.Array, Any], Any]
    sample: Callable[[jax.Array, Any, jax.Array, Any], tuple[Any, jax.Array]]
    params: Any
