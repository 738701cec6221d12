"""Memory that fine-tuning takes on a device, as SFT prints it and as it is."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxsplit.costs.shape import (
    BlockUse,
    EncoderShape,
    Mode,
    check_batch_size,
    check_mode,
    checked_cut,
    uses_first_token_only,
)

Optimizer = Literal["sgd", "adam", "adam_mixed"]

_STATES = {"sgd": 1, "adam": 2, "adam_mixed": 3}  # α̂ / α, SFT §V-B
_WIDE_BYTES = 4  # float32, in which mixed precision keeps its states


class Memory(NamedTuple):
    """Bytes on a device, float64, each shaped like the cut."""

    inputs: np.ndarray  # the mini-batch itself
    weights: np.ndarray  # frozen weights, or all weights where they are trained
    adapters: np.ndarray  # LoRA matrices
    gradients: np.ndarray  # of what is trained; `paper`: of everything
    optimizer: np.ndarray  # momenta, for what is trained; `paper`: for everything
    activations: np.ndarray  # kept for the way back

    @property
    def total(self) -> np.ndarray:
        """All of it."""
        return np.sum(self, axis=0)


def device_memory(
    shape: EncoderShape,
    cut: ArrayLike,
    batch_size: float,
    optimizer: Optimizer = "sgd",
    mode: Mode = "exact",
) -> Memory:
    r"""Memory of a device that trains blocks 1…l.

    `paper` is SFT (26), $16D^2 + BND + l M_t$, with (21)–(25)
    $M_t = (2\alpha + \hat\alpha)(12D^2 + 18Dr) + 34BND + 5BN^2A$; α bytes per value and
    $\hat\alpha$ = α (SGD with momentum), 2α (Adam), 3α (Adam, mixed precision). It has gradients
    and optimizer states for frozen weights; 34 and 5 are byte counts of 16-bit training with
    dropout, whatever α is. 16D² counts as weights and BND as activations here.

    `exact`: frozen weights once; gradient and states for adapters only; of the activations what
    the gradient of some adapter needs, at α bytes. A layer's input is kept where the layer has an
    adapter, else dropped. This is what has to be kept while the server computes. XLA keeps about a
    fifth more for ViT-B (its softmax holds a second N × N matrix per head), and its peak on a
    processor is about twice that, with the work buffers of single operations.

    Args:
      shape: the model.
      cut: l, 0…L, an integer or an array of them.
      batch_size: B, samples.
      optimizer: "sgd" (with momentum), "adam" or "adam_mixed".
      mode: "paper" or "exact".

    Returns:
      Bytes by purpose.

    Raises:
      ValueError: a cut outside 0…L, no samples, an unknown optimizer or mode.

    Example:
      >>> shape = EncoderShape.vit_base(num_outputs=200)
      >>> for mode in ("paper", "exact"):
      ...     memory = device_memory(shape, 5, batch_size=64, mode=mode)
      ...     print(mode, [round(float(part) / 2**20) for part in (*memory, memory.total)])
      paper [0, 144, 4, 139, 139, 2290, 2716]
      exact [37, 138, 4, 4, 4, 3510, 3697]
    """
    check_mode(mode)
    check_batch_size(batch_size)
    _check_optimizer(optimizer)
    cuts = checked_cut(shape, cut).astype(float)
    if mode == "paper":
        return _paper_memory(shape, cuts, batch_size, optimizer)
    first, other = (_kept_values(shape, first=first) for first in (True, False))
    kept = np.where(cuts > 0, first + (cuts - 1) * other, 0)
    value = shape.bytes_per_value
    adapters = cuts * shape.block_adapters
    return Memory(
        inputs=np.full_like(cuts, _input_bytes(shape, batch_size)),
        weights=value * (shape.embedding_parameters + cuts * shape.block_parameters),
        adapters=value * adapters,
        gradients=value * adapters,
        optimizer=_state_bytes(shape, optimizer) * adapters,
        activations=value * batch_size * kept,
    )


def model_memory(
    shape: EncoderShape,
    batch_size: float,
    optimizer: Optimizer = "sgd",
    mode: Mode = "exact",
    *,
    train_weights: bool = False,
) -> Memory:
    """Memory of a device that trains the whole model: federated learning.

    Args:
      shape: the model.
      batch_size: B, samples.
      optimizer: "sgd" (with momentum), "adam" or "adam_mixed".
      mode: "paper", (26) at l = L, whatever is trained; or "exact", with pooler and head, see
        `device_memory`.
      train_weights: train all weights instead of adapters, which are then left out.

    Returns:
      Bytes by purpose.

    Raises:
      ValueError: no samples, an unknown optimizer or mode.

    Example:
      >>> shape = EncoderShape.vit_base(num_outputs=200)
      >>> full = model_memory(shape, 64, train_weights=True)
      >>> round(float(full.weights) / 2**20, 2), round(float(full.optimizer) / 2**20, 2)
      (327.88, 327.88)
    """
    if mode != "exact":
        return device_memory(shape, shape.num_blocks, batch_size, optimizer, mode)
    check_batch_size(batch_size)
    _check_optimizer(optimizer)
    last = shape.num_blocks - 1
    kept = sum(
        _kept_values(
            shape,
            first=k == 0,
            first_token_only=k == last and uses_first_token_only(shape),
            train_weights=train_weights,
        )
        for k in range(shape.num_blocks)
    ) + _kept_output_values(shape, train_weights)
    value = shape.bytes_per_value
    adapters = 0 if train_weights else shape.adapters
    trained = shape.parameters if train_weights else adapters + shape.head_parameters
    return Memory(
        *map(
            np.asarray,
            (
                _input_bytes(shape, batch_size),
                float(value * shape.parameters),
                float(value * adapters),
                float(value * trained),
                float(_state_bytes(shape, optimizer) * trained),
                float(value * batch_size * kept),
            ),
        )
    )


def _paper_memory(
    shape: EncoderShape, cuts: np.ndarray, batch_size: float, optimizer: Optimizer
) -> Memory:
    value, width, tokens = shape.bytes_per_value, shape.width, shape.tokens
    block_weights, block_adapters = 12 * width**2, 18 * width * shape.lora_rank
    block_activations = 34 * tokens * width + 5 * tokens**2 * shape.num_heads
    both = block_weights + block_adapters
    return Memory(
        inputs=np.zeros_like(cuts),
        weights=16 * width**2 + cuts * value * block_weights,
        adapters=cuts * value * block_adapters,
        gradients=cuts * value * both,
        optimizer=cuts * value * _STATES[optimizer] * both,
        activations=batch_size * (tokens * width + cuts * block_activations),
    )


def _state_bytes(shape: EncoderShape, optimizer: Optimizer) -> int:
    """Bytes of optimizer state per trained value."""
    value = _WIDE_BYTES if optimizer == "adam_mixed" else shape.bytes_per_value
    return _STATES[optimizer] * value


def _input_bytes(shape: EncoderShape, batch_size: float) -> float:
    """Pixels in the model's precision, or 32-bit word indices."""
    if shape.patch_values:
        values = (shape.tokens - 1) * shape.patch_values
        return float(batch_size * values * shape.bytes_per_value)
    return float(batch_size * shape.tokens * 4)


def _kept_values(
    shape: EncoderShape,
    *,
    first: bool,
    first_token_only: bool = False,
    train_weights: bool = False,
) -> float:
    """Values that a block keeps of one sample."""
    use = BlockUse(
        shape=shape,
        first=first,
        first_token_only=first_token_only,
        train_weights=train_weights,
    )
    width = shape.width
    queries, tokens = use.queries * width, shape.tokens * width
    hidden = use.queries * shape.mlp_width
    attends = use.wants_output_of("value")
    kept = {
        "first norm, normalised": tokens * use.input_wanted,
        "input of query, key, value": tokens * any(map(use.trains, ("query", "key", "value"))),
        "query, key, value": (queries + 2 * tokens) * attends,
        "attention probabilities": shape.num_heads * use.queries * shape.tokens * attends,
        "input of the attention's output": queries * use.trains("attention_output"),
        "second norm, normalised": queries * use.wants_input_of("mlp_in"),
        "input of the perceptron": queries * use.trains("mlp_in"),
        "derivative of its activation": hidden * use.wants_output_of("mlp_in"),
        "input of its second layer": hidden * use.trains("mlp_out"),
    }
    low_rank = 0
    if not train_weights:
        low_rank = sum(use.tokens_of(name) * shape.lora_rank for name in shape.block_targets)
    return float(sum(kept.values()) + low_rank)


def _kept_output_values(shape: EncoderShape, train_weights: bool) -> float:
    """Values that final norm, pooler and head keep of one sample."""
    read = shape.tokens if shape.pooling == "mean" else 1
    below = train_weights or bool(shape.block_targets)
    pooled = shape.width  # input of the head
    if shape.pooling == "pooler":  # its input, and the tanh, which is the head's input
        pooled += shape.width * (train_weights or "pooler" in shape.lora_targets)
    return float(pooled + read * shape.width * (shape.final_norm and below))


def _check_optimizer(optimizer: str) -> None:
    if optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer={optimizer!r} is unknown: choose one of {get_args(Optimizer)}")
