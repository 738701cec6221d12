"""Whether the bits that a codec counts inside jit are those of a real stream."""

from typing import Any, cast

import jax
import numpy as np

from jaxsplit.compression import Codec
from jaxsplit.data import draw_batch
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.optimizers import LearningParams, with_codec_numbers
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import LearningState, World
from jaxsplit.federated.upload import Change, as_vector, uploaded

_MAX_UPLOAD = 2**16  # elements of an upload that are encoded: a check must not take long


class StreamMismatchError(RuntimeError):
    """A codec charged other bits than its stream has."""


def check_streams(
    key: jax.Array,
    state: LearningState,
    scheme: Scheme,
    params: LearningParams,
    world: World,
    samples: int = 4,
) -> int:
    """Encode activations and uploads to real bytes and compare lengths with the counted bits.

    Args:
      key: PRNG key.
      state: of a run; its adapters make the activations, and stand for the upload of a change.
      scheme: the choices.
      params: the numbers.
      world: backbone and data.
      samples: how many of a device's mini-batch are encoded.

    Returns:
      Bits that were compared; 0 where no codec has a stream of its own.

    Raises:
      StreamMismatchError: a stream is longer or shorter than counted.
    """
    params, compared = with_codec_numbers(params, scheme), 0
    if scheme.codec is not None and scheme.codec.encode is not None:
        rows = _activations(key, state, scheme, world, samples)
        compared += _check_rows(key, rows, scheme.codec, params.codec)
    if scheme.upload_codec is not None and scheme.upload_codec.encode is not None:
        head = jax.tree.map(lambda leaf: leaf[0], state.heads)
        vector = as_vector(uploaded(Change(state.adapters, head), scheme))
        rows = vector[None, :_MAX_UPLOAD]
        compared += _check_rows(key, rows, scheme.upload_codec, params.upload_codec)
    return compared


def _activations(
    key: jax.Array, state: LearningState, scheme: Scheme, world: World, samples: int
) -> jax.Array:
    """What some samples of the first device send up, a row each."""
    batch = draw_batch(key, world.indices[0], world.sizes[0], scheme.batch_size)[:samples]
    inputs = jax.tree.map(lambda leaf: leaf[batch], world.inputs)
    if scheme.transform is not None:
        inputs = scheme.transform(inputs)
    halves = TrainedHalves(scheme, world.backbone)
    tokens: Any = halves.embed(halves.divide(state.adapters).device, inputs).tokens
    return cast(jax.Array, tokens.reshape(len(tokens), -1))


def _check_rows(key: jax.Array, rows: jax.Array, codec: Codec, numbers: Any) -> int:
    """Bits of the rows' streams, which are as many as counted."""
    assert codec.encode is not None
    counted = np.asarray(codec.transmit(key, rows, numbers)[1])
    encoded = [8 * len(stream) for stream in codec.encode(key, rows, numbers)]
    if counted.tolist() != encoded:
        raise StreamMismatchError(
            f"the codec counted {counted.tolist()} bits and its streams have {encoded}: please "
            "report it with the configuration of this run"
        )
    return int(sum(encoded))
