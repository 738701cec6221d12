"""A whole learning run: the schedule first, then the federated rounds laid over it."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jaxsplit.compile_clock import CompileClock
from jaxsplit.data import Dataset, Partition, Partitioner, iid
from jaxsplit.federated import (
    LearningParams,
    LearningState,
    Scheme,
    World,
    init_learning,
    payload,
    run_chunk,
)
from jaxsplit.network import (
    Network,
    NetworkInfo,
    NetworkParams,
    as_arrays,
    run_keys,
    run_network,
)
from jaxsplit.results import describe_run
from jaxsplit.wireless import exchange_delay, transmission_delay


class NonFiniteError(RuntimeError):
    """A training loss or a delay became infinite or NaN."""


class _Data(NamedTuple):
    """A data set on the accelerator."""

    inputs: Any
    labels: jax.Array
    test_inputs: Any
    test_labels: jax.Array


class _Schedule(NamedTuple):
    """What the radio of a run does, before anything is learned."""

    info: NetworkInfo  # fields [T, ...]
    last_queue: jax.Array  # [] s/bit, Q_T
    uplink_s: jax.Array  # [T, N] s, 0 for devices that are not scheduled
    downlink_s: jax.Array  # [T, N] s
    delay_s: jax.Array  # [T] s, of the slowest device


@functools.partial(jax.jit, static_argnames=("network", "num_rounds", "warmup_rounds"))
def _draw_schedule(
    key: jax.Array,
    network: Network,
    params: NetworkParams,
    up_bits: jax.Array,
    down_bits: jax.Array,
    num_rounds: int,
    warmup_rounds: int,
) -> _Schedule:
    """The schedule of a run and the time that its real payload takes."""
    state, info = run_network(key, network, params, num_rounds, warmup_rounds)
    uplink_s, downlink_s = (
        jnp.where(info.mask, transmission_delay(bits, info.bandwidth_hz, snr_hz), 0)
        for bits, snr_hz in ((up_bits, info.snr_hz), (down_bits, info.server_snr_hz))
    )
    delay_s = jnp.max(exchange_delay(uplink_s, downlink_s, network.duplex), axis=-1)
    return _Schedule(info, state.queue, uplink_s, downlink_s, delay_s)


@functools.partial(jax.jit, static_argnames="scheme")
def _init(key: jax.Array, scheme: Scheme, params: LearningParams, world: World) -> Any:
    return init_learning(key, scheme, params, world)


def run(
    seeds: Sequence[int],
    network: Network,
    scheme: Scheme,
    backbone: Any,
    dataset: Dataset,
    *,
    num_rounds: int = 200,
    network_params: NetworkParams | None = None,
    learning_params: LearningParams | None = None,
    partitioner: Partitioner = iid,
    warmup_rounds: int = 0,
    evaluate_every: int = 10,
    progress: Callable[[int], None] | None = None,
    finished: Callable[[int, LearningState], None] | None = None,
) -> xr.Dataset:
    """Fine-tune a backbone over a simulated wireless network, once per seed.

    A seed decides the channels, the partition, the order of the data and the initial weights,
    and none of them depends on the scheduler: runs of different schedulers under the same seeds
    are paired. All seeds, schedulers and numbers share one compiled round.

    Args:
      seeds: one run each.
      network: the choices of the radio.
      scheme: the choices of the learning round, such as `fedft(...)`.
      backbone: frozen weights, the `params` collection of `scheme.model`.
      dataset: what the devices share out among themselves.
      num_rounds: T.
      network_params: the network's numbers; `network.default_params()` by default.
      learning_params: learning rates.
      partitioner: who holds which samples.
      warmup_rounds: network-only rounds that fill the virtual queue before round 0.
      evaluate_every: rounds between two evaluations on the test set.
      progress: called with the number of rounds just done.
      finished: called with a seed and its last state, adapters and heads, for who keeps them.

    Returns:
      A labelled data set with dimensions seed, round, eval_round and device; units and meanings
      are in its attributes.

    Raises:
      ValueError: no seeds, fewer than one round, more devices than samples.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    for name, value in (("num_rounds", num_rounds), ("evaluate_every", evaluate_every)):
        if value < 1:
            raise ValueError(f"{name}={value}: choose 1 or more")
    if not len(seeds):
        raise ValueError("seeds is empty: give at least one")
    network_params = as_arrays(network_params or network.default_params())
    learning_params = as_arrays(learning_params or LearningParams())
    # To the device once, not once per seed.
    backbone = jax.tree.map(jnp.asarray, backbone)
    data = _Data(
        *(
            jax.tree.map(jnp.asarray, tree)
            for tree in (
                dataset.train_inputs,
                dataset.train_labels,
                dataset.test_inputs,
                dataset.test_labels,
            )
        )
    )
    runs = [
        _run_seed(
            seed,
            network,
            scheme,
            backbone,
            data,
            partitioner(seed, np.asarray(dataset.train_labels), network.num_devices),
            num_rounds=num_rounds,
            network_params=network_params,
            learning_params=learning_params,
            warmup_rounds=warmup_rounds,
            evaluate_every=evaluate_every,
            progress=progress or (lambda rounds: None),
            finished=finished or (lambda seed, state: None),
        )
        for seed in seeds
    ]
    return xr.concat(runs, dim="seed")


def _run_seed(
    seed: int,
    network: Network,
    scheme: Scheme,
    backbone: Any,
    data: _Data,
    partition: Partition,
    *,
    num_rounds: int,
    network_params: NetworkParams,
    learning_params: LearningParams,
    warmup_rounds: int,
    evaluate_every: int,
    progress: Callable[[int], None],
    finished: Callable[[int, LearningState], None],
) -> xr.Dataset:
    started = time.perf_counter()
    clock = CompileClock()
    with clock:
        keys = run_keys(seed)
        world = World(
            backbone=backbone,
            inputs=data.inputs,
            labels=data.labels,
            indices=jnp.asarray(partition.indices),
            sizes=jnp.asarray(partition.sizes),
            test_inputs=data.test_inputs,
            test_labels=data.test_labels,
        )
        sent = payload(scheme, world)
        bits = jnp.asarray(sent, jnp.result_type(float))
        schedule = _draw_schedule(
            keys.network, network, network_params, *bits, num_rounds, warmup_rounds
        )
        mask = np.asarray(schedule.info.mask)
        fix = "some number of the network is beyond what a radio, or float32, can hold"
        _check_finite("delay", np.asarray(schedule.delay_s), 0, seed, fix)

        # An empty chunk first: it evaluates the initial state with the same compiled program.
        chunks = -(-num_rounds // evaluate_every)
        padded = np.zeros(((chunks + 1) * evaluate_every, network.num_devices), bool)
        padded[evaluate_every : evaluate_every + num_rounds] = mask
        state = _init(keys.init, scheme, learning_params, world)
        losses, evaluations = [], []
        for chunk in range(chunks + 1):
            first_round = (chunk - 1) * evaluate_every
            rows = slice(chunk * evaluate_every, (chunk + 1) * evaluate_every)
            state, info, evaluation = run_chunk(
                keys.rounds,
                state,
                jnp.asarray(padded[rows]),
                jnp.int32(first_round),
                scheme,
                learning_params,
                world,
            )
            loss = np.asarray(info.loss)
            busy = padded[rows].any(axis=-1)
            fix = "lower the learning rates"
            _check_finite("training loss", np.where(busy, loss, 0), first_round, seed, fix)
            losses.append(loss)
            evaluations.append(jax.tree.map(np.asarray, evaluation))
            progress(min(evaluate_every, num_rounds - first_round) if chunk else 0)

    finished(seed, state)
    seconds = time.perf_counter() - started
    return describe_run(
        seed=seed,
        schedule=jax.tree.map(np.asarray, schedule.info),
        last_queue=float(schedule.last_queue),
        uplink_s=np.asarray(schedule.uplink_s),
        downlink_s=np.asarray(schedule.downlink_s),
        delay_s=np.asarray(schedule.delay_s),
        loss=np.concatenate(losses[1:])[:num_rounds],
        evaluations=jax.tree.map(lambda *leaves: np.stack(leaves), *evaluations),
        evaluate_every=evaluate_every,
        payload=sent,
        delay_budget=float(np.asarray(network_params.delay_budget)),
        metric=scheme.task.metric_name,
        loss_unit=scheme.task.loss_unit,
        compile_s=clock.seconds,
        run_s=max(seconds - clock.seconds, 0.0),
    )


def _check_finite(what: str, values: np.ndarray, first_round: int, seed: int, fix: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise NonFiniteError(
            f"the {what} is {values[bad[0]]} in round {first_round + bad[0]} of seed {seed}: {fix}"
        )
