"""Large timescale: compression and cut together, and what limits them (SFT, Algorithm 2)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsplit.planning.compression_ratio import beta_at
from jaxsplit.planning.problem import (
    BANDWIDTHS,
    PlanProblem,
    accuracy_target,
    caps_suffice,
    least_delay,
)
from jaxsplit.planning.surface import accuracy_at, bits_of_levels, turning_ratios

SEARCHES = ("augmented_lagrangian", "exact")

_MOST_LEVELS = 255  # codes are 8 bits
_NUM_STARTS = 8  # intervals of log2(E + 1), each searched on its own: the surface is not convex
_OUTER_STEPS = 6  # multiplier updates; the penalty reaches 10⁶ if the violation does not fall
_FIRST_PENALTY = 10.0
_PENALTY_GROWTH = 10.0
_ENOUGH_PROGRESS = 0.25  # of the violation must be left at most, or the penalty grows
_ZOOMS = 3
_RATIO_POINTS, _BITS_POINTS = 13, 9  # of a line search before it zooms in
_NEIGHBOURS = 6  # integers tried around a continuous E
_BISECTIONS = 30  # of [0, 1] in float32


class CutTable(NamedTuple):
    """The best of every cut, and what it breaks; each field has shape [C]."""

    cut: jax.Array  # l
    delay_s: jax.Array  # with the least β that the accuracy allows, whether or not l is feasible
    ratio: jax.Array  # ρ
    levels: jax.Array  # E
    beta: jax.Array
    accuracy: jax.Array
    accuracy_met: jax.Array  # bool
    memory_met: jax.Array  # bool, on every device
    caps_met: jax.Array  # bool, the caps allow the whole band
    feasible: jax.Array  # bool, all three


class Constraint(NamedTuple):
    """One constraint, or one for each entry of an array."""

    value: jax.Array
    limit: jax.Array
    slack: jax.Array  # how far it may still move; negative if it is broken
    binds: jax.Array  # bool


class Binding(NamedTuple):
    """Every constraint of SFT (27) at the plan."""

    accuracy: Constraint  # (27b); the limit is A_th, which may be missed by the tolerance
    reachable_accuracy: jax.Array  # the greatest within the bounds, over all ρ and E
    reachable_ratio: jax.Array  # ρ that reaches it
    reachable_levels: jax.Array  # E that reaches it
    memory: Constraint  # (27c), [C, N]; binds on cuts that it forbids and that would be faster
    ratio_low: Constraint  # (27d)
    ratio_high: Constraint  # (27d)
    levels_low: Constraint  # (27e)
    levels_high: Constraint  # (27e)
    caps: Constraint  # (27f), [N]
    band: Constraint  # (27g); value Σ b, limit B, slack Σ b_max − B


class Plan(NamedTuple):
    """A plan for the large timescale; without a feasible one, the nearest to it."""

    feasible: jax.Array  # bool
    cut: jax.Array  # l
    ratio: jax.Array  # ρ
    levels: jax.Array  # E
    bandwidth_hz: jax.Array  # shape [N]
    delay_s: jax.Array  # of a round
    beta: jax.Array  # compressed over raw bits
    accuracy: jax.Array  # fitted, parts of 1
    multiplier: jax.Array  # λ of the accuracy; 0 with `search="exact"`
    per_cut: CutTable
    binding: Binding


class _Candidate(NamedTuple):
    """The best ρ of a given E."""

    ratio: jax.Array
    levels: jax.Array
    beta: jax.Array
    accuracy: jax.Array
    met: jax.Array  # bool; else this is the most accurate ρ


@partial(jax.jit, static_argnames=("bandwidth", "search"))
def plan(
    problem: PlanProblem, *, bandwidth: str = "min_max", search: str = "augmented_lagrangian"
) -> Plan:
    r"""Choose the cut, ρ and E that make a round the shortest (SFT (28), Algorithm 2).

    For every cut l the augmented Lagrangian

    $$ \tau(\rho, E, l) + \lambda v + \frac{\mu}{2} v^2, \qquad
       v = \max(0, A_{th} - \epsilon - A(\rho, E)) $$

    is minimised over ρ and a continuous E within their bounds. Here τ is the delay on the
    bandwidth of the small timescale, in parts of the longest. Then λ grows by μv, and μ where that
    was not enough. (SFT (30) maximises τ plus the slack, which is not bounded.) Memory depends on
    l alone: its terms would be constants, and cuts that exceed it are left out instead. As the
    surface is not convex, this runs from several intervals of log2(E + 1). The integers around
    each E get their best ρ anew, so that rounding costs nothing.

    No device is faster with a larger β, so that the best (ρ, E) is that of the least β: it is the
    same for every cut and network, and the candidates of all cuts are pooled. `search="exact"`
    goes further and takes the best ρ of *every* E, a certain optimum for less work; Algorithm 2
    may in rare cases stay a fraction of a percent above it.

    Args:
      problem: of `plan_problem`.
      bandwidth: `min_max`, or `equal` for the same band to each device.
      search: `augmented_lagrangian` as in the paper, or `exact`.

    Returns:
      The plan, arrays throughout: it may be vmapped over problems. Whether it is feasible, and
      what binds, is part of it; `explain` puts it into words.

    Raises:
      ValueError: an unknown `bandwidth` or `search`.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> best = plan(example_problem())
      >>> print(best.feasible, best.cut, best.levels, f"{best.ratio:.2f} {best.delay_s:.1f} s")
      True 2 2 0.52 13.2 s
    """
    for name, value, known in (
        ("bandwidth", bandwidth, BANDWIDTHS),
        ("search", search, SEARCHES),
    ):
        if value not in known:
            raise ValueError(f"plan: {name}={value!r} is unknown; give {' or '.join(known)}")
    rows = jnp.arange(len(problem.cuts))
    every_levels = jnp.arange(1, _MOST_LEVELS + 1)
    allowed = (every_levels >= problem.levels_range[0]) & (every_levels <= problem.levels_range[1])

    # 1. For every cut a continuous (ρ, E) from each start, and integers around it.
    if search == "exact":
        levels = every_levels
        multipliers = jnp.zeros(len(rows), problem.fixed_s.dtype)
    else:
        around, multipliers = jax.vmap(lambda row: _continuous(problem, row, bandwidth))(rows)
        levels = around.ravel()  # what one cut finds serves them all
    levels = jnp.clip(levels, *problem.levels_range)

    # 2. The best ρ of every integer, and the best of those; checked again, now on integers.
    every = jax.vmap(lambda levels: _most_accurate(problem, levels))(every_levels)
    reachable = jax.tree.map(
        lambda x: x[jnp.argmax(jnp.where(allowed, every.accuracy, -jnp.inf))], every
    )
    found = jax.vmap(lambda levels: _best_ratio(problem, levels))(levels)
    # The most accurate, too: what comes nearest where nothing is accurate enough.
    chosen = _least_beta(jax.tree.map(lambda x, y: jnp.append(x, y), found, reachable))
    chosen = jax.tree.map(lambda x: jnp.broadcast_to(x, rows.shape), chosen)

    # 3. The delay of every cut, and the best cut.
    bandwidths_hz, delays_s = jax.vmap(
        lambda row, beta: least_delay(problem, row, beta, bandwidth)
    )(rows, chosen.beta)
    excess = problem.memory_bytes - problem.memory_limit_bytes[None]
    table = CutTable(
        cut=problem.cuts,
        delay_s=delays_s,
        ratio=chosen.ratio,
        levels=chosen.levels,
        beta=chosen.beta,
        accuracy=chosen.accuracy,
        accuracy_met=chosen.met,
        memory_met=jnp.all(excess <= 0, axis=1),
        caps_met=jnp.broadcast_to(caps_suffice(problem), rows.shape),
        feasible=chosen.met & jnp.all(excess <= 0, axis=1) & caps_suffice(problem),
    )
    # Without a feasible cut: the least excess of memory, then the least delay.
    overrun = jnp.max(jnp.maximum(excess / problem.memory_limit_bytes[None], 0), axis=1)
    overrun = jnp.where(table.memory_met, 0, overrun)
    eligible = jnp.where(jnp.any(table.feasible), table.feasible, overrun == jnp.min(overrun))
    row = jnp.argmin(jnp.where(eligible, delays_s, jnp.inf))

    best = jax.tree.map(lambda x: x[row], table)
    return Plan(
        feasible=best.feasible,
        cut=best.cut,
        ratio=best.ratio,
        levels=best.levels,
        bandwidth_hz=bandwidths_hz[row],
        delay_s=best.delay_s,
        beta=best.beta,
        accuracy=best.accuracy,
        multiplier=multipliers[row],
        per_cut=table,
        binding=_binding(problem, table, row, bandwidths_hz[row], reachable),
    )


class _Iterate(NamedTuple):
    """Where the augmented Lagrangian stands at one start."""

    ratio: jax.Array
    bits: jax.Array
    value: jax.Array  # of the augmented Lagrangian
    multiplier: jax.Array  # λ
    penalty: jax.Array  # μ
    violation: jax.Array  # v


def _continuous(
    problem: PlanProblem, row: jax.Array, bandwidth: str
) -> tuple[jax.Array, jax.Array]:
    """Algorithm 2 for one cut: integers around the E of every start, and the best start's λ."""
    dtype = problem.fixed_s.dtype
    bits_low, bits_high = bits_of_levels(problem.levels_range, dtype)
    ends = jnp.linspace(bits_low, bits_high, _NUM_STARTS + 1)
    # τ in parts of a delay of its size, so that λ and μ mean the same in every network.
    scale_s = least_delay(problem, row, jnp.max(problem.beta.beta), "equal")[1]

    def violation(ratio: jax.Array, bits: jax.Array) -> jax.Array:
        accuracy = accuracy_at(problem.surface, ratio, jnp.exp2(bits) - 1)
        return jnp.maximum(accuracy_target(problem) - accuracy, 0)

    def lagrangian(
        ratio: jax.Array, bits: jax.Array, multiplier: jax.Array, penalty: jax.Array
    ) -> jax.Array:
        beta = beta_at(problem.beta, ratio, jnp.exp2(bits) - 1)
        _, delay_s = least_delay(problem, row, beta, bandwidth)
        violated = violation(ratio, bits)
        return delay_s / scale_s + multiplier * violated + penalty / 2 * violated**2

    def step(iterate: _Iterate, bits_range: jax.Array) -> _Iterate:
        """Minimise over (ρ, E), then move the multiplier."""

        # One variable inside the other: a search along both axes in turn would stall in the
        # narrow valley along A = A_th.
        def over_ratio(bits: jax.Array) -> tuple[jax.Array, jax.Array]:
            ratio, value, _ = _line_search(
                lambda ratio: (
                    lagrangian(ratio, bits, iterate.multiplier, iterate.penalty),
                    ratio,
                ),
                problem.ratio_range,
                _RATIO_POINTS,
            )
            return value, ratio

        bits, value, ratio = _line_search(over_ratio, bits_range, _BITS_POINTS)
        violated = violation(ratio, bits)
        enough = violated <= _ENOUGH_PROGRESS * iterate.violation
        return _Iterate(
            ratio=ratio,
            bits=bits,
            value=value,
            multiplier=iterate.multiplier + iterate.penalty * violated,
            penalty=iterate.penalty * jnp.where(enough, 1, _PENALTY_GROWTH).astype(dtype),
            violation=violated,
        )

    def from_start(bits_range: jax.Array) -> _Iterate:
        start = _Iterate(
            ratio=problem.ratio_range[0],
            bits=bits_range[0],
            value=jnp.zeros((), dtype),
            multiplier=jnp.zeros((), dtype),
            penalty=jnp.asarray(_FIRST_PENALTY, dtype),
            violation=jnp.asarray(jnp.inf, dtype),
        )
        return jax.lax.fori_loop(0, _OUTER_STEPS, lambda _, x: step(x, bits_range), start)

    last = jax.vmap(from_start)(jnp.stack([ends[:-1], ends[1:]], -1))
    below = jnp.floor(jnp.exp2(last.bits) - 1).astype(jnp.int32)
    around = below[:, None] + jnp.arange(1 - _NEIGHBOURS // 2, 1 + _NEIGHBOURS // 2)[None]
    return around.ravel(), last.multiplier[jnp.argmin(last.value)]


def _line_search(
    function: Callable[[jax.Array], tuple[jax.Array, jax.Array]], interval: jax.Array, points: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Least value on an interval, by a grid that zooms in: β has kinks, A several valleys.

    Returns:
      Where it is, the value, and what else `function` returns there.
    """

    def zoom(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        low, high = carry[:2]
        grid = jnp.linspace(low, high, points)
        values, others = jax.vmap(function)(grid)
        k = jnp.argmin(values)
        low, high = grid[jnp.maximum(k - 1, 0)], grid[jnp.minimum(k + 1, points - 1)]
        return low, high, grid[k], values[k], others[k]

    low, high = interval
    nothing = jnp.zeros_like(low)
    start = (low, high, nothing, nothing, nothing)
    _, _, best, value, other = jax.lax.fori_loop(0, _ZOOMS, zoom, start)
    return best, value, other


def _most_accurate(problem: PlanProblem, levels: jax.Array) -> _Candidate:
    """The ρ of greatest accuracy at a given E: at an end or where A turns."""
    ratios = _ends_and_turns(problem, levels)
    best = ratios[jnp.argmax(accuracy_at(problem.surface, ratios, levels))]
    return _candidate(problem, best, levels)


def _best_ratio(problem: PlanProblem, levels: jax.Array) -> _Candidate:
    """The ρ of least β at a given E that is accurate enough, to rounding.

    Between its turns A only rises or only falls in ρ, so that each such piece has one crossing of
    the target at most; β is piecewise linear, so that its least value lies at a crossing, an end
    or a knot.
    """
    target = accuracy_target(problem)
    ends = _ends_and_turns(problem, levels)
    good = accuracy_at(problem.surface, ends, levels) >= target
    met = jnp.where(good[:-1], ends[:-1], ends[1:])
    missed = jnp.where(good[:-1], ends[1:], ends[:-1])

    def halve(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        met, missed = pair
        middle = (met + missed) / 2
        good = accuracy_at(problem.surface, middle, levels) >= target
        return jnp.where(good, middle, met), jnp.where(good, missed, middle)

    # A piece without a crossing gives one of its ends.
    crossings, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (met, missed))
    knots = jnp.clip(problem.beta.ratio, *problem.ratio_range)
    ratios = jnp.concatenate([ends, crossings, knots])
    return _least_beta(jax.vmap(lambda ratio: _candidate(problem, ratio, levels))(ratios))


def _ends_and_turns(problem: PlanProblem, levels: jax.Array) -> jax.Array:
    """ρ_min, where A(·, E) turns between, and ρ_max, ascending, [4]."""
    low, high = problem.ratio_range
    turns = turning_ratios(problem.surface, levels)
    turns = jnp.clip(jnp.where(jnp.isnan(turns), high, turns), low, high)
    return jnp.concatenate([low[None], turns, high[None]])


def _candidate(problem: PlanProblem, ratio: jax.Array, levels: jax.Array) -> _Candidate:
    accuracy = accuracy_at(problem.surface, ratio, levels)
    return _Candidate(
        ratio=ratio,
        levels=levels,
        beta=beta_at(problem.beta, ratio, levels),
        accuracy=accuracy,
        met=accuracy >= accuracy_target(problem),
    )


def _least_beta(candidates: _Candidate) -> _Candidate:
    """Of those that are accurate enough the least β; without any, the most accurate."""
    best = jnp.where(
        jnp.any(candidates.met),
        jnp.argmin(jnp.where(candidates.met, candidates.beta, jnp.inf)),
        jnp.argmax(candidates.accuracy),
    )
    return jax.tree.map(lambda x: x[best], candidates)


def _binding(
    problem: PlanProblem,
    table: CutTable,
    row: jax.Array,
    bandwidth_hz: jax.Array,
    reachable: _Candidate,
) -> Binding:
    """Slack of every constraint at the chosen cut, and whether it holds the delay up."""
    best = jax.tree.map(lambda x: x[row], table)
    eps = jnp.finfo(problem.fixed_s.dtype).eps
    ratio_low, ratio_high = problem.ratio_range
    levels_low, levels_high = problem.levels_range
    step = 1e-4 * (ratio_high - ratio_low)  # closer to a bound than this is at it

    accuracy_slack = best.accuracy - accuracy_target(problem)
    memory_slack = problem.memory_limit_bytes[None] - problem.memory_bytes
    forbidden_and_faster = ~table.memory_met & (table.delay_s < best.delay_s) & best.feasible
    caps_slack = problem.cap_hz - bandwidth_hz
    return Binding(
        accuracy=Constraint(
            best.accuracy,
            problem.accuracy_min,
            accuracy_slack,
            # At the crossing, to what an ulp of ρ changes; or broken.
            accuracy_slack <= 64 * eps,
        ),
        reachable_accuracy=reachable.accuracy,
        reachable_ratio=reachable.ratio,
        reachable_levels=reachable.levels,
        memory=Constraint(
            problem.memory_bytes,
            jnp.broadcast_to(problem.memory_limit_bytes[None], problem.memory_bytes.shape),
            memory_slack,
            (memory_slack < 0) & (forbidden_and_faster | ~best.memory_met)[:, None],
        ),
        ratio_low=Constraint(
            best.ratio, ratio_low, best.ratio - ratio_low, best.ratio - ratio_low <= step
        ),
        ratio_high=Constraint(
            best.ratio, ratio_high, ratio_high - best.ratio, ratio_high - best.ratio <= step
        ),
        levels_low=Constraint(
            best.levels, levels_low, best.levels - levels_low, best.levels == levels_low
        ),
        levels_high=Constraint(
            best.levels, levels_high, levels_high - best.levels, best.levels == levels_high
        ),
        caps=Constraint(
            bandwidth_hz, problem.cap_hz, caps_slack, caps_slack <= 1e-5 * problem.cap_hz
        ),
        band=Constraint(
            jnp.sum(bandwidth_hz),
            problem.total_hz,
            jnp.sum(problem.cap_hz) - problem.total_hz,
            jnp.array(True),  # no delay rises with the band: all of it is used
        ),
    )
