"""The contract of a link codec: both ends of the link, and the bits between them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from jax.typing import ArrayLike


class CodecParams(NamedTuple):
    """Numbers of a codec: sweep over them with one trace."""

    ratio: ArrayLike = 0.2  # ρ, part of the entries that is kept, 0 < ρ <= 1
    levels: ArrayLike = 7  # E, intervals of the quantizer's grid, 1 to 255; b bits are 2^b − 1


class Codec(NamedTuple):
    """What stands between a device and the server: compression, and its count of bits.

    A member is made by a lower-case factory; equal choices are the same object. It sees one
    sample per row and owns both ends: what it returns is what the other end decodes.

    Attributes:
      transmit: `(key, x [B, n], params) -> (x_hat [B, n], bits int32 [B])`, traced inside a round.
      params: the default parameters, a pytree of numbers; `()` where there are none.
      encode: `(key, x [B, n], params) -> list[bytes]` on the host, the streams whose lengths
        `transmit` counts; None where the count is plain arithmetic.
      gradient: what comes back to an entry that was dropped on the way up: its gradient
        ("identity", straight through) or none ("masked").
    """

    transmit: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]
    params: Any = ()
    encode: Callable[[jax.Array, jax.Array, Any], list[bytes]] | None = None
    gradient: Literal["identity", "masked"] = "identity"
