"""The readable reference of the plan: every cut, every E, every ρ of a fine grid."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.planning.compression_ratio import beta_at
from jaxsplit.planning.problem import (
    PlanProblem,
    accuracy_target,
    caps_suffice,
    least_delay,
)
from jaxsplit.planning.surface import accuracy_at


class ExhaustivePlan(NamedTuple):
    """The best grid point, and the grid."""

    feasible: bool
    cut: int  # l; 0 if nothing is feasible, as are ρ and E
    ratio: float
    levels: int
    delay_s: float  # inf if nothing is feasible
    ratios: np.ndarray  # ρ of the grid, shape [R]
    every_levels: np.ndarray  # E of the grid, shape [K]
    delays_s: np.ndarray  # of all points, feasible or not, shape [C, K, R]
    allowed: np.ndarray  # bool, which are feasible, shape [C, K, R]


def exhaustive(
    problem: PlanProblem, num_ratios: int = 201, *, bandwidth: str = "min_max"
) -> ExhaustivePlan:
    """Search all of (ρ, E, l) for the least delay (SFT (28), as a cross-check of Algorithm 2).

    Nothing is assumed of how the delay depends on ρ and E.

    Args:
      problem: of `plan_problem`, concrete.
      num_ratios: points on the axis of ρ; E takes all its integers.
      bandwidth: `min_max` or `equal`, solved for every point.

    Returns:
      The best of all points.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> best = exhaustive(example_problem(), num_ratios=96)
      >>> print(best.cut, best.levels, f"{best.ratio:.2f} {best.delay_s:.1f} s")
      2 2 0.53 13.3 s
    """
    low, high = problem.ratio_range
    ratios = jnp.linspace(low, high, num_ratios)
    every_levels = jnp.arange(int(problem.levels_range[0]), int(problem.levels_range[1]) + 1)
    accuracies, delays_s = _on_grid(problem, ratios, every_levels, bandwidth)
    fits = np.all(problem.memory_bytes <= problem.memory_limit_bytes[None], axis=1)
    accurate = np.asarray(accuracies >= accuracy_target(problem))
    allowed = fits[:, None, None] & accurate[None] & bool(caps_suffice(problem))

    masked = np.where(allowed, delays_s, np.inf)
    c, k, r = np.unravel_index(np.argmin(masked), masked.shape)
    feasible = bool(allowed.any())
    return ExhaustivePlan(
        feasible=feasible,
        cut=int(problem.cuts[c]) if feasible else 0,
        ratio=float(ratios[r]) if feasible else 0.0,
        levels=int(every_levels[k]) if feasible else 0,
        delay_s=float(masked[c, k, r]),
        ratios=np.asarray(ratios),
        every_levels=np.asarray(every_levels),
        delays_s=np.asarray(delays_s),
        allowed=allowed,
    )


@partial(jax.jit, static_argnames="bandwidth")
def _on_grid(
    problem: PlanProblem, ratios: jax.Array, every_levels: jax.Array, bandwidth: str
) -> tuple[jax.Array, jax.Array]:
    """Accuracies [K, R] and delays [C, K, R]."""

    def of_point(row: jax.Array, levels: jax.Array, ratio: jax.Array) -> jax.Array:
        return least_delay(problem, row, beta_at(problem.beta, ratio, levels), bandwidth)[1]

    def of_levels(row: jax.Array, levels: jax.Array) -> jax.Array:
        return jax.vmap(lambda ratio: of_point(row, levels, ratio))(ratios)

    def of_row(row: jax.Array) -> jax.Array:
        # One E after another: all points at once may not fit into memory.
        return jax.lax.map(lambda levels: of_levels(row, levels), every_levels)

    accuracies = jax.vmap(lambda levels: accuracy_at(problem.surface, ratios, levels))(every_levels)
    return accuracies, jax.lax.map(of_row, jnp.arange(len(problem.cuts)))
