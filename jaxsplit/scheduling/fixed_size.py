"""Schedulers of k devices per round, as users know them from other work: who, but not how many.

All share the band for minimum delay, as FedFT's policies do, and ignore the delay budget.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.scheduling.bandwidth import min_delay_bandwidth
from jaxsplit.scheduling.base import Observation, Schedule, Scheduler, strongest_first
from jaxsplit.wireless.link import shannon_rate


def _first_k(score: jax.Array, k: int) -> jax.Array:
    """The mask of the k greatest scores [N], ties by index."""
    num_devices = score.shape[-1]
    if k > num_devices:
        raise ValueError(f"k={k} is more than there are devices: choose 1 to {num_devices}")
    return strongest_first(score) < k


def _check_size(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k} devices per round: choose at least 1")


def _schedule(mask: jax.Array, seen: Observation) -> Schedule:
    bandwidth_hz, delay = min_delay_bandwidth(seen.snr_hz, mask, seen.total_hz)
    return Schedule(mask, bandwidth_hz, delay, jnp.full_like(delay, jnp.nan))


@functools.cache
def random_k(k: int) -> Scheduler:
    """The same number of devices, drawn uniformly at random in each round (FedAvg's sampling).

    Args:
      k: devices per round.

    Returns:
      A `Scheduler` without state.

    Raises:
      ValueError: `k` < 1; while tracing, `k` > N.

    Example:
      >>> random_k(3).params
      ()
    """
    _check_size(k)

    def step(
        key: jax.Array, state: tuple[()], seen: Observation, params: tuple[()]
    ) -> tuple[tuple[()], Schedule]:
        del params
        mask = _first_k(jax.random.uniform(key, seen.snr_hz.shape), k)
        return state, _schedule(mask, seen)

    return Scheduler(lambda num_devices, params: (), step)


class RoundRobinState(NamedTuple):
    """Whose turn it is."""

    first: jax.Array  # [] int32, the first device of the next round


@functools.cache
def round_robin(k: int) -> Scheduler:
    """Device after device in turn, k per round: every device equally often, whatever its channel.

    Args:
      k: devices per round.

    Returns:
      A `Scheduler` with `RoundRobinState`.

    Raises:
      ValueError: `k` < 1; while tracing, `k` > N.

    Example:
      >>> round_robin(3).init(20, ()).first.item()
      0
    """
    _check_size(k)

    def init(num_devices: int, params: tuple[()]) -> RoundRobinState:
        del num_devices, params
        return RoundRobinState(jnp.int32(0))

    def step(
        key: jax.Array, state: RoundRobinState, seen: Observation, params: tuple[()]
    ) -> tuple[RoundRobinState, Schedule]:
        del key, params
        num_devices = seen.snr_hz.shape[-1]
        waiting = (jnp.arange(num_devices, dtype=jnp.int32) - state.first) % num_devices
        mask = _first_k(-waiting.astype(seen.snr_hz.dtype), k)
        return RoundRobinState((state.first + k) % num_devices), _schedule(mask, seen)

    return Scheduler(init, step)


class ProportionalFairParams(NamedTuple):
    """Numbers of the proportional fair scheduler."""

    window_rounds: ArrayLike = 100.0  # w > 1, memory of the average rate


class ProportionalFairState(NamedTuple):
    """What each device has got so far."""

    mean_rate: jax.Array  # [N] bit/s, exponentially weighted


@functools.cache
def proportional_fair(k: int) -> Scheduler:
    r"""The k devices whose channel is best compared with what they have got so far.

    Metric $r_n / \bar r_n$ with the rate $r_n$ that the device would have on B/k and the average
    $\bar r_n \leftarrow (1 - 1/w)\,\bar r_n + (1/w)\,r_n \mathbb 1[n \in S]$ of the rates that it
    did have (Viswanath, Tse and Laroia 2002, section III). Devices that never took part come
    first, the strongest of them foremost. Maximises $\sum_n \log \bar r_n$ for long windows.

    Args:
      k: devices per round.

    Returns:
      A `Scheduler` with `ProportionalFairParams` and `ProportionalFairState`.

    Raises:
      ValueError: `k` < 1; while tracing, `k` > N.

    Example:
      >>> proportional_fair(3).params
      ProportionalFairParams(window_rounds=100.0)
    """
    _check_size(k)

    def init(num_devices: int, params: ProportionalFairParams) -> ProportionalFairState:
        return ProportionalFairState(jnp.zeros(num_devices, jnp.result_type(params.window_rounds)))

    def step(
        key: jax.Array,
        state: ProportionalFairState,
        seen: Observation,
        params: ProportionalFairParams,
    ) -> tuple[ProportionalFairState, Schedule]:
        del key
        share_hz = jnp.broadcast_to(seen.total_hz / k, seen.snr_hz.shape)
        possible = shannon_rate(share_hz, seen.snr_hz)
        # Not 0/0; small enough that whoever had nothing comes before whoever had something.
        served = jnp.maximum(state.mean_rate, 1e-12 * jnp.max(possible))
        schedule = _schedule(_first_k(possible / served, k), seen)
        forgotten = 1 / jnp.asarray(params.window_rounds)
        got = jnp.where(schedule.mask, 1 / schedule.delay, 0)
        mean_rate = (1 - forgotten) * state.mean_rate + forgotten * got
        return ProportionalFairState(mean_rate), schedule

    return Scheduler(init, step, ProportionalFairParams())
