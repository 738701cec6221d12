"""Drift-plus-penalty scheduling: FedFT's Problem P1 and Algorithm 1."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.scheduling.bandwidth import min_delay_bandwidth
from jaxsplit.scheduling.base import Observation, Schedule, Scheduler, check_min_devices
from jaxsplit.scheduling.prefixes import PrefixRates, bound_rates, tighten_rates

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
    prefixes of the sorted order are all there is to compare. Their delays are bounded together
    (`prefixes`), which costs N log N and not N² as one allocation per prefix would;
    `min_delay_bandwidth` then shares the band among the chosen.

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
      `Schedule(mask, bandwidth, delay, value, is_ambiguous)` in the caller's device order; `delay`
      per bit. `is_ambiguous` where the arithmetic could not tell the choice from another.

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
    num_devices = snr_hz.shape[-1]
    check_min_devices(min_devices, num_devices)
    order = jnp.argsort(-snr_hz, stable=True)
    sorted_hz = snr_hz[order]
    problem = _Problem(_rewards(weight, num_devices, objective, min_devices), queue)

    # Bounds of every prefix's rate, tightened until they decide.
    search = _SEARCH[rule]

    def tighten(_: jax.Array, rates: PrefixRates) -> PrefixRates:
        wanted = search.open_sets(problem, rates)[1:]
        return tighten_rates(rates, sorted_hz, total_hz, wanted, search.num_points)

    rates = jax.lax.fori_loop(0, search.num_steps, tighten, bound_rates(sorted_hz, total_hz))
    # Without any channel all values are -inf: the least set then waits for ever, and it shows.
    count = jnp.maximum(search.choose(problem, rates), min_devices)

    mask = jnp.zeros(num_devices, bool).at[order].set(jnp.arange(num_devices) < count)
    bandwidth_hz, delay = min_delay_bandwidth(snr_hz, mask, total_hz)
    value = problem.reward[count] - queue * delay
    is_ambiguous = jnp.sum(search.open_sets(problem, rates)) > 1
    return Schedule(mask, bandwidth_hz, delay, value, is_ambiguous)


# -- the search over prefixes, K = 0 … N -----------------------------------------------------------


class _Problem(NamedTuple):
    reward: jax.Array  # [N + 1], V ρ(K); -inf where K is not allowed
    queue: jax.Array

    def values(self, rate: jax.Array) -> jax.Array:
        """Objective of every prefix [N + 1] at the rates [N] of K = 1 … N."""
        waiting = jnp.where(self.queue > 0, self.queue / rate, 0)  # not 0/0 at rate 0
        return self.reward - jnp.concatenate([jnp.zeros_like(waiting[:1]), waiting])


def _rewards(
    weight: jax.Array, num_devices: int, objective: Objective, min_devices: int
) -> jax.Array:
    count = jnp.arange(num_devices + 1, dtype=jnp.result_type(weight))
    if objective == "count":
        reward = weight * count
    else:
        reward = weight * (-num_devices / jnp.maximum(count, 1))
        reward = jnp.where(count > 0, reward, -jnp.inf)
    return jnp.where(count >= min_devices, reward, -jnp.inf)


def _can_be_best(problem: _Problem, rates: PrefixRates) -> jax.Array:
    """The prefixes [N + 1] that no other is known to beat."""
    return problem.values(rates.high) >= jnp.max(problem.values(rates.low))


def _best(problem: _Problem, rates: PrefixRates) -> jax.Array:
    """The size of the best prefix by the estimates, the smallest of equals."""
    values = jnp.where(_can_be_best(problem, rates), problem.values(rates.estimate), -jnp.inf)
    return jnp.argmax(values)


def _can_stop(problem: _Problem, rates: PrefixRates) -> jax.Array:
    """The prefixes [N + 1] whose comparison with the next can still decide where the value falls.

    The first half of them, as the first fall decides, with both sizes compared. If none is open,
    the one that is known to stop.
    """
    surely, maybe = _falls(problem, problem.values(rates.high), problem.values(rates.low))
    stop = jnp.argmax(surely)
    size = jnp.arange(maybe.shape[0])
    undecided = maybe & ~surely & (size < stop)
    rank = jnp.cumsum(undecided.astype(jnp.int32))
    undecided &= rank <= jnp.maximum(rank[-1] // 2, 4)
    compared = undecided | jnp.concatenate([jnp.zeros(1, bool), undecided[:-1]])
    return jnp.where(jnp.any(undecided), compared, size == stop)


def _first_fall(problem: _Problem, rates: PrefixRates) -> jax.Array:
    """The size at which the value falls for the first time by the estimates, N if it never does."""
    values = problem.values(rates.estimate)
    surely, maybe = _falls(problem, problem.values(rates.high), problem.values(rates.low))
    falls, _ = _falls(problem, values, values)
    return jnp.argmax(surely | (maybe & falls))


def _falls(
    problem: _Problem, at_most: jax.Array, at_least: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Where the next prefix surely has, and may have, a lower value [N + 1]; both at the end."""
    is_allowed = problem.reward[:-1] > -jnp.inf
    end = jnp.ones(1, bool)
    surely = is_allowed & (at_most[1:] < at_least[:-1])
    maybe = is_allowed & (at_least[1:] < at_most[:-1])
    return jnp.concatenate([surely, end]), jnp.concatenate([maybe, end])


class _Search(NamedTuple):
    open_sets: Callable[[_Problem, PrefixRates], jax.Array]
    choose: Callable[[_Problem, PrefixRates], jax.Array]
    num_steps: int
    num_points: int


# Steps and points that leave no prefix open but for ties to rounding, on random queues and on those
# that runs settle at, where many prefixes are worth almost the same (tests/scheduling/
# test_prefixes.py, up to 100 devices).
_SEARCH = {
    "exact": _Search(_can_be_best, _best, num_steps=4, num_points=12),
    "first_descent": _Search(_can_stop, _first_fall, num_steps=5, num_points=16),
}


class LyapunovParams(NamedTuple):
    """Numbers of the Lyapunov scheduler."""

    v: ArrayLike = 1.0  # dimensionless: V_t = v·τ̄²·γ^t·c^(T−1−t)
    v_decay: ArrayLike = 1.0  # γ, 1 for a constant V
    contraction: ArrayLike = 1.0  # c = 1 − μη of Theorem 1, 1 to weigh all rounds alike
    horizon_rounds: ArrayLike = 1  # T; from there on the last factor is 1


@functools.cache
def lyapunov(
    rule: Rule = "exact", objective: Objective = "count", min_devices: int = 1
) -> Scheduler:
    r"""The online scheduler of FedFT §IV: `solve_p1` under the virtual queue.

    $V_t = v\,\bar\tau^2\,\gamma^t c^{\max(T-1-t, 0)}$, so that v has no unit and keeps its meaning
    over budgets. With $c = 1 - \mu\eta$ and `objective="bound"` a round's reward is its term of
    Theorem 1 (FedFT (13)), in which later rounds weigh more.

    Args:
      rule: see `solve_p1`; `"first_descent"` is the paper's Algorithm 1.
      objective: see `solve_p1`; `"count"` is the paper's.
      min_devices: smallest set allowed.

    Returns:
      A `Scheduler` with `LyapunovParams`.

    Raises:
      ValueError: unknown `rule` or `objective`.

    Example:
      >>> params = lyapunov(objective="bound").params
      >>> params
      LyapunovParams(v=1.0, v_decay=1.0, contraction=1.0, horizon_rounds=1)
      >>> late_rounds_count = params._replace(contraction=0.98, horizon_rounds=200)
    """
    _one_of("rule", rule, Rule)
    _one_of("objective", objective, Objective)

    def step(
        key: jax.Array, state: tuple[()], seen: Observation, params: LyapunovParams
    ) -> tuple[tuple[()], Schedule]:
        del key
        done = seen.round_index.astype(seen.delay_budget.dtype)
        left = jnp.maximum(jnp.asarray(params.horizon_rounds, done.dtype) - 1 - done, 0)
        schedule_of_v = (
            jnp.asarray(params.v_decay) ** done * jnp.asarray(params.contraction) ** left
        )
        weight = jnp.asarray(params.v) * seen.delay_budget**2 * schedule_of_v
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
