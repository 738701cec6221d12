"""Whether the bits that a codec counts inside jit are those of a real stream."""

from typing import Any

import jax
import numpy as np

from jaxsplit.data import draw_batch
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.optimizers import LearningParams
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import LearningState, World


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
    """Encode some activations to real bytes and compare their lengths with the counted bits.

    Args:
      key: PRNG key.
      state: of a run; its adapters make the activations.
      scheme: the choices.
      params: the numbers.
      world: backbone and data.
      samples: how many of a device's mini-batch are encoded.

    Returns:
      Bits that were compared; 0 where the codec has no stream of its own.

    Raises:
      StreamMismatchError: a stream is longer or shorter than counted.
    """
    codec = scheme.codec
    if codec is None or codec.encode is None:
        return 0
    numbers = codec.params if params.codec is None else params.codec
    batch = draw_batch(key, world.indices[0], world.sizes[0], scheme.batch_size)[:samples]
    inputs = jax.tree.map(lambda leaf: leaf[batch], world.inputs)
    if scheme.transform is not None:
        inputs = scheme.transform(inputs)
    halves = TrainedHalves(scheme, world.backbone)
    tokens: Any = halves.embed(halves.divide(state.adapters).device, inputs).tokens
    rows = tokens.reshape(len(tokens), -1)
    counted = np.asarray(codec.transmit(key, rows, numbers)[1])
    encoded = [8 * len(stream) for stream in codec.encode(key, rows, numbers)]
    if counted.tolist() != encoded:
        raise StreamMismatchError(
            f"the codec counted {counted.tolist()} bits and its streams have {encoded}: please "
            "report it with the configuration of this run"
        )
    return int(sum(encoded))
