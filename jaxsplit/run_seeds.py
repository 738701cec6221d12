"""The rounds of some seeds, chunk by chunk: train, record, tell, keep."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jaxsplit.checkpoint import Checkpointing, Checkpoints
from jaxsplit.clock import Times
from jaxsplit.compile_clock import CompileClock
from jaxsplit.costs import Payload
from jaxsplit.federated import (
    Evaluation,
    LearningParams,
    LearningState,
    RoundInfo,
    Scheme,
    Work,
    World,
    check_streams,
    init_learning,
    payload,
    run_chunk,
    run_chunk_of_seeds,
    work,
)
from jaxsplit.models import by_block
from jaxsplit.network import run_keys
from jaxsplit.observer import Observer
from jaxsplit.results import describe_run
from jaxsplit.run_plan import NonFiniteError, Plan, check_delays, rows, sent_bits


class History(NamedTuple):
    """What some seeds have measured; what is to come holds zeros."""

    rounds: RoundInfo  # fields [S, T, ...]
    evaluations: Evaluation  # fields [S, E, ...], the first before round 0
    compile_s: np.ndarray  # [S] wall time spent compiling, the seeds' equal shares
    run_s: np.ndarray  # [S] wall time of the rest


def init_seeds(seeds: Sequence[int], plan: Plan, world: World) -> LearningState:
    """The states before round 0.

    Args:
      seeds: S of them.
      plan: of the run.
      world: with an axis of seeds before `indices` and `sizes`.

    Returns:
      A state with a leading axis [S].
    """
    states = [
        _init(run_keys(seed).init, plan.scheme, rows(plan.learning_params, k), of_seed(world, k))
        for k, seed in enumerate(seeds)
    ]
    return _stacked(states)


@jax.jit
def _stacked(states: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@jax.jit
def _only(stacked: Any) -> Any:
    return rows(stacked, 0)


@functools.partial(jax.jit, static_argnames="scheme")
def _init(key: jax.Array, scheme: Scheme, params: LearningParams, world: World) -> LearningState:
    return init_learning(key, scheme, params, world)


def of_seed(world: World, k: int) -> World:
    """The world of one seed out of several."""
    return world._replace(indices=world.indices[k], sizes=world.sizes[k])


def advance(
    key_rounds: jax.Array,
    state: LearningState,
    masks: jax.Array,
    first_round: jax.Array,
    plan: Plan,
    world: World,
) -> tuple[LearningState, RoundInfo, Evaluation]:
    """A chunk of rounds of all seeds; one seed takes a program without the axis.

    Args:
      key_rounds: of each seed, [S].
      state: with a leading axis [S]; used up.
      masks: scheduled sets, bool [S, R, N].
      first_round: t of the chunk's first round.
      plan: of the run.
      world: with an axis of seeds before `indices` and `sizes`.

    Returns:
      `(state, info, evaluation)`, each with a leading axis [S].
    """
    params = plan.learning_params
    if len(key_rounds) > 1:
        return run_chunk_of_seeds(key_rounds, state, masks, first_round, plan.scheme, params, world)
    *alone, params = _only((key_rounds, state, masks, params))
    numbers = (first_round, plan.scheme, params)
    return _stacked([run_chunk(*alone, *numbers, of_seed(world, 0))])


def run_seeds(
    seeds: Sequence[int],
    plan: Plan,
    world: World,
    observer: Observer,
    checkpointing: Checkpointing | None,
    compile_s: float = 0.0,
) -> list[xr.Dataset]:
    """Run some seeds at once, from their newest checkpoint if there is one.

    Args:
      seeds: S of them.
      plan: of the run.
      world: with an axis of seeds before `indices` and `sizes`.
      observer: is told what happens.
      checkpointing: where to keep the states.
      compile_s: seconds that compiling for them has taken already.

    Returns:
      A labelled result for each seed.

    Raises:
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    watch = _Watch(len(seeds), compile_s)
    with watch.clock:
        charge = _Charge(seeds, plan, of_seed(world, 0))
        schedules = charge.schedules
        masks, num_tests = plan.masks(schedules), len(world.test_labels)
        key_rounds = _stacked([run_keys(seed).rounds for seed in seeds])
        state = init_seeds(seeds, plan, world)
        history = _empty_history(plan, state, world)
        for k, seed in enumerate(seeds):
            check_delays(seed, np.asarray(charge.times(k, history).delay_s))
        keeper = _Keeper(checkpointing, seeds) if checkpointing else None
        first = 0
        if keeper and (kept := keeper.newest({"state": state, "history": history})):
            first = kept.step + 1
            state, history = jax.tree.map(jnp.asarray, kept.tree["state"]), kept.tree["history"]
            watch.restart(history)
            done = plan.samples(masks[:1, :first], num_tests)
            for seed in seeds:
                observer.resumed(seed, plan.rounds_after(kept.step), done)

        for chunk in range(first, plan.num_chunks):
            state, info, evaluation = advance(
                key_rounds,
                state,
                jnp.asarray(masks[:, chunk]),
                jnp.int32((chunk - 1) * plan.evaluate_every),
                plan,
                world,
            )
            _record(history, plan, chunk, info, evaluation)
            _check_finite(history, plan, chunk, masks, seeds, keeper)
            history = watch.stamp(history)
            if keeper:
                keeper.keep(chunk, state, history, is_last=chunk == plan.num_chunks - 1)
            _tell(observer, seeds, plan, chunk, charge, history)
            observer.encoded(plan.samples(masks[:, chunk : chunk + 1], num_tests))
    if keeper:
        keeper.close()
    _check_streams(key_rounds, state, plan, world, observer)
    results, state = [], jax.device_get(state)
    for k, seed in enumerate(seeds):
        last, measured = jax.tree.map(lambda leaf, k=k: leaf[k], (state, history))
        observer.finished(seed, last._replace(adapters=by_block(last.adapters)))
        results.append(_describe(seed, plan, charge, k, history, measured))
    return results


def _check_streams(
    key_rounds: jax.Array, state: LearningState, plan: Plan, world: World, observer: Observer
) -> None:
    """Compare a codec's counted bits with real bytes, on activations of the first seed."""
    key, of_first, params = _only((key_rounds, state, plan.learning_params))
    bits = check_streams(key, of_first, plan.scheme, params, of_seed(world, 0))
    if bits:
        observer.noted(f"the codec's count was compared with real streams: {bits} bits, equal")


class _Charge:
    """The schedules of some seeds, and what their rounds send and take."""

    def __init__(self, seeds: Sequence[int], plan: Plan, world: World) -> None:
        self._plan, self._keys = plan, [run_keys(seed) for seed in seeds]
        self.schedules = [plan.draw_schedule(keys) for keys in self._keys]
        shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: world))
        self.payload, self._work = _exchanged(plan.scheme, tuple(shapes), structure)

    def sent(self, k: int, history: History) -> Payload:
        """Bits of seed k's rounds [T, N]; of those to come what no codec counts."""
        rounds = jax.tree.map(lambda leaf: leaf[k], history.rounds)
        return sent_bits(self.payload, rounds, np.asarray(self.schedules[k].info.mask))

    def times(self, k: int, history: History) -> Times:
        """Times of seed k's rounds."""
        sent = self.sent(k, history)
        return self._plan.charge(self._keys[k], self.schedules[k], sent, self._work)


@functools.lru_cache(maxsize=8)
def _exchanged(
    scheme: Scheme, shapes: tuple[jax.ShapeDtypeStruct, ...], structure: Any
) -> tuple[Payload, Work]:
    """What a device sends and computes; traced once for all seeds and policies."""
    world = jax.tree.unflatten(structure, shapes)
    return payload(scheme, world), work(scheme, world)


# -- what is measured ------------------------------------------------------------------------------


class _Watch:
    """Wall time, compiling apart from running, over all attempts of a run."""

    def __init__(self, num_seeds: int, compile_s: float) -> None:
        self.clock = CompileClock()
        self._started, self._num_seeds = time.perf_counter(), num_seeds
        self._compile_s, self._run_s = compile_s, 0.0

    def restart(self, history: History) -> None:
        """Add to what an earlier attempt took; getting here again does not count."""
        self._compile_s = float(history.compile_s.sum()) - self.clock.seconds
        elapsed_s = time.perf_counter() - self._started
        self._run_s = float(history.run_s.sum()) - (elapsed_s - self.clock.seconds)

    def stamp(self, history: History) -> History:
        """The history with the time so far, shared out equally."""
        elapsed_s = time.perf_counter() - self._started
        compile_s = self._compile_s + self.clock.seconds
        run_s = self._run_s + elapsed_s - self.clock.seconds
        return history._replace(
            compile_s=np.full(self._num_seeds, max(compile_s, 0) / self._num_seeds),
            run_s=np.full(self._num_seeds, max(run_s, 0) / self._num_seeds),
        )


def _empty_history(plan: Plan, state: LearningState, world: World) -> History:
    """Room for all that the run will measure."""
    num_seeds, num_devices = world.sizes.shape
    key_rounds = jax.eval_shape(lambda: jnp.stack([run_keys(0).rounds] * num_seeds))
    masks = jax.ShapeDtypeStruct((num_seeds, plan.evaluate_every, num_devices), bool)
    _, info, evaluation = jax.eval_shape(
        lambda key, state, masks, world: advance(key, state, masks, jnp.int32(0), plan, world),
        key_rounds,
        state,
        masks,
        world,
    )

    def of_all_rounds(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.zeros((num_seeds, plan.num_rounds, *leaf.shape[2:]), leaf.dtype)

    def of_all_evaluations(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.zeros((num_seeds, plan.num_chunks, *leaf.shape[1:]), leaf.dtype)

    return History(
        rounds=jax.tree.map(of_all_rounds, info),
        evaluations=jax.tree.map(of_all_evaluations, evaluation),
        compile_s=np.zeros(num_seeds),
        run_s=np.zeros(num_seeds),
    )


def _record(
    history: History, plan: Plan, chunk: int, info: RoundInfo, evaluation: Evaluation
) -> None:
    """Write what a chunk measured into the history."""
    rounds = plan.rounds_of(chunk)

    def write_rounds(kept: np.ndarray, new: jax.Array) -> None:
        kept[:, rounds] = np.asarray(new)[:, : rounds.stop - rounds.start]

    def write_evaluation(kept: np.ndarray, new: jax.Array) -> None:
        kept[:, chunk] = np.asarray(new)

    jax.tree.map(write_rounds, history.rounds, info)
    jax.tree.map(write_evaluation, history.evaluations, evaluation)


def _tell(
    observer: Observer,
    seeds: Sequence[int],
    plan: Plan,
    chunk: int,
    charge: _Charge,
    history: History,
) -> None:
    """Tell what a chunk measured."""
    rounds, metric = plan.rounds_of(chunk), plan.scheme.task.metric_name
    for k, seed in enumerate(seeds):
        network, delay_s = charge.schedules[k], np.asarray(charge.times(k, history).delay_s)
        observer.trained(
            seed,
            rounds.start,
            {
                "loss": np.asarray(history.rounds.loss[k, rounds]),
                "num_scheduled": np.asarray(network.info.mask[rounds]).sum(axis=-1),
                "delay": np.asarray(network.info.delay)[rounds],
                "queue": np.asarray(network.info.queue)[rounds],
                "delay_s": delay_s[rounds],
            },
        )
        at = jax.tree.map(lambda leaf, k=k: leaf[k, chunk], history.evaluations)
        observer.evaluated(
            seed,
            rounds.stop,
            {
                metric: float(at.score),
                f"{metric}_participants": float(at.score_participants),
                f"{metric}_mean_head": float(at.score_mean_head),
                "test_loss": float(at.loss),
                "time_s": float(delay_s[: rounds.stop].sum(dtype=np.float64)),
            },
        )


def _describe(
    seed: int, plan: Plan, charge: _Charge, k: int, history: History, measured: History
) -> xr.Dataset:
    schedule = charge.schedules[k]
    return describe_run(
        seed=seed,
        schedule=schedule.info,
        last_queue=float(schedule.last_queue),
        times=charge.times(k, history),
        sent=charge.sent(k, history),
        rounds=measured.rounds,
        evaluations=measured.evaluations,
        evaluate_every=plan.evaluate_every,
        payload=charge.payload,
        delay_budget=float(np.asarray(plan.network_params.delay_budget)),
        metric=plan.scheme.task.metric_name,
        loss_unit=plan.scheme.task.loss_unit,
        compile_s=float(measured.compile_s),
        run_s=float(measured.run_s),
    )


# -- what is kept, and what went wrong -------------------------------------------------------------


class _Keeper:
    """Checkpoints of some seeds, not more often than asked for."""

    def __init__(self, checkpointing: Checkpointing, seeds: Sequence[int]) -> None:
        name = f"seed{seeds[0]}" if len(seeds) == 1 else f"seeds{seeds[0]}-{seeds[-1]}"
        self._checkpoints = Checkpoints(checkpointing.folder / name, checkpointing.keep)
        self._every_s = checkpointing.every_s
        self._kept_s = time.perf_counter()
        self.last: Path | None = None

    def newest(self, like: Any) -> Any:
        """The newest checkpoint that is whole."""
        kept = self._checkpoints.newest(like)
        if kept:
            self.last = self._checkpoints.path(kept.step)
        return kept

    def keep(self, chunk: int, state: LearningState, history: History, *, is_last: bool) -> None:
        """Keep a state if it is time."""
        now = time.perf_counter()
        if is_last or now - self._kept_s >= self._every_s:
            self._checkpoints.save(chunk, {"state": state, "history": history})
            self.last = self._checkpoints.path(chunk)
            self._kept_s = now

    def close(self) -> None:
        """Nothing more is kept or read."""
        self._checkpoints.close()


def _check_finite(
    history: History,
    plan: Plan,
    chunk: int,
    masks: np.ndarray,
    seeds: Sequence[int],
    keeper: _Keeper | None,
) -> None:
    """Stop at the first round with a loss that is not finite, and name its device.

    Raises:
      NonFiniteError: there is one.
    """
    rounds = plan.rounds_of(chunk)
    busy = masks[:, chunk, : rounds.stop - rounds.start]
    losses = np.where(busy, history.rounds.device_loss[:, rounds], 0)
    where = np.argwhere(~np.isfinite(losses.transpose(1, 0, 2)))  # the earliest round first
    fix = "lower the learning rates"
    if keeper:
        kept = f"{keeper.last}" if keeper.last else "none yet"
        fix += f" (the last good checkpoint: {kept})"
    if len(where):
        t, k, device = where[0]
        raise NonFiniteError(
            f"the training loss of device {device} is {losses[k, t, device]} in round "
            f"{rounds.start + t} of seed {seeds[k]}: {fix}"
        )
    tests = history.evaluations.loss[:, chunk]
    if bad := np.flatnonzero(~np.isfinite(tests)).tolist():
        raise NonFiniteError(
            f"the test loss is {tests[bad[0]]} after {rounds.stop} rounds of seed "
            f"{seeds[bad[0]]}: {fix}"
        )
