"""What a round takes out of a device's battery."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.costs.delay import Phases, Processor


class DeviceEnergy(NamedTuple):
    """Joule that each device spends in a round, [N] each."""

    transmission_j: jax.Array  # radiated
    computation_j: jax.Array  # forward and backward

    @property
    def total_j(self) -> jax.Array:
        """Both."""
        return self.transmission_j + self.computation_j


def device_energy(
    phases: Phases, devices: Processor, power_dbm: ArrayLike, capacitance: ArrayLike
) -> DeviceEnergy:
    r"""Energy of sending and computing; receiving and idling are not in it.

    $E = P\,(t_{IT} + t_{LT}) + \kappa f^2 M$, M cycles of the clock. A cycle is one of the whole
    processor, in which all its cores work: M = FLOP / (cores · FLOP per cycle), so κ is the
    capacitance of the whole processor. SFT gives no energy; the model is that of Mao et al. 2017
    §II-C.

    Args:
      phases: of the round; a device that does not take part has zeros and spends nothing.
      devices: their processors, as in `round_phases`.
      power_dbm: P, transmit power in dBm, [N] or one for all.
      capacitance: κ, effective switched capacitance in J·s²/cycle³, [N] or one for all.

    Returns:
      Joule, [N] each.

    Example:
      >>> none, second = jnp.zeros(1), jnp.ones(1)
      >>> phases = Phases(none, second, second, none, none, none, 2 * second, second)
      >>> energy = device_energy(phases, Processor(1e9, 256, 4), power_dbm=30.0, capacitance=1e-27)
      >>> [round(joule.item(), 3) for joule in energy]  # 1 W for 2 s; 3e9 cycles at 1 nJ
      [2.0, 3.0]
    """
    power_w = 10 ** ((jnp.asarray(power_dbm, jnp.result_type(float)) - 30) / 10)
    clock_hz = jnp.asarray(devices.clock_hz, jnp.result_type(float))
    # Phases hold FLOP / (f · cores · FLOP per cycle): times f these are the cycles.
    cycles = clock_hz * (phases.device_forward_s + phases.device_backward_s)
    per_cycle = jnp.asarray(capacitance, jnp.result_type(float)) * clock_hz * clock_hz
    return DeviceEnergy(
        transmission_j=power_w * (phases.activation_s + phases.adapter_s),
        computation_j=per_cycle * cycles,
    )
