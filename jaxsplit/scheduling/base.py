"""The contract of a scheduler, and the virtual queue that every run tracks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Schedule(NamedTuple):
    """Who takes part in a round, on which bandwidth, and how long one bit takes."""

    mask: jax.Array  # [N] bool, True for scheduled devices
    bandwidth: jax.Array  # [N] Hz, 0 for the others
    delay: jax.Array  # [] s/bit, of the slowest scheduled device; 0 for an empty set
    value: jax.Array  # [] the scheduler's own objective, NaN where it has none
    is_ambiguous: ArrayLike = False  # [] bool, rounding could not tell the choice from another


class Observation(NamedTuple):
    """What a scheduler may look at when it decides a round."""

    snr_hz: jax.Array  # [N] Hz, this round's P·|h_n|²/N0
    total_hz: jax.Array  # [] Hz, bandwidth to be shared
    queue: jax.Array  # [] s/bit, virtual queue Q_t
    delay_budget: jax.Array  # [] s/bit, τ̄
    round_index: jax.Array  # [] int32, t


class Scheduler(NamedTuple):
    """A device scheduler with its bandwidth allocation, as a pair of pure functions.

    A member is made by a lower-case factory that closes over choices; numbers travel in
    `params`. It sees equal nominal payloads, hence delays per bit; the simulator's clock
    charges what was really sent.

    Attributes:
      init: `(num_devices, params) -> state`, `()` for a scheduler without memory.
      step: `(key, state, observation, params) -> (state, Schedule)`, for one round.
      params: the default parameters, a pytree of numbers.
    """

    init: Callable[[int, Any], Any]
    step: Callable[[jax.Array, Any, Observation, Any], tuple[Any, Schedule]]
    params: Any = ()


def virtual_queue(queue: jax.Array, delay: jax.Array, delay_budget: jax.Array) -> jax.Array:
    r"""Virtual queue of the long-term delay constraint.

    $Q_{t+1} = \max(Q_t + \tau_t - \bar\tau, 0)$ (FedFT (18)). Summed up, it bounds the
    excess of every sample path: $\frac1T\sum_t \tau_t - \bar\tau \le (Q_T - Q_0)/T$.

    Args:
      queue: Q_t in s/bit.
      delay: τ_t in s/bit.
      delay_budget: τ̄ in s/bit.

    Returns:
      Q_{t+1} in s/bit.

    Example:
      >>> float(virtual_queue(0.0, 3.0, 2.0)), float(virtual_queue(0.0, 1.0, 2.0))
      (1.0, 0.0)
    """
    return jnp.maximum(queue + delay - delay_budget, 0)


def strongest_first(snr_hz: jax.Array) -> jax.Array:
    """Rank of every device in descending order of channel gain (FedFT (23)), ties by index.

    Args:
      snr_hz: shape [N].

    Returns:
      int32, shape [N]: 0 for the strongest device.

    Example:
      >>> import jax.numpy as jnp
      >>> strongest_first(jnp.array([2.0, 5.0, 3.0])).tolist()
      [2, 0, 1]
    """
    order = jnp.argsort(-snr_hz, stable=True)
    ranks = jnp.arange(snr_hz.shape[-1], dtype=jnp.int32)
    return jnp.zeros_like(ranks).at[order].set(ranks)


def check_min_devices(min_devices: int, num_devices: int) -> None:
    """Raise a ValueError if no set can have so many devices."""
    if not 0 <= min_devices <= num_devices:
        raise ValueError(
            f"min_devices={min_devices} is impossible: choose 0 to {num_devices} (all devices)"
        )
