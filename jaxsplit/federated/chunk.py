"""Many rounds in one compiled program."""

import functools

import jax
import jax.numpy as jnp

from jaxsplit.federated.evaluate import Evaluation, evaluate
from jaxsplit.federated.round import (
    LearningParams,
    LearningState,
    RoundInfo,
    World,
    federated_round,
)
from jaxsplit.federated.scheme import Scheme


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

    def body(
        state: LearningState, of_round: tuple[jax.Array, jax.Array]
    ) -> tuple[LearningState, RoundInfo]:
        index, mask = of_round
        return federated_round(jax.random.fold_in(key, index), state, mask, scheme, params, world)

    rounds = first_round + jnp.arange(masks.shape[0], dtype=jnp.int32)
    state, info = jax.lax.scan(body, state, (rounds, masks))
    return state, info, evaluate(state, scheme, world)
