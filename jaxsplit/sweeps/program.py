"""A block of scenarios per device as one compiled program: start, advance, finish.

Every device runs the same program on a block of the same shape, whatever the number of devices or
processes, and the blocks are cut from the grid in a fixed order. That is why a scenario's bits do
not depend on how a sweep was shared out.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsplit.memory import program_bytes
from jaxsplit.network import (
    NetworkInfo,
    NetworkParams,
    NetworkState,
    advance_network,
    as_arrays,
    run_keys,
    start_network,
)
from jaxsplit.sweeps.grid import Program, with_numbers
from jaxsplit.sweeps.summary import Totals, add_round, no_rounds, summarise

Numbers = dict[str, jax.Array]  # the swept ones, by name


class Carry(NamedTuple):
    """A scenario between two rounds."""

    key_rounds: jax.Array
    state: NetworkState
    totals: Totals


class Stages(NamedTuple):
    """One scenario, unbatched, as three pure functions."""

    start: Callable[[jax.Array, Numbers], Carry]  # from a seed
    advance: Callable[[Carry, Numbers, jax.Array, jax.Array], Carry]  # rounds first … end − 1
    finish: Callable[[Carry, Numbers], dict[str, jax.Array]]


def scenario_stages(program: Program, num_rounds: int, keep_rounds: bool) -> Stages:
    """The stages of a program's scenarios.

    Args:
      program: the choices and the numbers that are not swept.
      num_rounds: T.
      keep_rounds: keep every round, not only their sums.

    Returns:
      The functions.
    """
    network = program.network

    def all_numbers(numbers: Numbers) -> NetworkParams:
        return as_arrays(with_numbers(program.params, numbers))

    def round_of(
        carry: Carry, index: jax.Array, params: NetworkParams
    ) -> tuple[NetworkState, NetworkInfo]:
        return advance_network(carry.key_rounds, carry.state, index, network, params)

    def start(seed: jax.Array, numbers: Numbers) -> Carry:
        params = all_numbers(numbers)
        state, key_rounds = start_network(run_keys(seed).network, network, params)
        carry = Carry(key_rounds, state, totals=())  # type: ignore[arg-type]
        _, info = jax.eval_shape(round_of, carry, jnp.int32(0), params)
        return carry._replace(totals=no_rounds(info, params, num_rounds if keep_rounds else 0))

    def advance(carry: Carry, numbers: Numbers, first: jax.Array, end: jax.Array) -> Carry:
        params = all_numbers(numbers)

        def body(index: jax.Array, carry: Carry) -> Carry:
            state, info = round_of(carry, index, params)
            return Carry(carry.key_rounds, state, add_round(carry.totals, index, info, params))

        return jax.lax.fori_loop(first, end, body, carry)

    def finish(carry: Carry, numbers: Numbers) -> dict[str, jax.Array]:
        return summarise(carry.totals, carry.state, all_numbers(numbers), num_rounds)

    return Stages(start, advance, finish)


def fingerprint(stages: Stages, axis_names: Sequence[str]) -> str:
    """What a scenario computes, as a digest of its code with all constants.

    Args:
      stages: of a program.
      axis_names: the swept numbers.

    Returns:
      Equal for equal computations only.
    """
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    numbers, index = dict.fromkeys(axis_names, number), jax.ShapeDtypeStruct((), jnp.int32)
    starting = jax.jit(stages.start).lower(jax.ShapeDtypeStruct((), jnp.uint32), numbers)
    carry = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), starting.out_info
    )
    advancing = jax.jit(stages.advance).lower(carry, numbers, index, index)
    finishing = jax.jit(stages.finish).lower(carry, numbers)
    text = "".join(stage.as_text() for stage in (starting, advancing, finishing))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class BlockProgram(NamedTuple):
    """The compiled stages for one block of scenarios per device; arrays are [devices, block, …]."""

    place: Callable[[Any], Any]  # arrays of the host onto the devices
    start: Callable[[jax.Array, Numbers], Carry]
    advance: Callable[[Carry, Numbers, int, int], Carry]  # uses its first argument up
    finish: Callable[[Carry, Numbers], dict[str, jax.Array]]
    bytes_per_device: int


def compile_blocks(
    stages: Stages, axis_names: Sequence[str], devices: Sequence[jax.Device], block_size: int
) -> BlockProgram:
    """Compile a program for one block of scenarios per device.

    Args:
      stages: of a scenario.
      axis_names: the swept numbers.
      devices: of this process.
      block_size: scenarios in a block.

    Returns:
      The compiled stages with the memory that they take.
    """
    mesh = Mesh(np.asarray(devices), ("block",))
    split, whole = PartitionSpec("block"), PartitionSpec()

    def on_blocks(stage: Callable, *in_axes: int | None) -> Callable:
        """Scenarios are batched over the block, blocks are shared out over the devices."""

        def one_device(*arguments: Any) -> Any:
            lanes = [
                argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
                for argument, axis in zip(arguments, in_axes, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], jax.vmap(stage, in_axes)(*lanes))

        specs = tuple(whole if axis is None else split for axis in in_axes)
        return jax.shard_map(
            one_device, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False
        )

    def shape(leaf: Any, prefix: tuple[int, ...], spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct((*prefix, *leaf.shape), leaf.dtype, sharding=sharding)

    lanes = (len(devices), block_size)
    number = shape(jnp.zeros((), jnp.result_type(float)), lanes, split)
    numbers = dict.fromkeys(axis_names, number)
    seed, index = shape(jnp.uint32(0), lanes, split), shape(jnp.int32(0), (), whole)
    start = jax.jit(on_blocks(stages.start, 0, 0)).lower(seed, numbers)
    carry = jax.tree.map(lambda leaf: shape(leaf, (), split), start.out_info)
    advance = jax.jit(on_blocks(stages.advance, 0, 0, None, None), donate_argnums=0)
    finish = jax.jit(on_blocks(stages.finish, 0, 0))
    starting, advancing, finishing = (
        lowered.compile()
        for lowered in (
            start,
            advance.lower(carry, numbers, index, index),
            finish.lower(carry, numbers),
        )
    )
    everywhere = NamedSharding(mesh, whole)
    return BlockProgram(
        place=partial(jax.device_put, device=NamedSharding(mesh, split)),
        start=starting,
        advance=lambda carry, numbers, first, end: advancing(
            carry, numbers, *jax.device_put((np.int32(first), np.int32(end)), everywhere)
        ),
        finish=finishing,
        bytes_per_device=max(map(program_bytes, (starting, advancing, finishing))),
    )
