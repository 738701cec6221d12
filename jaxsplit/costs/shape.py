"""The static numbers of a transformer that its costs follow from."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

#: Linear layers of a block, in the order in which a block applies them.
BLOCK_LAYERS = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")

_STAGE = {name: max(0, place - 2) for place, name in enumerate(BLOCK_LAYERS)} | {"qkv": 0}

Mode = Literal["paper", "exact"]
Pooling = Literal["pooler", "cls", "mean"]


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Sizes of a transformer encoder with adapters and a classification head.

    Letters as in SFT: L blocks, N tokens, D width, A heads, r rank, K_cls classes, P patch side,
    C channels.

    Attributes:
      num_blocks: L.
      width: D, values of a token.
      tokens: N, tokens of a sample, CLS included (197 for 224 × 224 pixels in patches of 16).
      num_heads: A.
      mlp_width: hidden width of a block's perceptron.
      num_outputs: K_cls, outputs of the head.
      patch_values: P²C, values of an image patch; 0 for text.
      embedding_parameters: parameters of the embedding, its positions and CLS token included.
      lora_rank: r.
      lora_targets: linear layers with an adapter: some of `BLOCK_LAYERS`, "pooler", or "qkv" for
        one adapter on query, key and value stacked (as timm's ViT has it). Empty for none.
      pooling: "pooler" (dense layer on the first token), "cls" or "mean", as of a backbone.
      final_norm: whether a normalisation follows the last block (ViT) or not (BERT).
      bytes_per_value: α, bytes of a weight or an activation; 4 for float32.

    Raises:
      ValueError: a size, a target or a pooling that no encoder can have.

    Example:
      >>> shape = EncoderShape.vit_base(num_outputs=100)
      >>> shape.parameters
      85875556
      >>> shape.block_adapters == 18 * 768 * 16
      True
    """

    num_blocks: int
    width: int
    tokens: int
    num_heads: int
    mlp_width: int
    num_outputs: int
    embedding_parameters: int
    patch_values: int = 0
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = BLOCK_LAYERS
    pooling: Pooling = "cls"
    final_norm: bool = True
    bytes_per_value: int = 4

    def __post_init__(self) -> None:
        """Reject what no encoder can have."""
        positive = ("num_blocks", "width", "tokens", "num_heads", "mlp_width", "num_outputs")
        for name in (*positive, "lora_rank", "bytes_per_value"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")
        for name in ("patch_values", "embedding_parameters"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: choose 0 or more")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling={self.pooling!r}: choose one of {get_args(Pooling)}")
        known = (*BLOCK_LAYERS, "qkv", *(("pooler",) if self.pooling == "pooler" else ()))
        if not set(self.lora_targets) <= set(known):
            raise ValueError(f"lora_targets={self.lora_targets!r}: choose some of {known}")
        if "qkv" in self.lora_targets and {"query", "key", "value"} & set(self.lora_targets):
            raise ValueError(
                f"lora_targets={self.lora_targets!r}: choose 'qkv' or some of its three parts"
            )

    @classmethod
    def vit(
        cls,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        num_blocks: int,
        width: int,
        num_heads: int,
        mlp_width: int,
        num_outputs: int,
        lora_rank: int = 16,
        lora_targets: tuple[str, ...] = BLOCK_LAYERS,
        pooling: Pooling = "cls",
        bytes_per_value: int = 4,
    ) -> "EncoderShape":
        """A vision transformer: tokens and embedding follow from the images.

        Args:
          image_size: side of a square image, pixels; a multiple of `patch_size`.
          patch_size: P, side of a square patch, pixels.
          channels: C.
          num_blocks: as of the class, like all that follow.
          width: D.
          num_heads: A.
          mlp_width: hidden width of a block's perceptron.
          num_outputs: K_cls.
          lora_rank: r.
          lora_targets: layers with an adapter.
          pooling: what the head reads.
          bytes_per_value: α.

        Returns:
          The shape.

        Raises:
          ValueError: `patch_size` does not divide `image_size`, or a size below 1.

        Example:
          >>> shape = EncoderShape.vit(image_size=32, patch_size=4, channels=3, num_blocks=2,
          ...     width=64, num_heads=4, mlp_width=128, num_outputs=10)
          >>> shape.tokens, shape.patch_values, shape.embedding_parameters
          (65, 48, 7360)
        """
        if patch_size < 1 or image_size % patch_size:
            raise ValueError(f"patch_size={patch_size} must divide image_size={image_size}")
        tokens = (image_size // patch_size) ** 2 + 1
        patch_values = patch_size**2 * channels
        return cls(
            num_blocks=num_blocks,
            width=width,
            tokens=tokens,
            num_heads=num_heads,
            mlp_width=mlp_width,
            num_outputs=num_outputs,
            patch_values=patch_values,
            # Weight, bias, CLS token, positions. SFT's (P²C + N + 3)D is the same number where
            # its N leaves out the CLS token.
            embedding_parameters=(patch_values + tokens + 2) * width,
            lora_rank=lora_rank,
            lora_targets=lora_targets,
            pooling=pooling,
            bytes_per_value=bytes_per_value,
        )

    @classmethod
    def vit_base(
        cls,
        num_outputs: int,
        lora_rank: int = 16,
        lora_targets: tuple[str, ...] = BLOCK_LAYERS,
        bytes_per_value: int = 4,
    ) -> "EncoderShape":
        """ViT-B/16 at 224 × 224 pixels, the model of SFT's experiments (Table II).

        Args:
          num_outputs: K_cls.
          lora_rank: r.
          lora_targets: layers with an adapter.
          bytes_per_value: α.

        Returns:
          The shape.

        Example:
          >>> EncoderShape.vit_base(num_outputs=200).parameters * 4 / 2**20  # SFT's Table III
          327.88...
        """
        return cls.vit(
            image_size=224,
            patch_size=16,
            channels=3,
            num_blocks=12,
            width=768,
            num_heads=12,
            mlp_width=3072,
            num_outputs=num_outputs,
            lora_rank=lora_rank,
            lora_targets=lora_targets,
            bytes_per_value=bytes_per_value,
        )

    def layer_widths(self, name: str) -> tuple[int, int]:
        """(D_in, D_out) of a linear layer.

        Args:
          name: one of `BLOCK_LAYERS`, "qkv" or "pooler".

        Returns:
          Its input and output width.
        """
        widths = {
            "qkv": (self.width, 3 * self.width),
            "mlp_in": (self.width, self.mlp_width),
            "mlp_out": (self.mlp_width, self.width),
        }
        return widths.get(name, (self.width, self.width))

    @property
    def block_targets(self) -> tuple[str, ...]:
        """The targets that every block has."""
        return tuple(name for name in self.lora_targets if name != "pooler")

    def adapter_parameters(self, name: str) -> int:
        """Parameters of one layer's adapter, r(D_in + D_out); see `layer_widths`."""
        return self.lora_rank * sum(self.layer_widths(name))

    @property
    def block_adapters(self) -> int:
        """Adapter parameters of a block; 18Dr (SFT §V-C) with all six targets and 4D hidden."""
        return sum(self.adapter_parameters(name) for name in self.block_targets)

    @property
    def block_parameters(self) -> int:
        """Frozen parameters of a block: SFT's 12D², and the biases and norms that it leaves out."""
        weights = sum(np.prod(self.layer_widths(name)) for name in BLOCK_LAYERS)
        biases = sum(self.layer_widths(name)[1] for name in BLOCK_LAYERS)
        return int(weights) + biases + 4 * self.width

    @property
    def output_parameters(self) -> int:
        """Frozen parameters after the last block: final norm and pooler."""
        norm = 2 * self.width if self.final_norm else 0
        return norm + (self.width * (self.width + 1) if self.pooling == "pooler" else 0)

    @property
    def output_adapters(self) -> int:
        """Adapter parameters after the last block: the pooler's."""
        return self.adapter_parameters("pooler") if "pooler" in self.lora_targets else 0

    @property
    def head_parameters(self) -> int:
        """Parameters of the head, DK_cls + K_cls."""
        return (self.width + 1) * self.num_outputs

    @property
    def parameters(self) -> int:
        """Parameters of the whole model with its head, without adapters."""
        blocks = self.num_blocks * self.block_parameters
        return self.embedding_parameters + blocks + self.output_parameters + self.head_parameters

    @property
    def adapters(self) -> int:
        """Adapter parameters of the whole model."""
        return self.num_blocks * self.block_adapters + self.output_adapters

    def device_parameters(self, cut: ArrayLike) -> np.ndarray:
        """Frozen parameters on the device: the embedding, once, and blocks 1…l.

        Args:
          cut: l, 0…L, an integer or an array of them.

        Returns:
          The number, int64, shaped like `cut`; times 8α it is Ψ(l) of SFT (11), less adapters.

        Raises:
          ValueError: a cut outside 0…L.
        """
        return self.embedding_parameters + checked_cut(self, cut) * self.block_parameters

    def device_adapters(self, cut: ArrayLike) -> np.ndarray:
        """Adapter parameters on the device, of blocks 1…l.

        Args:
          cut: l, 0…L, an integer or an array of them.

        Returns:
          The number, int64, shaped like `cut`; times 8α it is Ψ^L(l) of SFT (11) and (17), where
          the paper prints 2Dr per block.

        Raises:
          ValueError: a cut outside 0…L.

        Example:
          >>> EncoderShape.vit_base(num_outputs=100).device_adapters([0, 5]).tolist()
          [0, 1105920]
        """
        return checked_cut(self, cut) * self.block_adapters

    def distribution_bits(self, cut: ArrayLike, *, first_round: bool) -> np.ndarray:
        """Bits that a device gets at the start of a round (SFT (11)).

        Args:
          cut: l, 0…L, an integer or an array of them.
          first_round: Ψ(l), the frozen half and its adapters; else Ψ^L(l), the adapters.

        Returns:
          Bits, int64, shaped like `cut`.

        Raises:
          ValueError: a cut outside 0…L.

        Example:
          >>> shape = EncoderShape.vit_base(num_outputs=100)
          >>> for first_round in (True, False):
          ...     print(shape.distribution_bits(5, first_round=first_round) / 1e6)
          1193.213952
          35.38944
        """
        frozen = self.device_parameters(cut) if first_round else 0
        return 8 * self.bytes_per_value * (frozen + self.device_adapters(cut))

    @property
    def activation_bits(self) -> int:
        """Bits of one sample's uncompressed activation at the cut, N·D values.

        Example:
          >>> EncoderShape.vit_base(num_outputs=100).activation_bits
          4841472
        """
        return 8 * self.bytes_per_value * self.tokens * self.width


def checked_cut(shape: EncoderShape, cut: ArrayLike) -> np.ndarray:
    """Cuts as int64.

    Args:
      shape: the model.
      cut: l, an integer or an array of them.

    Returns:
      The same values.

    Raises:
      ValueError: a cut outside 0…L, or one that is no integer.
    """
    cuts = np.asarray(cut)
    wrong = cuts[(cuts != np.floor(cuts)) | (cuts < 0) | (cuts > shape.num_blocks)]
    if wrong.size:
        raise ValueError(
            f"cut={wrong.flat[0]} is outside the model: choose an integer from 0 (after the "
            f"embedding) to {shape.num_blocks} (after the last block)"
        )
    return cuts.astype(np.int64)


def check_mode(mode: str) -> None:
    """Raise a ValueError for a mode that there is not."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r} is unknown: choose one of {get_args(Mode)}")


def check_batch_size(batch_size: float) -> None:
    """Raise a ValueError for a mini-batch without samples."""
    if not batch_size > 0:
        raise ValueError(f"batch_size={batch_size}: choose more than 0")


@dataclass(frozen=True, kw_only=True)
class BlockUse:
    """Which gradients a block has to form: none that no adapter asks for.

    Nothing in front of the first block is trained, so what leads back only to its input is not
    computed, and what such a gradient would need is not kept.

    Attributes:
      shape: the model.
      first: whether it is the model's first block.
      first_token_only: whether it serves the first token only, as the last block does unless the
        tokens are averaged.
      train_weights: whether the weights are trained rather than adapters beside them.
    """

    shape: EncoderShape
    first: bool
    first_token_only: bool
    train_weights: bool

    @property
    def queries(self) -> int:
        """Tokens that attention and perceptron serve; keys and values are of all tokens."""
        return 1 if self.first_token_only else self.shape.tokens

    @property
    def trained(self) -> tuple[str, ...]:
        """Layers with something to train."""
        return BLOCK_LAYERS if self.train_weights else self.shape.block_targets

    @property
    def input_wanted(self) -> bool:
        """Whether the gradient of the block's input is wanted; trained weights embed, too."""
        return bool(self.trained) and (self.train_weights or not self.first)

    def trains(self, name: str) -> bool:
        """Whether a layer, or the stacked layer that it is part of, has something to train."""
        stacked = "qkv" in self.trained and name in ("query", "key", "value")
        return name in self.trained or stacked

    def wants_input_of(self, name: str) -> bool:
        """Whether the gradient of a layer's input is wanted."""
        return self.input_wanted or any(_STAGE[name] > _STAGE[other] for other in self.trained)

    def wants_output_of(self, name: str) -> bool:
        """Whether the gradient of a layer's output is wanted."""
        return self.input_wanted or any(_STAGE[name] >= _STAGE[other] for other in self.trained)

    def tokens_of(self, name: str) -> int:
        """Tokens that a layer serves."""
        return self.shape.tokens if name in ("key", "value", "qkv") else self.queries


def uses_first_token_only(shape: EncoderShape) -> bool:
    """Whether the last block serves the first token only."""
    return shape.pooling != "mean"
