"""The paper's benchmark schedulers (FedFT §V-A), all without memory."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxsplit_kernels import bandwidth_for_rate

from jaxsplit.scheduling.bandwidth import equal_bandwidth, min_delay_bandwidth, slowest_delay
from jaxsplit.scheduling.base import Observation, Schedule, Scheduler, prefix_masks, strongest_first


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
        masks = prefix_masks(seen.snr_hz, min_devices)
        bandwidths = jax.vmap(equal_bandwidth, in_axes=(0, None))(masks, seen.total_hz)
        delays = jax.vmap(slowest_delay, in_axes=(0, None, 0))(bandwidths, seen.snr_hz, masks)
        # The delay grows with the prefix, so counting the prefixes that fit finds the largest.
        best = jnp.maximum(jnp.sum(delays <= seen.delay_budget) - 1, 0)
        return _schedule(masks[best], bandwidths[best], delays[best])

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
        rank = strongest_first(seen.snr_hz)
        rate = jnp.broadcast_to(1 / seen.delay_budget, seen.snr_hz.shape)
        required_hz = bandwidth_for_rate(rate, seen.snr_hz)
        # The band used by a device and all stronger ones; infeasible devices are inf.
        stronger_or_same = rank[None, :] <= rank[:, None]
        used_hz = jnp.sum(jnp.where(stronger_or_same, required_hz[None, :], 0), axis=-1)
        fits = used_hz <= seen.total_hz
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
