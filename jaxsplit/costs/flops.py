"""Floating-point operations of a split training step, as SFT prints them and as they are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxsplit.costs.shape import (
    BLOCK_LAYERS,
    BlockUse,
    EncoderShape,
    Mode,
    check_batch_size,
    check_mode,
    checked_cut,
    uses_first_token_only,
)


class SplitFlops(NamedTuple):
    """FLOP of one mini-batch on both sides of the cut, float64, each shaped like the cut."""

    device_forward: np.ndarray  # Φ_c^F, in CC
    device_backward: np.ndarray  # Φ_c^B, in DU
    server_forward: np.ndarray  # Φ_s^F, in SC
    server_backward: np.ndarray  # Φ_s^B, in SC

    @property
    def server(self) -> np.ndarray:
        """Φ_s^F + Φ_s^B, the server's job for one device."""
        return self.server_forward + self.server_backward


class ModelFlops(NamedTuple):
    """FLOP of one mini-batch through the whole model."""

    forward: float
    backward: float


def split_flops(
    shape: EncoderShape, cut: ArrayLike, batch_size: float, mode: Mode = "exact"
) -> SplitFlops:
    r"""FLOP of one mini-batch on the device and on the server.

    `paper` is SFT §V-C to the letter, B samples, N tokens, D width, K classes:
    $\Phi_c^F = l\,(24BND^2 + 4BN^2D) + 2BNDK$, $\Phi_c^B = 2\Phi_c^F$, the server's with $L - l$
    in place of l, no head in its forward and $4BNDK$ in its backward. It has the head on the
    device as well as on the server and on every token, trains frozen weights, and leaves out
    embedding and adapters.

    `exact` counts the products of a model that trains adapters: embedding on the device; pooler
    and head on the server, on what the head reads; a frozen layer costs once its forward on the
    way back, an adapter and attention twice; no gradient for what lies in front of the first
    adapter; the last block serves only the first token, unless the tokens are averaged or the
    device runs it. Adapters act beside the weights, $xW^\top + (xA^\top)B^\top$, as adapters of
    single devices do. Elementwise operations are left out.

    Args:
      shape: the model.
      cut: l, 0…L, an integer or an array of them.
      batch_size: B, samples; a fraction is a mean over batches, as all is linear in B.
      mode: "paper" or "exact".

    Returns:
      FLOP of both sides.

    Raises:
      ValueError: a cut outside 0…L, no samples, or an unknown mode.

    Example:
      >>> shape = EncoderShape.vit_base(num_outputs=100)
      >>> paper = split_flops(shape, 5, 64, "paper")
      >>> f"{paper.device_forward:.4g} {paper.server:.4g}"
      '9.325e+11 3.912e+12'
      >>> exact = split_flops(shape, np.arange(13), 64)
      >>> f"{exact.device_forward[5]:.4g} {exact.server[5]:.4g}"
      '9.732e+11 2.444e+12'
    """
    check_mode(mode)
    check_batch_size(batch_size)
    cuts = checked_cut(shape, cut)
    if mode == "paper":
        block, head = _paper_block(shape, batch_size), _paper_head(shape, batch_size)
        on_device, on_server = cuts * block, (shape.num_blocks - cuts) * block
        return SplitFlops(
            device_forward=on_device + head,
            device_backward=2 * (on_device + head),
            server_forward=on_server,
            server_backward=2 * (on_server + head),
        )
    last = shape.num_blocks - 1
    on_device = np.array(
        [_block(shape, first=k == 0, first_token_only=False) for k in range(shape.num_blocks)]
    )
    on_server = np.array(
        [
            _block(shape, first=k == 0, first_token_only=k == last and uses_first_token_only(shape))
            for k in range(shape.num_blocks)
        ]
    )
    none = np.zeros((1, 2))
    device = batch_size * np.concatenate([none, np.cumsum(on_device, 0)])[cuts]
    server = batch_size * np.concatenate([np.cumsum(on_server[::-1], 0)[::-1], none])[cuts]
    output_forward, output_backward = _output(shape)
    return SplitFlops(
        device_forward=device[..., 0] + batch_size * _embedding(shape),
        device_backward=device[..., 1],
        server_forward=server[..., 0] + batch_size * output_forward,
        server_backward=server[..., 1] + batch_size * output_backward,
    )


def model_flops(
    shape: EncoderShape, batch_size: float, mode: Mode = "exact", *, train_weights: bool = False
) -> ModelFlops:
    """FLOP of one mini-batch through the whole model: what a device of federated learning does.

    Args:
      shape: the model.
      batch_size: B, samples.
      mode: "paper", L blocks and the head by SFT §V-C, backward twice the forward whatever is
        trained; or "exact", see `split_flops`.
      train_weights: train all weights instead of adapters, which are then left out.

    Returns:
      FLOP of the way forward and back.

    Raises:
      ValueError: no samples, or an unknown mode.

    Example:
      >>> shape = EncoderShape.vit_base(num_outputs=100)
      >>> lora, full = model_flops(shape, 1), model_flops(shape, 1, train_weights=True)
      >>> f"{lora.backward / lora.forward:.2f} {full.backward / full.forward:.2f}"
      '1.04 1.99'
    """
    check_mode(mode)
    check_batch_size(batch_size)
    if mode == "paper":
        head = _paper_head(shape, batch_size)
        forward = shape.num_blocks * _paper_block(shape, batch_size) + head
        return ModelFlops(forward, 2 * forward)
    last = shape.num_blocks - 1
    blocks = [
        _block(
            shape,
            first=k == 0,
            first_token_only=k == last and uses_first_token_only(shape),
            train_weights=train_weights,
        )
        for k in range(shape.num_blocks)
    ]
    forward, backward = np.sum([*blocks, _output(shape, train_weights)], axis=0)
    # Of the embedding's backward only the weights' gradient is wanted: once the forward.
    embedding = _embedding(shape)
    return ModelFlops(
        forward=float(batch_size * (forward + embedding)),
        backward=float(batch_size * (backward + train_weights * embedding)),
    )


def _paper_block(shape: EncoderShape, batch_size: float) -> float:
    """24BND² + 4BN²D."""
    rows = float(batch_size) * shape.tokens
    return rows * shape.width * (24 * shape.width + 4 * shape.tokens)


def _paper_head(shape: EncoderShape, batch_size: float) -> float:
    """2BNDK, the head on every token."""
    return 2.0 * batch_size * shape.tokens * shape.width * shape.num_outputs


def _embedding(shape: EncoderShape) -> float:
    """One sample's patches; looking up words costs nothing."""
    patches = shape.tokens - 1 if shape.patch_values else 0
    return 2.0 * patches * shape.patch_values * shape.width


def _block(
    shape: EncoderShape, *, first: bool, first_token_only: bool, train_weights: bool = False
) -> tuple[float, float]:
    """Forward and backward of one sample through a block."""
    use = BlockUse(
        shape=shape,
        first=first,
        first_token_only=first_token_only,
        train_weights=train_weights,
    )
    forward = backward = 0.0
    for name in BLOCK_LAYERS:
        d_in, d_out = shape.layer_widths(name)
        product = 2.0 * use.tokens_of(name) * d_in * d_out
        forward += product
        backward += product * (use.wants_input_of(name) + train_weights)
    for name in () if train_weights else shape.block_targets:
        d_in, d_out = shape.layer_widths(name)
        rows = 2.0 * use.tokens_of(name) * shape.lora_rank
        forward += rows * (d_in + d_out)
        # Gradients of B, of what lies between, of A; and of the input if anybody asks.
        backward += rows * (2 * d_out + d_in + d_in * use.wants_input_of(name))
    scores = 2.0 * use.queries * shape.tokens * shape.width
    forward += 2 * scores
    wanted = [use.input_wanted or use.trains(name) for name in ("query", "key", "value")]
    # Through the probabilities, if query or key ask; then one product for each that asks.
    backward += scores * (sum(wanted) + (wanted[0] or wanted[1]))
    return forward, backward


def _output(shape: EncoderShape, train_weights: bool = False) -> tuple[float, float]:
    """Forward and backward of one sample through pooler and head; the head is always trained."""
    head = 2.0 * shape.width * shape.num_outputs
    wanted = train_weights or bool(shape.lora_targets)
    forward, backward = head, head * (1 + wanted)
    if shape.pooling == "pooler":
        pooler = 2.0 * shape.width**2
        below = train_weights or bool(shape.block_targets)
        forward += pooler
        backward += pooler * (below + train_weights)
        if "pooler" in shape.lora_targets and not train_weights:
            rows = 2.0 * shape.lora_rank * shape.width
            forward += 2 * rows
            backward += rows * (3 + below)
    return forward, backward
