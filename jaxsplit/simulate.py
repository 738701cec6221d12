"""A whole learning run: the schedule first, then the federated rounds laid over it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jaxsplit.checkpoint import Checkpointing
from jaxsplit.clock import Clock, transmission_clock
from jaxsplit.compile_clock import CompileClock
from jaxsplit.data import Dataset, Partition, Partitioner, iid
from jaxsplit.federated import (
    LearningParams,
    Scheme,
    World,
    run_chunk,
    run_chunk_of_seeds,
)
from jaxsplit.files import atomic_path
from jaxsplit.memory import device_bytes, program_bytes, size
from jaxsplit.models import stack_blocks
from jaxsplit.network import Network, NetworkParams, as_arrays, run_keys
from jaxsplit.observer import Observer
from jaxsplit.options import OptionError
from jaxsplit.run_plan import NonFiniteError, Plan, rows
from jaxsplit.run_seeds import init_seeds, of_seed, run_seeds

__all__ = ["NonFiniteError", "planned_samples", "run"]


def run(
    seeds: Sequence[int],
    network: Network,
    scheme: Scheme,
    backbone: Any,
    dataset: Dataset,
    *,
    num_rounds: int = 200,
    network_params: NetworkParams | None = None,
    learning_params: LearningParams | Sequence[LearningParams] | None = None,
    partitioner: Partitioner = iid,
    warmup_rounds: int = 0,
    evaluate_every: int = 10,
    seeds_at_once: int | None = None,
    clock: Clock | None = None,
    clock_params: Any = None,
    observer: Observer | None = None,
    checkpointing: Checkpointing | None = None,
) -> xr.Dataset:
    """Fine-tune a backbone over a simulated wireless network, once per seed.

    A seed decides the channels, the partition, the order of the data and the initial weights,
    and none of them depends on the scheduler: runs of different schedulers under the same seeds
    are paired. All seeds, schedulers and numbers share one compiled round.

    Args:
      seeds: one run each.
      network: the choices of the radio.
      scheme: the choices of the learning round, such as `fedft(...)`.
      backbone: frozen weights, the `params` collection of `scheme.model`, stacked. By block they
        are stacked here, and held twice for as long as the caller keeps them.
      dataset: what the devices share out among themselves.
      num_rounds: T.
      network_params: the network's numbers; `network.default_params()` by default.
      learning_params: learning rates and codec numbers of all seeds, or a list of them, one for
        each seed. So a grid of numbers is one call, `seeds_at_once` of it in one program: give
        each seed once for every point of the grid.
      partitioner: who holds which samples.
      warmup_rounds: network-only rounds that fill the virtual queue before round 0.
      evaluate_every: rounds between two evaluations on the test set.
      seeds_at_once: run so many seeds in one program; by default one on a processor, which a
        single seed keeps busy, and as many as the memory holds on an accelerator.
      clock: how long a round takes; `transmission_clock(network.duplex)` by default.
      clock_params: its numbers; `clock.params` by default.
      observer: is told what happens.
      checkpointing: where to keep the state as the run goes on; a run that was killed goes on
        from there to the same bits. The folder must belong to this very run.

    Returns:
      A labelled data set with dimensions seed, round, eval_round and device; units and meanings
      are in its attributes.

    Raises:
      ValueError: no seeds, fewer than one round, more devices than samples, an upload that no
        codec takes.
      OptionError: the round does not fit into the memory.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    counts = {"num_rounds": num_rounds, "evaluate_every": evaluate_every}
    for name, value in (counts | {"seeds_at_once": seeds_at_once or 1}).items():
        if value < 1:
            raise ValueError(f"{name}={value}: choose 1 or more")
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds is empty: give at least one")
    if checkpointing and len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds}: with checkpointing, give each seed once")
    clock = clock or transmission_clock(network.duplex)
    plan = Plan(
        network=network,
        network_params=as_arrays(network_params or network.default_params()),
        scheme=scheme,
        learning_params=_of_each_seed(learning_params or LearningParams(), len(seeds)),
        num_rounds=num_rounds,
        warmup_rounds=warmup_rounds,
        evaluate_every=evaluate_every,
        clock=clock,
        clock_params=as_arrays(clock.params if clock_params is None else clock_params),
    )
    labels = np.asarray(dataset.train_labels)
    partitions = [partitioner(seed, labels, network.num_devices) for seed in seeds]
    world = _on_device(backbone, dataset, _stacked(partitions))
    observer = observer or Observer()
    with CompileClock() as compiling:
        if seeds_at_once is None:
            begun = checkpointing.folder / "seeds_at_once" if checkpointing else None
            seeds_at_once = _fitting_seeds(plan, world, len(seeds), observer, begun)
    results: list[xr.Dataset] = []
    for k in range(0, len(seeds), seeds_at_once):
        group = slice(k, k + seeds_at_once)
        of_group = world._replace(indices=world.indices[group], sizes=world.sizes[group])
        compile_s = 0.0 if results else compiling.seconds
        of_these = plan.of_seeds(group)
        results += run_seeds(seeds[group], of_these, of_group, observer, checkpointing, compile_s)
    return xr.concat(results, dim="seed")


def planned_samples(
    seeds: Sequence[int],
    network: Network,
    scheme: Scheme,
    num_test_samples: int,
    *,
    num_rounds: int,
    network_params: NetworkParams,
    warmup_rounds: int = 0,
    evaluate_every: int = 10,
) -> int:
    """Samples that a run will send through the backbone: what its time is made of.

    The schedule is known before anything is learned. A sample that is trained on counts twice,
    for its way forward and its way back, one that is evaluated once.

    Args:
      seeds: as for `run`, and likewise what follows.
      network: the choices of the radio.
      scheme: the choices of the learning round.
      num_test_samples: M_test.
      num_rounds: T.
      network_params: the network's numbers.
      warmup_rounds: before round 0.
      evaluate_every: rounds between two evaluations.

    Returns:
      Their number.
    """
    numbers = as_arrays(network_params)
    plan = Plan(
        network=network,
        network_params=numbers,
        scheme=scheme,
        learning_params=_of_each_seed(LearningParams(), len(seeds)),
        num_rounds=num_rounds,
        warmup_rounds=warmup_rounds,
        evaluate_every=evaluate_every,
        clock=transmission_clock(),
        clock_params=(),
    )
    schedules = [plan.draw_schedule(run_keys(seed)) for seed in seeds]
    return plan.samples(plan.masks(schedules), num_test_samples)


def _of_each_seed(
    params: LearningParams | Sequence[LearningParams], num_seeds: int
) -> LearningParams:
    """The numbers of all seeds as arrays with a leading axis [S].

    Raises:
      ValueError: it is a list of another length, or its members differ in structure.
    """
    each = [params] * num_seeds if isinstance(params, LearningParams) else list(params)
    if len(each) != num_seeds:
        raise ValueError(f"{len(each)} learning_params for {num_seeds} seeds: give one for each")
    if len({jax.tree.structure(numbers) for numbers in each}) > 1:
        raise ValueError("learning_params differ in what they hold: give all the same codec params")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(as_arrays, each))


def _stacked(partitions: Sequence[Partition]) -> Partition:
    """Partitions of several seeds with rows of one length, fields [S, ...]."""
    length = max(partition.indices.shape[1] for partition in partitions)
    rows = [np.pad(p.indices, ((0, 0), (0, length - p.indices.shape[1]))) for p in partitions]
    return Partition(np.stack(rows), np.stack([p.sizes for p in partitions]))


def _on_device(backbone: Any, dataset: Dataset, partitions: Partition) -> World:
    """The world of all seeds on the accelerator: once, not once per seed."""
    arrays: Any = (
        stack_blocks(backbone),
        dataset.train_inputs,
        dataset.train_labels,
        *partitions,
        dataset.test_inputs,
        dataset.test_labels,
    )
    return World(*jax.tree.map(jnp.asarray, arrays))


# -- how many seeds at once ------------------------------------------------------------------------


def _fitting_seeds(
    plan: Plan, world: World, num_seeds: int, observer: Observer, begun: Path | None
) -> int:
    """Seeds to run at once, by what the compiler says that they need.

    A run that goes on keeps to the number in `begun`: in another program its bits would differ.

    Raises:
      OptionError: not even one fits.
    """
    if begun and begun.exists():
        return int(begun.read_text())
    at_once = 1 if jax.default_backend() == "cpu" else num_seeds
    free = device_bytes()
    while (needed := _bytes_of_seeds(at_once, plan, world)) > free:
        if at_once == 1:
            scheme = plan.scheme
            raise OptionError(
                "devices_per_step",
                scheme.devices_per_step,
                f"fewer devices at once, a batch smaller than {scheme.batch_size}, or remat: a "
                f"round takes {size(needed)} of memory and {size(free)} are free",
            )
        at_once = (at_once + 1) // 2
    how = f"{at_once} seeds at once" if at_once > 1 else "one seed after the other"
    observer.noted(f"{how}: rounds take {size(needed)} of memory, {size(free)} are free")
    if begun:
        with atomic_path(begun) as path:
            path.write_text(f"{at_once}\n")
    return at_once


def _bytes_of_seeds(at_once: int, plan: Plan, world: World) -> int:
    """Memory of a chunk beside the data and the backbone; jit finds the compiled program again."""
    world = world._replace(indices=world.indices[:at_once], sizes=world.sizes[:at_once])
    plan = plan.of_seeds(slice(at_once))
    state = jax.eval_shape(functools.partial(init_seeds, range(at_once), plan), world)
    keys = jax.eval_shape(lambda: jnp.stack([run_keys(0).rounds] * at_once))
    shape = (at_once, plan.evaluate_every, plan.network.num_devices)
    varying = (keys, state, jax.ShapeDtypeStruct(shape, bool))
    fixed = (jax.ShapeDtypeStruct((), jnp.int32), plan.scheme)
    if at_once > 1:
        lowered = run_chunk_of_seeds.lower(*varying, *fixed, plan.learning_params, world)
    else:
        alone = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), varying)
        lowered = run_chunk.lower(*alone, *fixed, rows(plan.learning_params, 0), of_seed(world, 0))
    return program_bytes(lowered.compile(), arguments=False)
