"""Compression, cut and bandwidth that make a round the shortest (SFT (27)).

`surface.py` and `compression_ratio.py` fit what was measured, `problem.py` holds the numbers,
`large_timescale.py` plans, `explanation.py` says what limits, `exhaustive.py` checks.
"""

from jaxsplit.planning.compression_ratio import (
    CompressionRatio,
    beta_at,
    fit_beta,
    measured_beta,
)
from jaxsplit.planning.exhaustive import ExhaustivePlan, exhaustive
from jaxsplit.planning.explanation import explain
from jaxsplit.planning.large_timescale import Binding, Constraint, CutTable, Plan, plan
from jaxsplit.planning.problem import PlanProblem, least_delay, plan_problem
from jaxsplit.planning.surface import (
    AccuracySurface,
    accuracy_at,
    bits_of_levels,
    fit_accuracy,
)

__all__ = [
    "AccuracySurface",
    "Binding",
    "CompressionRatio",
    "Constraint",
    "CutTable",
    "ExhaustivePlan",
    "Plan",
    "PlanProblem",
    "accuracy_at",
    "beta_at",
    "bits_of_levels",
    "exhaustive",
    "explain",
    "fit_accuracy",
    "fit_beta",
    "least_delay",
    "measured_beta",
    "plan",
    "plan_problem",
]
