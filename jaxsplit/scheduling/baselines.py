"""The paper's benchmark schedulers (FedFT §V-A), all without memory."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxsplit_kernels import bandwidth_for_rate

from jaxsplit.scheduling.bandwidth import equal_bandwidth, min_delay_bandwidth, slowest_delay
from jaxsplit.scheduling.base import (
    Observation,
    Schedule,
    Scheduler,
    check_min_devices,
    strongest_first,
)
from jaxsplit.scheduling.prefixes import prefix_sum
from jaxsplit.wireless.link import transmission_delay


def _memoryless(step: Any) -> Scheduler:
    return Scheduler(
        lambda num_devices, params: (), lambda key, state, seen, params: (state, step(seen))
    )


def _schedule(mask: jax.Array, bandwidth_hz: jax.Array, delay: jax.Array) -> Schedule:
    return Schedule(mask, bandwidth_hz, delay, jnp.full_like(delay, jnp.nan))


@functools.cache
def all_in() -> Scheduler:
    """Every device in every round, minimum-delay allocation, no delay constraint.

    The learning benchmark of FedFT. Its mean delay under Rayleigh fading is infinite
    (E[1/g] diverges): report its median.

    Example:
      >>> all_in().params
      ()
    """

    def step(seen: Observation) -> Schedule:
        mask = jnp.ones(seen.snr_hz.shape, bool)
        return _schedule(mask, *min_delay_bandwidth(seen.snr_hz, mask, seen.total_hz))

    return _memoryless(step)


@functools.cache
def aaba(min_devices: int = 1) -> Scheduler:
    r"""Adaptive average bandwidth allocation: an equal split for as many devices as fit.

    The largest prefix of the strongest channels with $\max_n 1/r_n(B/K) \le \bar\tau$
    (FedFT (28)).

    Args:
      min_devices: devices scheduled even where they exceed the budget.

    Example:
      >>> aaba().params
      ()
    """

    def step(seen: Observation) -> Schedule:
        num_devices = seen.snr_hz.shape[-1]
        check_min_devices(min_devices, num_devices)
        rank = strongest_first(seen.snr_hz)
        # As the weakest of its prefix, each device decides that prefix's delay. The delay grows
        # with the prefix, so counting those that fit finds the largest.
        share_hz = seen.total_hz / (rank + 1).astype(seen.snr_hz.dtype)
        fits = transmission_delay(1, share_hz, seen.snr_hz) <= seen.delay_budget
        mask = rank < jnp.maximum(jnp.sum(fits), min_devices)
        bandwidth_hz = equal_bandwidth(mask, seen.total_hz)
        return _schedule(mask, bandwidth_hz, slowest_delay(bandwidth_hz, seen.snr_hz, mask))

    return _memoryless(step)


@functools.cache
def greedy(
    allocation: Literal["minimum_delay", "required"] = "minimum_delay", min_devices: int = 1
) -> Scheduler:
    r"""The greedy strategy: as many devices as can meet the budget in this very round.

    Devices join, strongest first, while $\sum_n b_n(1/\bar\tau) \le B$ (FedFT (29), with
    $b_n$ from Lemma 3).

    Args:
      allocation: `"minimum_delay"` then shares all of B so that the set finishes as early as
        possible (our reading); `"required"` leaves each device its b_n(1/τ̄).
      min_devices: devices scheduled even where they exceed the budget.

    Raises:
      ValueError: unknown `allocation`.

    Example:
      >>> greedy().params
      ()
    """
    if allocation not in ("minimum_delay", "required"):
        raise ValueError(
            f"allocation={allocation!r} is unknown: choose 'minimum_delay' or 'required'"
        )

    def step(seen: Observation) -> Schedule:
        check_min_devices(min_devices, seen.snr_hz.shape[-1])
        rank = strongest_first(seen.snr_hz)
        rate = jnp.broadcast_to(1 / seen.delay_budget, seen.snr_hz.shape)
        required_hz = bandwidth_for_rate(rate, seen.snr_hz)
        # The band used by a device and all stronger ones. What cannot fit counts as twice the
        # band, as infinities would spoil the sums.
        sorted_hz = jnp.zeros_like(required_hz).at[rank].set(required_hz)
        used_hz = prefix_sum(jnp.minimum(sorted_hz, 2 * seen.total_hz))
        fits = (used_hz <= seen.total_hz)[rank]
        mask = fits | (rank < min_devices)
        bandwidth_hz, delay = min_delay_bandwidth(seen.snr_hz, mask, seen.total_hz)
        if allocation == "required":
            # Where a forced device exceeds the band there is nothing to spare: share all of it.
            keep = jnp.all(fits == mask)
            kept_hz = jnp.where(mask, required_hz, 0)
            bandwidth_hz = jnp.where(keep, kept_hz, bandwidth_hz)
            delay = jnp.where(keep, slowest_delay(kept_hz, seen.snr_hz, mask), delay)
        return _schedule(mask, bandwidth_hz, delay)

    return _memoryless(step)
