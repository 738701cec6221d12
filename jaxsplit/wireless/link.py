"""What a link of given bandwidth carries; `jaxsplit_kernels.bandwidth_for_rate` is its inverse."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def snr_density(gain: jax.Array, power_dbm: ArrayLike, noise_dbm_per_hz: ArrayLike) -> jax.Array:
    r"""Received power over noise density, in Hz: the bandwidth at which the SNR would be 1.

    $s_n = P |h_n|^2 / N_0$ (FedFT (5)).

    Args:
      gain: channel power gains |h|², linear, any shape.
      power_dbm: transmit power P in dBm.
      noise_dbm_per_hz: noise power density N₀ in dBm/Hz.

    Returns:
      s in Hz, shaped like `gain`.

    Example:
      >>> import jax.numpy as jnp
      >>> float(snr_density(jnp.float32(1e-9), 10.0, -174.0)) / 2.512e9
      0.9999...
    """
    return gain * 10 ** ((jnp.asarray(power_dbm) - noise_dbm_per_hz) / 10)


def shannon_rate(bandwidth_hz: jax.Array, snr_hz: jax.Array) -> jax.Array:
    r"""Rate of an FDMA link with fixed transmit power.

    $r = b \log_2(1 + s/b)$ (FedFT (5)): increasing in b, from 0 to the limit $s/\ln 2$.

    Args:
      bandwidth_hz: b in Hz, >= 0.
      snr_hz: s in Hz (`snr_density`), broadcast against `bandwidth_hz`.

    Returns:
      The rate in bit/s; 0 where the bandwidth is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> shannon_rate(jnp.array([0.0, 1e6]), jnp.float32(3e6)).tolist()
      [0.0, 2000000.0]
    """
    has_band = bandwidth_hz > 0
    safe_hz = jnp.where(has_band, bandwidth_hz, 1)  # 0 · log(1 + s/0) would be NaN
    return jnp.where(has_band, safe_hz * jnp.log1p(snr_hz / safe_hz) / math.log(2), 0)


def transmission_delay(bits: ArrayLike, bandwidth_hz: jax.Array, snr_hz: jax.Array) -> jax.Array:
    """Time that a payload takes on a link, bits over rate (FedFT (7), per device).

    Args:
      bits: payload L in bit, broadcast against the rate.
      bandwidth_hz: b in Hz.
      snr_hz: s in Hz.

    Returns:
      Seconds; inf where there is no bandwidth.

    Example:
      >>> import jax.numpy as jnp
      >>> float(transmission_delay(4e6, jnp.float32(1e6), jnp.float32(3e6)))
      2.0
    """
    return jnp.asarray(bits) / shannon_rate(bandwidth_hz, snr_hz)
