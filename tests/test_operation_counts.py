"""How much XLA has to compile: the operations of a lowered program, which its users wait for."""

import jax
import jax.numpy as jnp
import pytest

from jaxsplit.network import Network
from jaxsplit.scheduling import lyapunov, min_delay_bandwidth, solve_p1
from jaxsplit.sweeps.grid import make_grid
from jaxsplit.sweeps.program import scenario_stages
from jaxsplit.wireless import rayleigh


def operations(lowered):
    """Operations of a program, those of loop bodies and of called functions once each."""
    return sum(" = " in line for line in lowered.as_text().splitlines())


def number(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("num_devices", [20, 100])
@pytest.mark.parametrize(
    ("rule", "objective", "most"), [("exact", "bound", 1300), ("first_descent", "count", 1420)]
)
def test_solve_p1(rule, objective, most, num_devices):
    def solve(*arguments):
        return solve_p1(*arguments, rule, objective)

    lowered = jax.jit(solve).lower(number(num_devices), number(), number(), number())
    assert operations(lowered) <= most


def test_min_delay_bandwidth():
    mask = jax.ShapeDtypeStruct((20,), bool)
    assert operations(jax.jit(min_delay_bandwidth).lower(number(20), mask, number())) <= 520


def test_a_block_of_a_sweep():
    grid = make_grid(Network(20, rayleigh(), lyapunov()), {"delay_budget": [1e-8, 2e-8]}, 4, None)
    (program,) = grid.programs()
    stages = scenario_stages(program, num_rounds=10, keep_rounds=False)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    numbers = {"delay_budget": number(4)}
    start = jax.jit(jax.vmap(stages.start)).lower(jax.ShapeDtypeStruct((4,), jnp.uint32), numbers)
    carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), start.out_info)
    advance = jax.vmap(stages.advance, in_axes=(0, 0, None, None))
    counts = [
        operations(start),
        operations(jax.jit(advance).lower(carry, numbers, index, index)),
        operations(jax.jit(jax.vmap(stages.finish)).lower(carry, numbers)),
    ]
    for count, most in zip(counts, (520, 2200, 130), strict=True):
        assert count <= most
