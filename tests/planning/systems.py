"""Random planning problems of one shape."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.planning import PlanProblem, fit_accuracy, fit_beta, plan_problem

NUM_CUTS, NUM_DEVICES = 3, 4
LEVELS = 2 ** np.arange(1, 7) - 1
RATIOS = np.linspace(0.05, 1, 6)


def random_arguments(rng: np.random.Generator) -> dict:
    """Bumpy accuracies, ratios that are not monotone, some caps and some cuts without memory."""
    rho, bits = RATIOS[:, None], np.log2(LEVELS + 1)
    accuracy = (
        rng.uniform(0.6, 0.9)
        - rng.uniform(0.1, 0.5) * (1 - rho) ** rng.uniform(1, 5)
        - rng.uniform(0, 0.3) * 2.0 ** -(bits * rng.uniform(0.3, 1))
        + rng.choice([0, 0.02, 0.05]) * rng.normal(size=(6, 6))
    )
    beta = rho * (1 + rng.uniform(0.5, 1) * bits) / 32 + 0.02 * np.sqrt(rho)
    beta *= np.exp(rng.choice([0, 0.3]) * rng.normal(size=beta.shape))
    surface = fit_accuracy(rho, LEVELS, np.clip(accuracy, 0, 1))
    size = (NUM_CUTS, NUM_DEVICES)
    total_hz = 10 ** rng.uniform(6.5, 7.5)
    caps = rng.uniform(0.26, 1.2, NUM_DEVICES) * total_hz
    memory = np.cumsum(rng.uniform(0.3e9, 1e9, NUM_CUTS))[:, None] * np.ones(NUM_DEVICES)
    return {
        "cuts": np.arange(1, 1 + NUM_CUTS),
        "fixed_s": rng.uniform(0, 10 ** rng.uniform(0, 2), size),
        "coded_work": 10 ** rng.uniform(8, 9.5) * rng.uniform(0.2, 1, size),
        "plain_work": 10 ** rng.uniform(5, 7) * rng.uniform(0.2, 1, size),
        "memory_bytes": memory,
        "memory_limit_bytes": memory[0] + rng.uniform(0, 2.5e9, NUM_DEVICES),
        "total_hz": total_hz,
        "cap_hz": caps if rng.random() < 0.5 else np.full(NUM_DEVICES, np.inf),
        "accuracy_min": np.quantile(accuracy, rng.uniform(0.1, 0.9)),
        "surface": surface,
        "beta": fit_beta(RATIOS, LEVELS, beta),
    }


def random_problem(rng: np.random.Generator, **changes: object) -> PlanProblem:
    return plan_problem(**random_arguments(rng) | changes)


def stacked(problems: list[PlanProblem]) -> PlanProblem:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
