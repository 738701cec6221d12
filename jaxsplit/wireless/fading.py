"""Block-fading channels: a placement, a path loss and small-scale fading, composed."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import ChannelModel, PathLoss, Placement
from jaxsplit.wireless.geometry import power_law_gain, uniform_disc
from jaxsplit.wireless.path_loss import power_law, shadowed
from jaxsplit.wireless.placement import static_disc, waypoint_walk
from jaxsplit.wireless.small_scale import (
    exponential_power,
    gauss_markov_fading,
    nakagami_fading,
    rayleigh_fading,
    rician_fading,
)
from jaxsplit.wireless.tr38901 import uma_path_loss, umi_path_loss


class FadingParams(NamedTuple):
    """Numbers of a composed channel."""

    placement: Any  # of the placement
    path_loss: Any  # of the path loss
    small_scale: Any  # of the small-scale fading


class FadingState(NamedTuple):
    """What a round of a composed channel hands to the next."""

    placement: Any
    path_loss: Any
    small_scale: Any


@functools.cache
def fading_channel(
    placement: Placement | None = None,
    path_loss: PathLoss | None = None,
    small_scale: ChannelModel | None = None,
) -> ChannelModel:
    r"""A channel from its parts.

    $|h_n|^2 = G(x_n)\,g_n$: the devices move to $x_n$, the large scale gives the mean gain G
    there, the small scale fades it. Any part goes with any other.

    Args:
      placement: where the devices are; None for `static_disc()`.
      path_loss: G; None for `power_law()`.
      small_scale: g, a channel model of mean gain 1; None for `rayleigh_fading()`.

    Returns:
      A `ChannelModel` with `FadingParams`.

    Example:
      >>> import jax
      >>> from jaxsplit.wireless import rician_fading, umi_path_loss, waypoint_walk
      >>> channel = fading_channel(waypoint_walk(), umi_path_loss(), rician_fading())
      >>> weak = channel.params.small_scale._replace(k_factor_db=3.0)
      >>> params = channel.params._replace(small_scale=weak)
      >>> state = channel.init(jax.random.key(0), 20, params)
      >>> state, gain = channel.sample(jax.random.key(1), state, params)
      >>> gain.shape
      (20,)
    """
    place = placement or static_disc()
    loss = path_loss or power_law()
    small = small_scale or rayleigh_fading()

    def init(key: jax.Array, num_devices: int, params: FadingParams) -> FadingState:
        key_place, key_loss, key_small = jax.random.split(key, 3)
        placed = place.init(key_place, num_devices, params.placement)
        return FadingState(
            placement=placed,
            path_loss=loss.init(key_loss, placed.position_m, params.path_loss),
            small_scale=small.init(key_small, num_devices, params.small_scale),
        )

    def sample(
        key: jax.Array, state: FadingState, params: FadingParams
    ) -> tuple[FadingState, jax.Array]:
        key_place, key_loss, key_small = jax.random.split(key, 3)
        placed = place.move(key_place, state.placement, params.placement)
        lossy, mean_gain = loss.sample(
            key_loss, state.path_loss, placed.position_m, params.path_loss
        )
        faded, fading = small.sample(key_small, state.small_scale, params.small_scale)
        return FadingState(placed, lossy, faded), mean_gain * fading

    return ChannelModel(init, sample, FadingParams(place.params, loss.params, small.params))


def rician() -> ChannelModel:
    """Uniform disc, power law, `rician_fading`.

    Example:
      >>> rician().params.small_scale
      RicianParams(k_factor_db=9.0)
    """
    return fading_channel(small_scale=rician_fading())


def nakagami() -> ChannelModel:
    """Uniform disc, power law, `nakagami_fading`.

    Example:
      >>> nakagami().params.small_scale
      NakagamiParams(shape=2.0)
    """
    return fading_channel(small_scale=nakagami_fading())


def gauss_markov() -> ChannelModel:
    """Uniform disc, power law, `gauss_markov_fading`: Rayleigh, correlated over rounds.

    Example:
      >>> gauss_markov().params.small_scale
      GaussMarkovParams(correlation=0.9, k_factor_db=-inf)
    """
    return fading_channel(small_scale=gauss_markov_fading())


def log_normal_shadowing() -> ChannelModel:
    """Uniform disc, power law under `shadowed`, Rayleigh fading.

    Example:
      >>> log_normal_shadowing().params.path_loss.std_db
      8.0
    """
    return fading_channel(path_loss=shadowed(power_law()))


def random_waypoint() -> ChannelModel:
    """Devices on a `waypoint_walk`, power law, Rayleigh fading.

    Example:
      >>> random_waypoint().params.placement.pause_s
      10.0
    """
    return fading_channel(placement=waypoint_walk())


def umi() -> ChannelModel:
    """Uniform disc, 3GPP urban micro street canyon (`umi_path_loss`), Rayleigh fading.

    Example:
      >>> umi().params.path_loss.server_height_m
      10.0
    """
    return fading_channel(path_loss=umi_path_loss())


def uma() -> ChannelModel:
    """Uniform disc, 3GPP urban macro cell (`uma_path_loss`), Rayleigh fading.

    Example:
      >>> uma().params.path_loss.server_height_m
      25.0
    """
    return fading_channel(path_loss=uma_path_loss())


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
        return state, state.mean_gain * exponential_power(key, state.mean_gain.shape)

    return ChannelModel(init, sample, RayleighParams())
