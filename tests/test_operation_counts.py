"""How much XLA has to compile: the operations of a lowered program, which its users wait for."""

import jax
import jax.numpy as jnp
import pytest

from jaxsplit.federated import LearningParams, World, fedft, init_learning, run_chunk, sft
from jaxsplit.models import Bert, stack_blocks
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


def chunk_of(make, num_blocks):
    """A chunk of rounds with a small BERT, lowered."""
    model = Bert(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=num_blocks,
        num_attention_heads=2,
        intermediate_size=32,
    )
    scheme = make(model, 2)

    def texts(count):
        return {
            name: jax.ShapeDtypeStruct((count, 8), jnp.int32)
            for name in ("input_ids", "attention_mask")
        }

    def whole(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.int32)

    key = jax.eval_shape(lambda: jax.random.key(0))
    backbone = jax.eval_shape(
        lambda key, inputs: stack_blocks(model.init(key, inputs)["params"]), key, texts(1)
    )
    world = World(backbone, texts(64), whole(64), whole(6, 9), whole(6), texts(20), whole(20))
    params = LearningParams(number(), number())
    state = jax.eval_shape(
        lambda key, params, world: init_learning(key, scheme, params, world), key, params, world
    )
    masks = jax.ShapeDtypeStruct((2, 6), bool)
    return run_chunk.lower(key, state, masks, whole(), scheme, params, world)


@pytest.mark.parametrize(
    ("make", "most"),
    [(fedft, 2950), (lambda model, outputs: sft(model, outputs, cut=2, local_steps=2), 5950)],
    ids=["fedft", "sft"],
)
def test_a_round_whatever_the_number_of_blocks(make, most):
    few, many = (operations(chunk_of(make, blocks)) for blocks in (4, 8))
    assert abs(few - many) <= 5  # functions of equal shapes are lowered once
    assert many <= most
