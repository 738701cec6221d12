"""Block-fading channel models."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import ChannelModel
from jaxsplit.wireless.geometry import power_law_gain, uniform_disc


class RayleighParams(NamedTuple):
    """Numbers of the Rayleigh channel (the values are ours: FedFT's text lost its own)."""

    radius_m: ArrayLike = 100.0  # R, radius of the disc of devices
    centre_m: tuple[float, float] | jax.Array = (0.0, 0.0)  # its centre; the server is at (0, 0)
    reference_gain_db: ArrayLike = -30.0  # C₀, gain at the reference distance
    reference_distance_m: ArrayLike = 1.0  # d₀
    path_loss_exponent: ArrayLike = 3.0  # a


class RayleighState(NamedTuple):
    """What stays fixed over a run."""

    mean_gain: jax.Array  # [N] linear power gain without fading


@functools.cache
def rayleigh() -> ChannelModel:
    r"""Uniform disc, power-law path loss, Rayleigh block fading.

    $|h_n|^2 = C_0 (d_n/d_0)^{-a} g_n$ with $g_n \sim \mathrm{Exp}(1)$, new each round
    (FedFT §II-B and §V-A). Positions are drawn once per run.

    Returns:
      A `ChannelModel` with `RayleighParams`.

    Example:
      >>> import jax
      >>> channel = rayleigh()
      >>> state = channel.init(jax.random.key(0), 20, channel.params)
      >>> _, gain = channel.sample(jax.random.key(1), state, channel.params)
      >>> gain.shape
      (20,)
    """

    def init(key: jax.Array, num_devices: int, params: RayleighParams) -> RayleighState:
        position_m = uniform_disc(key, num_devices, params.radius_m, jnp.asarray(params.centre_m))
        distance_m = jnp.linalg.norm(position_m, axis=-1)
        return RayleighState(
            mean_gain=power_law_gain(
                distance_m,
                params.reference_gain_db,
                params.reference_distance_m,
                params.path_loss_exponent,
            )
        )

    def sample(
        key: jax.Array, state: RayleighState, params: RayleighParams
    ) -> tuple[RayleighState, jax.Array]:
        del params
        return state, state.mean_gain * jax.random.exponential(key, state.mean_gain.shape)

    return ChannelModel(init, sample, RayleighParams())
