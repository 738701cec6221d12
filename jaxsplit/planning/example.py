"""A small planning problem for examples and first steps."""

import numpy as np

from jaxsplit.planning.compression_ratio import fit_beta
from jaxsplit.planning.problem import PlanProblem, plan_problem
from jaxsplit.planning.surface import fit_accuracy


def example_problem(accuracy_min: float = 0.7) -> PlanProblem:
    """Three cuts, four devices, 20 MHz; accuracy and β are made up.

    Args:
      accuracy_min: A_th, parts of 1.

    Returns:
      The problem.

    Example:
      >>> example_problem().cuts.tolist()
      [1, 2, 3]
    """
    ratio, levels = np.linspace(0.05, 1, 8), 2 ** np.arange(1, 7) - 1
    rho, bits = ratio[:, None], np.log2(levels + 1)
    return plan_problem(
        cuts=np.arange(1, 4),
        fixed_s=np.array([[5.0], [4.0], [3.5]]) * np.array([1.0, 1.2, 1.5, 2.0]),
        coded_work=np.full((3, 4), 6e8),
        plain_work=np.array([[1e6], [2e6], [3e6]]) * np.ones(4),
        memory_bytes=np.array([[1e9], [2e9], [3e9]]) * np.ones(4),
        memory_limit_bytes=np.array([2.5e9, 4e9, 4e9, 4e9]),
        total_hz=20e6,
        cap_hz=np.full(4, 15e6),
        accuracy_min=accuracy_min,
        surface=fit_accuracy(rho, levels, 0.75 - 0.3 * (1 - rho) ** 4 - 0.1 * 2.0**-bits),
        beta=fit_beta(ratio, levels, rho * (1 + bits) / 32 + 0.02 * np.sqrt(rho)),
    )
