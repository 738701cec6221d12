"""Many rounds in one compiled program, of one seed or of many."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplit.federated.evaluate import Evaluation, evaluate
from jaxsplit.federated.optimizers import LearningParams
from jaxsplit.federated.round import RoundInfo, federated_round
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import LearningState, World


@functools.partial(jax.jit, static_argnames="scheme", donate_argnames="state")
def run_chunk(
    key: jax.Array,
    state: LearningState,
    masks: jax.Array,
    first_round: jax.Array,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> tuple[LearningState, RoundInfo, Evaluation]:
    """Scan a chunk of rounds over a schedule drawn beforehand, then evaluate.

    Args:
      key: PRNG key of the run; round t uses `fold_in(key, t)`, so that the data order depends
        neither on the schedule nor on the chunks.
      state: before the chunk; donated.
      masks: scheduled sets, bool [R, N]. A row without devices costs nothing and changes
        nothing: it pads the last chunk.
      first_round: t of the chunk's first round, scalar int32.
      scheme: the choices, static.
      params: the numbers.
      world: backbone and data.

    Returns:
      `(state, info with a leading axis [R], evaluation after the chunk)`.
    """
    return _chunk(key, state, masks, first_round, scheme, params, world)


@functools.partial(jax.jit, static_argnames="scheme", donate_argnames="state")
def run_chunk_of_seeds(
    key: jax.Array,
    state: LearningState,
    masks: jax.Array,
    first_round: jax.Array,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> tuple[LearningState, RoundInfo, Evaluation]:
    """Run `run_chunk` for S seeds at once; each result is that of its seed alone, to rounding.

    A round takes as many groups of devices as the seed with the largest scheduled set needs.

    Args:
      key: PRNG keys of the runs, [S].
      state: before the chunk, leading axis [S]; donated.
      masks: scheduled sets, bool [S, R, N].
      first_round: t of the chunk's first round, scalar int32, of all seeds.
      scheme: the choices, static.
      params: the numbers of each seed, leading axis [S].
      world: backbone and data, with axes as in `world_axes`: each seed has its own partition,
        everything else is shared and never copied.

    Returns:
      `(state, info, evaluation)` as of `run_chunk`, each with a leading axis [S].
    """

    def one(
        key: jax.Array, state: LearningState, masks: jax.Array, params: LearningParams, world: World
    ) -> Any:
        return _chunk(key, state, masks, first_round, scheme, params, world)

    return jax.vmap(one, in_axes=(0, 0, 0, 0, world_axes()))(key, state, masks, params, world)


def world_axes() -> World:
    """Axes of seeds in the `World` of `run_chunk_of_seeds`, for `vmap`'s `in_axes`.

    Returns:
      A `World` with 0 for what has a leading axis [S], None for what all seeds share.

    Example:
      >>> axes = world_axes()
      >>> axes.sizes, axes.backbone
      (0, None)
    """
    of_seed: Any = 0
    shared: Any = None
    return World(
        backbone=shared,
        inputs=shared,
        labels=shared,
        indices=of_seed,
        sizes=of_seed,
        test_inputs=shared,
        test_labels=shared,
    )


def _chunk(
    key: jax.Array,
    state: LearningState,
    masks: jax.Array,
    first_round: jax.Array,
    scheme: Scheme,
    params: LearningParams,
    world: World,
) -> tuple[LearningState, RoundInfo, Evaluation]:
    """The rounds of one seed; see `run_chunk`."""

    def body(
        state: LearningState, of_round: tuple[jax.Array, jax.Array]
    ) -> tuple[LearningState, RoundInfo]:
        index, mask = of_round
        key_of_round = jax.random.fold_in(key, index)
        return federated_round(key_of_round, state, mask, scheme, params, world, index)

    rounds = first_round + jnp.arange(masks.shape[0], dtype=jnp.int32)
    state, info = jax.lax.scan(body, state, (rounds, masks))
    return state, info, evaluate(state, scheme, world)
