"""Drift-plus-penalty scheduling: FedFT's Problem P1 and Algorithm 1."""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.scheduling.bandwidth import min_delay_bandwidth
from jaxsplit.scheduling.base import Observation, Schedule, Scheduler, prefix_masks

Rule = Literal["exact", "first_descent"]
Objective = Literal["count", "bound"]


def _one_of(name: str, value: Any, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name}={value!r} is unknown: choose one of {get_args(allowed)}")


def solve_p1(
    snr_hz: jax.Array,
    total_hz: jax.Array,
    weight: jax.Array,
    queue: jax.Array,
    rule: Rule = "exact",
    objective: Objective = "count",
    *,
    min_devices: int = 1,
) -> Schedule:
    r"""Choose the scheduled set and its bandwidth for one round.

    Problem P1 of FedFT (22): $\max_S V_t\,\rho(|S|) - Q_t\,\tau(S)$ with
    $\rho(K) = K$ (`"count"`, the paper) or $\rho(K) = -N/K$ (`"bound"`: what Theorem 1
    penalises). For a given K the best set is the K strongest channels (Theorem 2), so N
    prefixes of the sorted order are all there is to compare; τ of each is
    `min_delay_bandwidth`.

    Args:
      snr_hz: P·|h_n|²/N0 in Hz, shape [N], in any order.
      total_hz: B in Hz.
      weight: V_t > 0, in (s/bit)² (the objective then has the unit of `queue`·delay).
      queue: Q_t >= 0 in s/bit.
      rule: `"exact"` takes the best prefix (the smallest of equals). `"first_descent"` is
        Algorithm 1: grow the prefix, stop the first time the objective falls (a tie goes on).
        They differ where τ_K is concave in K, and the objective can fall first and rise later.
      objective: `"count"` or `"bound"`.
      min_devices: smallest set allowed, static.

    Returns:
      `Schedule(mask, bandwidth, delay, value)` in the caller's device order; `delay` per bit.

    Raises:
      ValueError: unknown `rule` or `objective`; `min_devices` outside 0…N.

    Example:
      >>> import jax.numpy as jnp
      >>> snr = jnp.array([2e8, 1e9, 5e8])
      >>> solve_p1(snr, jnp.float32(2e7), jnp.float32(1.6e-16), jnp.float32(2e-8)).mask.tolist()
      [False, True, True]
    """
    _one_of("rule", rule, Rule)
    _one_of("objective", objective, Objective)
    masks = prefix_masks(snr_hz, min_devices)  # every admissible set at once: [prefix, device]
    bandwidths, delays = jax.vmap(min_delay_bandwidth, in_axes=(None, 0, None))(
        snr_hz, masks, total_hz
    )
    count = jnp.sum(masks, axis=-1).astype(delays.dtype)
    reward = count if objective == "count" else -snr_hz.shape[-1] / count
    values = weight * reward - queue * delays

    if rule == "exact":
        best = jnp.argmax(values)
    else:
        falls = jnp.append(values[1:] < values[:-1], True)  # the last prefix always stops
        best = jnp.argmax(falls)
    return Schedule(masks[best], bandwidths[best], delays[best], values[best])


class LyapunovParams(NamedTuple):
    """Numbers of the Lyapunov scheduler."""

    v: ArrayLike = 1.0  # dimensionless: V_t = v·τ̄²·γ^t
    v_decay: ArrayLike = 1.0  # γ, 1 for a constant V


@functools.cache
def lyapunov(
    rule: Rule = "exact", objective: Objective = "count", min_devices: int = 1
) -> Scheduler:
    r"""The online scheduler of FedFT §IV: `solve_p1` under the virtual queue.

    $V_t = v\,\bar\tau^2\,\gamma^t$, so that v has no unit and keeps its meaning over budgets.

    Args:
      rule: see `solve_p1`; `"first_descent"` is the paper's Algorithm 1.
      objective: see `solve_p1`; `"count"` is the paper's.
      min_devices: smallest set allowed.

    Returns:
      A `Scheduler` with `LyapunovParams`.

    Raises:
      ValueError: unknown `rule` or `objective`.

    Example:
      >>> lyapunov(objective="bound").params
      LyapunovParams(v=1.0, v_decay=1.0)
    """
    _one_of("rule", rule, Rule)
    _one_of("objective", objective, Objective)

    def step(
        key: jax.Array, state: tuple[()], seen: Observation, params: LyapunovParams
    ) -> tuple[tuple[()], Schedule]:
        del key
        decay = jnp.asarray(params.v_decay) ** seen.round_index.astype(seen.delay_budget.dtype)
        weight = jnp.asarray(params.v) * seen.delay_budget**2 * decay
        schedule = solve_p1(
            seen.snr_hz,
            seen.total_hz,
            weight,
            seen.queue,
            rule,
            objective,
            min_devices=min_devices,
        )
        return state, schedule

    return Scheduler(lambda num_devices, params: (), step, LyapunovParams())
