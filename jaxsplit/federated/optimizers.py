"""The numbers of a learning run, and the optimizers made of its learning rates."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxsplit.compression import Codec
from jaxsplit.federated.scheme import Scheme


class LearningParams(NamedTuple):
    """Numbers of a learning run: sweep over them with one trace."""

    adapter_learning_rate: ArrayLike = 0.3  # η of the adapters
    head_learning_rate: ArrayLike = 0.01  # η of the heads
    codec: Any = None  # of the link's codec; None: its own default numbers
    upload_codec: Any = None  # of the codec of uploads; likewise


def with_codec_numbers(params: LearningParams, scheme: Scheme) -> LearningParams:
    """Put a codec's own numbers where none are given.

    Args:
      params: the numbers.
      scheme: the choices, with the codecs.

    Returns:
      The numbers; of a codec that the scheme has not they are as they were.
    """

    def numbers(codec: Codec | None, given: Any) -> Any:
        return codec.params if given is None and codec is not None else given

    return params._replace(
        codec=numbers(scheme.codec, params.codec),
        upload_codec=numbers(scheme.upload_codec, params.upload_codec),
    )


class Optimizers(NamedTuple):
    """The optimizers of one round, with that round's learning rates."""

    adapters: optax.GradientTransformation
    head: optax.GradientTransformation


def optimizers_at(scheme: Scheme, params: LearningParams, round_index: ArrayLike) -> Optimizers:
    r"""Make the optimizers of round t, with learning rates $\eta_t = \eta f(t)$.

    Args:
      scheme: the choices, static; f is its `schedule`.
      params: the numbers.
      round_index: t, scalar int32.

    Returns:
      An optimizer for the adapters and one for a head. Their states do not depend on t.
    """
    rates: list[ArrayLike] = [params.adapter_learning_rate, params.head_learning_rate]
    if scheme.schedule is not None:
        factor = scheme.schedule(jnp.asarray(round_index, jnp.int32))
        rates = [jnp.multiply(rate, factor) for rate in rates]
    return Optimizers(*(scheme.optimizer(rate) for rate in rates))


def take_step(
    optimizer: optax.GradientTransformation, weights: Any, state: Any, gradient: Any
) -> tuple[Any, Any]:
    """One step of an optimizer.

    Args:
      optimizer: of these weights.
      weights: a pytree.
      state: the optimizer's.
      gradient: like the weights.

    Returns:
      `(weights, state)` after the step.
    """
    updates, state = optimizer.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state
