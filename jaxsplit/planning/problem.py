"""What a plan is made from: numbers only, whoever counted them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.planning.compression_ratio import CompressionRatio
from jaxsplit.planning.surface import AccuracySurface
from jaxsplit.scheduling import equal_bandwidth, min_max_bandwidth

BANDWIDTHS = ("min_max", "equal")  # how the devices share the band


class PlanProblem(NamedTuple):
    """SFT (27) for C candidate cuts and N devices; build it with `plan_problem`."""

    cuts: jax.Array  # l, blocks on the device, ascending, int32, shape [C]
    fixed_s: jax.Array  # a of τ = a + c/b, shape [C, N]
    coded_work: jax.Array  # Hz·s, what of c is multiplied by β, shape [C, N]
    plain_work: jax.Array  # Hz·s, the rest of c, shape [C, N]
    memory_bytes: jax.Array  # M(l), shape [C, N]
    memory_limit_bytes: jax.Array  # M_max, shape [N]
    total_hz: jax.Array  # B
    cap_hz: jax.Array  # b_max, shape [N]
    accuracy_min: jax.Array  # A_th, parts of 1
    tolerance: jax.Array  # what A may be below A_th
    ratio_range: jax.Array  # ρ_min, ρ_max, shape [2]
    levels_range: jax.Array  # E_min, E_max, int32, shape [2]
    surface: AccuracySurface
    beta: CompressionRatio


def plan_problem(
    *,
    cuts: np.ndarray,
    fixed_s: np.ndarray,
    coded_work: np.ndarray,
    plain_work: np.ndarray,
    memory_bytes: np.ndarray,
    memory_limit_bytes: np.ndarray,
    total_hz: float,
    cap_hz: np.ndarray,
    accuracy_min: float,
    surface: AccuracySurface,
    beta: CompressionRatio,
    tolerance: float = 1e-3,
    ratio_range: tuple[float, float] | None = None,
    levels_range: tuple[int, int] | None = None,
) -> PlanProblem:
    r"""Check and assemble a planning problem (SFT (27)).

    $$ \min_{\rho, E, l, b} \max_n a_n(l) + \frac{c_n(l, \rho, E)}{b_n}, \qquad
       c_n = \beta(\rho, E)\, c^{coded}_n + c^{plain}_n $$

    subject to $A(\rho, E) \ge A_{th} - \epsilon$, $M_n(l) \le M_{max, n}$, bounds on ρ and E,
    $b_n \le b_{max, n}$ and $\sum b_n = B$.

    Args:
      cuts: l, blocks on the device, ascending, shape [C].
      fixed_s: a, the delay that no bandwidth changes, shape [C, N].
      coded_work: bits over bit/s/Hz that cross the link compressed, in Hz·s, shape [C, N].
      plain_work: the same for what crosses it as it is, shape [C, N].
      memory_bytes: what cut l takes on device n, shape [C, N].
      memory_limit_bytes: of each device, shape [N].
      total_hz: B.
      cap_hz: the most band of each device, shape [N]; np.inf for no limit.
      accuracy_min: A_th, parts of 1.
      surface: of `fit_accuracy`.
      beta: of `fit_beta`.
      tolerance: ε.
      ratio_range: ρ_min and ρ_max; where accuracy was measured by default.
      levels_range: E_min and E_max; where accuracy was measured by default.

    Returns:
      The problem, in the dtype of the surface.

    Raises:
      ValueError: a shape or a number that makes no sense, or bounds beyond the measured range.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> example_problem().fixed_s.shape
      (3, 4)
    """
    dtype = surface.coefficients.dtype
    num_cuts, num_devices = np.shape(fixed_s)
    shapes = {
        "cuts": (cuts, (num_cuts,)),
        "fixed_s": (fixed_s, (num_cuts, num_devices)),
        "coded_work": (coded_work, (num_cuts, num_devices)),
        "plain_work": (plain_work, (num_cuts, num_devices)),
        "memory_bytes": (memory_bytes, (num_cuts, num_devices)),
        "memory_limit_bytes": (memory_limit_bytes, (num_devices,)),
        "total_hz": (total_hz, ()),
        "cap_hz": (cap_hz, (num_devices,)),
    }
    for name, (values, shape) in shapes.items():
        array = np.asarray(values, np.float64)
        if array.shape != shape:
            raise ValueError(
                f"plan_problem: {name} must have shape {list(shape)} ({num_cuts} cuts, "
                f"{num_devices} devices), got {list(array.shape)}"
            )
        positive = name in ("cuts", "total_hz", "cap_hz")
        wrong = array[~(array > 0)] if positive else array[~(array >= 0)]
        if wrong.size:
            raise ValueError(
                f"plan_problem: {name} must be {'above 0' if positive else '0 or more'}, "
                f"got {wrong[0]:g}"
            )
    if not -1 <= accuracy_min <= 1:
        raise ValueError(f"plan_problem: accuracy_min must lie from -1 to 1, got {accuracy_min:g}")
    if np.any(np.diff(cuts) <= 0):
        raise ValueError(f"plan_problem: cuts must ascend, got {np.asarray(cuts).tolist()}")
    measured_levels = np.round(2 ** np.asarray(surface.bits_range, np.float64) - 1).astype(int)
    bounds = {
        "ratio_range": (ratio_range, np.asarray(surface.ratio_range, np.float64)),
        "levels_range": (levels_range, measured_levels),
    }
    ranges = []
    for name, (given, measured) in bounds.items():
        low, high = measured if given is None else given
        # A cubic says nothing beyond its points, and would promise accuracies that nobody saw.
        if not measured[0] - 1e-6 <= low <= high <= measured[1] + 1e-6:
            raise ValueError(
                f"plan_problem: {name} must ascend within the measured {measured[0]:g} to "
                f"{measured[1]:g}, got {low:g} to {high:g}; narrow it or measure there"
            )
        ranges.append((low, high))
    # Finite, so that no 0·inf arises; nobody gets more than the whole band anyway.
    cap_hz = np.minimum(cap_hz, total_hz)
    return PlanProblem(
        cuts=jnp.asarray(cuts, jnp.int32),
        fixed_s=jnp.asarray(fixed_s, dtype),
        coded_work=jnp.asarray(coded_work, dtype),
        plain_work=jnp.asarray(plain_work, dtype),
        memory_bytes=jnp.asarray(memory_bytes, dtype),
        memory_limit_bytes=jnp.asarray(memory_limit_bytes, dtype),
        total_hz=jnp.asarray(total_hz, dtype),
        cap_hz=jnp.asarray(cap_hz, dtype),
        accuracy_min=jnp.asarray(accuracy_min, dtype),
        tolerance=jnp.asarray(tolerance, dtype),
        ratio_range=jnp.asarray(ranges[0], dtype),
        levels_range=jnp.asarray(ranges[1], jnp.int32),
        surface=surface,
        beta=beta,
    )


def least_delay(
    problem: PlanProblem, row: jax.Array, beta: jax.Array, bandwidth: str = "min_max"
) -> tuple[jax.Array, jax.Array]:
    r"""Bandwidth and delay of one cut at a given β: $\min_b \max_n a_n + c_n / b_n$ (SFT (29)).

    Args:
      problem: of `plan_problem`.
      row: which of its cuts, from 0, a scalar.
      beta: compressed over raw bits, a scalar.
      bandwidth: `min_max`, or `equal` for B/N to each, or its cap.

    Returns:
      `(bandwidth_hz [N], delay_s [])`; what the caps do not allow of B is left unused.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> band_hz, delay_s = least_delay(example_problem(), 0, 0.05)
      >>> print(f"{band_hz.sum() / 1e6:.2f} {delay_s:.2f}")
      20.00 13.95
    """
    fixed_s = problem.fixed_s[row]
    work = beta * problem.coded_work[row] + problem.plain_work[row]
    if bandwidth == "equal":
        everyone = jnp.ones(work.shape, bool)
        band_hz = jnp.minimum(equal_bandwidth(everyone, problem.total_hz), problem.cap_hz)
        return band_hz, jnp.max(fixed_s + work / band_hz)
    usable_hz = jnp.minimum(problem.total_hz, jnp.sum(problem.cap_hz))
    return min_max_bandwidth(fixed_s, work, usable_hz, problem.cap_hz)


def accuracy_target(problem: PlanProblem) -> jax.Array:
    """What the fitted accuracy must reach: A_th less the tolerance.

    Args:
      problem: of `plan_problem`.

    Returns:
      Parts of 1, a scalar.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> print(f"{accuracy_target(example_problem()):.3f}")
      0.699
    """
    return problem.accuracy_min - problem.tolerance


def caps_suffice(problem: PlanProblem) -> jax.Array:
    """Whether the caps of all devices together allow the whole band to be used (SFT (27f), (27g)).

    Args:
      problem: of `plan_problem`.

    Returns:
      A truth value.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> bool(caps_suffice(example_problem()))
      True
    """
    # A sum of N caps that equals B on paper may round below it.
    rounding = len(problem.cap_hz) * jnp.finfo(problem.cap_hz.dtype).eps
    return jnp.sum(problem.cap_hz) >= problem.total_hz * (1 - rounding)
