"""What sending and computing cost a device's battery."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class ProcessorParams(NamedTuple):
    """Numbers of a device's processor. The papers give no energy: the values are ours.

    12 cycles per bit are ViT-B's patch embedding, 1,536 FLOP for each value of 32 bits that is
    sent, at 4 FLOP per cycle.
    """

    capacitance: ArrayLike = 1e-28  # κ, effective switched capacitance, J·s²/cycle³
    cycles_per_bit: ArrayLike = 12.0  # processor cycles for each bit that a device sends
    frequency_hz: ArrayLike = 1e9  # f, clock, cycles per second


def transmission_energy(power_dbm: ArrayLike, air_time_s: ArrayLike) -> jax.Array:
    r"""Energy radiated while a device sends.

    $E = P\,t$, with P in watt: $10^{(P_\mathrm{dBm} - 30)/10}$. The amplifier's losses are not in
    it: divide by its efficiency.

    Args:
      power_dbm: transmit power in dBm.
      air_time_s: time on the air in seconds (`transmission_delay`), any shape.

    Returns:
      Joule, shaped like `air_time_s`.

    Example:
      >>> float(transmission_energy(30.0, 2.0))  # 1 W for 2 s
      2.0
    """
    return 10 ** ((jnp.asarray(power_dbm) - 30) / 10) * jnp.asarray(air_time_s)


def computation_energy(
    capacitance: ArrayLike, cycles: ArrayLike, frequency_hz: ArrayLike
) -> jax.Array:
    r"""Energy that a processor's switching takes.

    $E = \kappa\,C f^2$: each cycle costs $\kappa f^2$, as voltage rises with frequency (Burd &
    Brodersen 1996; Mao et al. 2017 §II-C).

    Args:
      capacitance: κ, effective switched capacitance, J·s²/cycle³ (about 1e-28 for a phone).
      cycles: C, processor cycles, any shape.
      frequency_hz: f, clock in cycles per second.

    Returns:
      Joule, broadcast over the arguments.

    Example:
      >>> round(float(computation_energy(1e-28, 1e10, 1e9)), 6)  # ten seconds at 0.1 W
      1.0
    """
    per_cycle = jnp.asarray(capacitance) * jnp.asarray(frequency_hz) * jnp.asarray(frequency_hz)
    return per_cycle * jnp.asarray(cycles)
