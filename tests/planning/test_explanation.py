"""What the planner says of itself."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxsplit.plan_figure import plan_figure
from jaxsplit.planning import explain, plan
from jaxsplit.planning.example import example_problem

CASES = {
    "feasible": ({}, "forbids l = 3, binds: l = 3 would take"),
    "accuracy": ({"accuracy_min": 0.8}, "best within the bounds is 0.7500 < 0.8000"),
    "memory": (
        {"memory_limit_bytes": np.array([0.9e9, 4e9, 4e9, 4e9])},
        "cannot be met at any cut, at l = 1 1 GB > 0.9 GB of device 0",
    ),
    "caps": ({"cap_hz": np.full(4, 1.25e6)}, "cannot be met, caps sum to 5 MHz < 20 MHz"),
    "roomy": ({"memory_limit_bytes": np.full(4, 9e9)}, "slack 6 GB"),
    "capped": ({"cap_hz": np.array([9e6, 9e6, 9e6, 3e6])}, "device 3 at the cap (3 MHz"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_constraint_has_its_line(case):
    changes, expected = CASES[case]
    changes = {name: jnp.asarray(value, jnp.float32) for name, value in changes.items()}
    problem = example_problem()._replace(**changes)
    best = plan(problem, search="exact")
    lines = explain(best)
    assert len(lines) == 7
    assert any(expected in line for line in lines)
    failing = [line for line in lines if "cannot be met" in line]
    assert len(failing) == (case in ("accuracy", "memory", "caps"))
    assert lines[0].startswith("plan:" if best.feasible else "no plan")
    assert all("\n" not in line and len(line) < 160 for line in lines)
    assert isinstance(plan_figure(problem, best), Figure)


def test_figure_of_one_cut():
    problem = example_problem()
    rows = ("cuts", "fixed_s", "coded_work", "plain_work", "memory_bytes")
    single = problem._replace(**{name: getattr(problem, name)[:1] for name in rows})
    figure = plan_figure(single, plan(single, search="exact"))
    assert len(figure.axes) == 3
