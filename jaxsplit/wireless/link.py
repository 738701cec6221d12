"""What a link of given bandwidth carries; `jaxsplit_kernels.bandwidth_for_rate` is its inverse."""

import math
from typing import Literal, get_args

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


Duplex = Literal["half", "full"]


def exchange_delay(
    uplink_s: jax.Array, downlink_s: jax.Array, duplex: Duplex = "half"
) -> jax.Array:
    """Time that an exchange takes whose two directions take so long.

    Args:
      uplink_s: time to send to the server, seconds, any shape.
      downlink_s: time to receive from it, seconds, likewise.
      duplex: "half", a device sends and receives in turn on its band, one phase after the other;
        "full", on a band for each direction at once, so that the longer one counts.

    Returns:
      Seconds, shaped like the arguments.

    Raises:
      ValueError: unknown `duplex`.

    Example:
      >>> import jax.numpy as jnp
      >>> up, down = jnp.array([3.0, 1.0]), jnp.array([1.0, 2.0])
      >>> exchange_delay(up, down).tolist(), exchange_delay(up, down, "full").tolist()
      ([4.0, 3.0], [3.0, 2.0])
    """
    check_duplex(duplex)
    return uplink_s + downlink_s if duplex == "half" else jnp.maximum(uplink_s, downlink_s)


def check_duplex(duplex: str) -> None:
    """Raise a ValueError for a duplex that there is not."""
    if duplex not in get_args(Duplex):
        raise ValueError(f"duplex={duplex!r} is unknown: choose one of {get_args(Duplex)}")
