"""A channel that gives every device a signal-to-noise ratio that never changes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import ChannelModel


class FixedSnrParams(NamedTuple):
    """Numbers of the fixed-SNR channel; those of the link must be the network's."""

    snr_db: ArrayLike = 17.0  # scalar or [N] (SFT Table II)
    bandwidth_hz: ArrayLike = 20e6  # over which the SNR is meant
    power_dbm: ArrayLike = 10.0  # P
    noise_dbm_per_hz: ArrayLike = -174.0  # N₀


class FixedSnrState(NamedTuple):
    """Only how many devices there are."""

    like: jax.Array  # [N] zeros


@functools.cache
def fixed_snr() -> ChannelModel:
    r"""The gains at which `snr_density` is the same in every round.

    $|h_n|^2 = \mathrm{SNR}_n B N_0 / P$, hence $s_n = \mathrm{SNR}_n B$ in Hz (SFT Table II
    fixes the SNRs).

    Returns:
      A `ChannelModel` with `FixedSnrParams`.

    Raises:
      ValueError: in `init`, if `snr_db` is neither a scalar nor one value per device.

    Example:
      >>> import jax
      >>> from jaxsplit.wireless import snr_density
      >>> channel = fixed_snr()
      >>> state = channel.init(jax.random.key(0), 1, channel.params)
      >>> _, gain = channel.sample(jax.random.key(1), state, channel.params)
      >>> round(float(snr_density(gain, 10.0, -174.0)[0] / 20e6), 2)  # 17 dB
      50.12
    """

    def init(key: jax.Array, num_devices: int, params: FixedSnrParams) -> FixedSnrState:
        del key
        shape = jnp.shape(params.snr_db)
        if shape not in ((), (num_devices,)):
            raise ValueError(
                f"snr_db has shape {shape}: give a scalar or one value for each of the "
                f"{num_devices} devices, shape ({num_devices},)"
            )
        return FixedSnrState(jnp.zeros(num_devices))

    def sample(
        key: jax.Array, state: FixedSnrState, params: FixedSnrParams
    ) -> tuple[FixedSnrState, jax.Array]:
        del key
        snr_db, power_dbm = jnp.asarray(params.snr_db), jnp.asarray(params.power_dbm)
        band_db = 10 * jnp.log10(jnp.asarray(params.bandwidth_hz))
        gain = 10 ** ((snr_db + (band_db + params.noise_dbm_per_hz - power_dbm)) / 10)
        return state, jnp.broadcast_to(gain, state.like.shape)

    return ChannelModel(init, sample, FixedSnrParams())
