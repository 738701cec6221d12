"""Hugging Face checkpoints in: configuration and weights become a backbone and its parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from jaxsplit.models.base import POOLINGS, Backbone
from jaxsplit.models.blocks import stack_blocks
from jaxsplit.models.checkpoint_files import (
    CheckpointError,
    find_checkpoint,
    read_json,
    read_tensors,
)
from jaxsplit.models.families import FAMILIES, UNSUPPORTED, Family
from jaxsplit.models.positions import resize_positions

# Tensors of a checkpoint that an encoder has no use for: buffers and the heads of pre-training.
_UNUSED = (
    "embeddings.position_ids", "embeddings.token_type_ids", "embeddings.mask_token", "cls.",
    "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs.",
    "decoder.", "pooler.", "classifier.", "pre_classifier.",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: what to run, its weights, and where they are from."""

    model: Backbone  # without adapters
    params: Any  # the frozen weights, the `params` collection of `model`, stacked (`stack_blocks`)
    head: Any | None  # weights of the checkpoint's own task head, if it has one
    family: Family
    folder: Path
    name: str  # as asked for, a folder or a hub id
    label_names: tuple[str, ...]  # of the checkpoint's own head

    @property
    def source(self) -> str:
        """What transformers loads it from: the name, or its folder where only we know the name."""
        return str(self.folder) if self.name == "minilm" else self.name

    def make_head(self, num_outputs: int) -> Any:
        """A fresh task head of the kind that this family's models have in transformers."""
        if self.model.pooling == self.family.pooling:
            return self.family.make_head(num_outputs)
        return FAMILIES["bert"].make_head(num_outputs)


def from_pretrained(
    name: str | Path,
    *,
    pooling: str | None = None,
    image_size: int | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: bool = False,
    fused_attention: bool = False,
    revision: str | None = None,
) -> Checkpoint:
    """Read a BERT, RoBERTa, DistilBERT or ViT checkpoint of Hugging Face.

    Only JSON and safetensors are read; a pickle is never executed.

    Args:
      name: a folder with `config.json` and `model.safetensors` (or shards with an index), else an
        id on the Hugging Face hub.
      pooling: what the features are, "pooler", "cls" or "mean"; by default what the model with a
        task head in transformers reads: the pooler for BERT, the first token for the others.
      image_size: side of the images that a ViT will see; position embeddings are interpolated
        (bicubic) if the checkpoint was trained at another one.
      dtype: of the computation.
      param_dtype: of the frozen weights in memory.
      remat: recompute each block on the way back instead of keeping its activations.
      fused_attention: cuDNN's fused kernel, for NVIDIA GPUs and 16-bit `dtype`.
      revision: branch, tag or commit on the hub.

    Returns:
      A `Checkpoint`.

    Raises:
      CheckpointError: nothing found, a family that is not supported, a damaged file, missing or
        unknown tensors, wrong shapes, a pickle; the message names file and tensor.
      ValueError: an unknown `pooling`.

    Example:
      >>> from jaxsplit.models import from_pretrained
      >>> from_pretrained("no/such/place/on/earth")
      Traceback (most recent call last):
      jaxsplit.models.checkpoint_files.CheckpointError: no checkpoint 'no/such/place/on/earth'...
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r}: choose one of {', '.join(POOLINGS)}")
    folder = find_checkpoint(name, revision)
    config_json = read_json(folder / "config.json")
    family = _family_of(config_json, folder)
    import transformers  # slow to import: only where a checkpoint is read

    pooling = pooling or family.pooling
    try:
        config = getattr(transformers, family.config_class).from_dict(config_json)
        fields = family.build(config)
        model = family.backbone(
            **fields, pooling=pooling, dtype=dtype, remat=remat, fused_attention=fused_attention
        )
        expected = _expected_shapes(model, config)
    except Exception as error:  # what a senseless value breaks is anybody's
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder / 'config.json'}: {reason}") from None
    _check_choices(model, family, image_size, folder)
    tensors = _without_prefix(read_tensors(folder), family.prefix)
    params = _to_tree(model, family, tensors, folder, expected, image_size, param_dtype)
    head = _head_of(family, model, tensors, folder)
    names = getattr(config, "id2label", None) or {}
    labels = tuple(names[key] for key in sorted(names)) if head is not None else ()
    return Checkpoint(model, params, head, family, folder, str(name), labels)


def _family_of(config: dict[str, Any], folder: Path) -> Family:
    kind = config.get("model_type")
    if kind in FAMILIES:
        return FAMILIES[kind]
    reason = f" ({UNSUPPORTED[kind]})" if kind in UNSUPPORTED else ""
    raise CheckpointError(
        f"{folder / 'config.json'}: model_type={kind!r} is not supported{reason}; "
        f"supported are {', '.join(FAMILIES)}"
    )


def _check_choices(model: Backbone, family: Family, image_size: int | None, folder: Path) -> None:
    """What the caller chose, against what this checkpoint is."""
    if model.pooling == "pooler" and "pooler" not in family.dense:
        raise CheckpointError(f"{folder}: {family.prefix} has no pooler: choose 'cls' or 'mean'")
    if image_size is None:
        return
    patch = getattr(model, "patch_size", None)
    if patch is None:
        raise CheckpointError(f"{folder}: image_size={image_size}: {family.prefix} reads no images")
    if image_size < patch or image_size % patch:
        raise CheckpointError(
            f"{folder}: image_size={image_size}: give a multiple of its patch_size={patch}"
        )


def _without_prefix(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Names as in the bare encoder, and those of normalisations as PyTorch says them."""

    def renamed(name: str) -> str:
        name = name.removeprefix(f"{prefix}.")
        if name.endswith(".gamma"):
            return name.removesuffix("gamma") + "weight"
        return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name

    return {renamed(name): tensor for name, tensor in tensors.items()}


def _wanted_parts(
    model: Backbone, family: Family
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Each array of a backbone: its path in our tree, its possible names."""
    kinds = (
        (family.dense, (("weight", "weight"), ("bias", "bias"))),
        (family.norms, (("scale", "weight"), ("bias", "bias"))),
        (family.tables, (("", ""),)),
    )
    for table, leaves in kinds:
        for part, modules in table.items():
            if part == "pooler" and model.pooling != "pooler":
                continue
            if part == "type_embedding" and not getattr(model, "type_vocab_size", 0):
                continue
            blocks = range(model.num_hidden_layers) if "{i}" in part else (0,)
            for i in blocks:
                for ours, theirs in leaves:
                    is_qkv = part.rsplit("/", 1)[-1] in ("query", "key", "value")
                    if ours == "bias" and is_qkv and not model.qkv_bias:
                        continue
                    path = (*part.format(i=i).split("/"), *([ours] if ours else []))
                    names = tuple(".".join(filter(None, (m.format(i=i), theirs))) for m in modules)
                    yield path, names


def _to_tree(
    model: Backbone,
    family: Family,
    tensors: dict[str, np.ndarray],
    folder: Path,
    expected: dict[tuple[str, ...], tuple[int, ...]],
    image_size: int | None,
    param_dtype: DTypeLike,
) -> Any:
    flat, used, missing = {}, set(), []
    for path, names in _wanted_parts(model, family):
        found = next((name for name in names if name in tensors), None)
        if found is None:
            missing.append(names[-1])
            continue
        used.add(found)
        tensor = tensors[found]
        if path == ("patch_embedding", "weight") and tensor.ndim == 4:
            tensor = tensor.transpose(0, 2, 3, 1).reshape(tensor.shape[0], -1)  # [D, P·P·C]
        shape = expected.get(path)
        if shape is not None and tensor.shape != shape:
            raise CheckpointError(
                f"{folder}: {found!r} has the shape {tensor.shape}, config.json asks for "
                f"{shape}; the two files do not belong together"
            )
        if path == ("position_embedding",) and image_size is not None:
            tensor = resize_positions(tensor, image_size // model.patch_size)
        flat[path] = tensor
    if missing:
        hint = ""
        if any(name.startswith("pooler.") for name in missing):
            hint = "; without a pooler choose pooling='cls' or 'mean'"
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(missing) + len(flat)} tensors are missing, "
            f"the first is {missing[0]!r}{hint}"
        )
    extra = [n for n in sorted(set(tensors) - used) if not n.startswith(_UNUSED)]
    if extra:
        raise CheckpointError(
            f"{folder}: {len(extra)} tensors that config.json knows nothing of, the first is "
            f"{extra[0]!r}; a fine-tuned adapter or another network? Merge or remove them"
        )
    tree = stack_blocks(unflatten_dict(flat))  # on the host, before anything is on the accelerator
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, param_dtype), tree)


def _expected_shapes(model: Backbone, config: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes by path, as the model would make them; nothing is computed."""
    if hasattr(model, "patch_size"):
        size = config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        inputs: Any = jax.ShapeDtypeStruct((1, height, width, config.num_channels), jnp.float32)
    else:
        inputs = {"input_ids": jax.ShapeDtypeStruct((1, 1), jnp.int32)}
    tree = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    return {path: leaf.shape for path, leaf in flatten_dict(tree).items()}


def _head_of(
    family: Family, model: Backbone, tensors: dict[str, np.ndarray], folder: Path
) -> Any | None:
    """Weights of the checkpoint's own task head, in the layout of `family.make_head`."""
    names = {f"{m}.{leaf}" for m in family.head.values() for leaf in ("weight", "bias")}
    if model.pooling != family.pooling or not names <= set(tensors):
        return None
    for module in family.head.values():
        shape = tensors[f"{module}.weight"].shape
        if shape[1:] != (model.hidden_size,):
            raise CheckpointError(
                f"{folder}: '{module}.weight' has the shape {shape}, the backbone's features have "
                f"{model.hidden_size} columns; the two do not belong together"
            )
    return {
        "params": {
            part: {
                "kernel": jnp.asarray(tensors[f"{module}.weight"].T, jnp.float32),
                "bias": jnp.asarray(tensors[f"{module}.bias"], jnp.float32),
            }
            for part, module in family.head.items()
        }
    }
