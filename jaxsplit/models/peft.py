"""PEFT adapters out and in: `adapter_config.json`, `adapter_model.safetensors`, and the head.

Written and read without PyTorch. `peft.PeftModel.from_pretrained(model, folder)` on the original
checkpoint gives the logits that jaxsplit measured, the head included.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from jaxsplit.files import atomic_path
from jaxsplit.models.base import Backbone
from jaxsplit.models.blocks import by_block
from jaxsplit.models.checkpoint_files import CheckpointError, read_json, read_tensors
from jaxsplit.models.families import Family
from jaxsplit.models.lora import TARGETS, LoraConfig
from jaxsplit.models.pretrained import Checkpoint

_ROOT = "base_model.model"
_HEAD_FILE = "head.safetensors"  # of a head that no class of transformers has
_FACTORS = {"a": "lora_A", "b": "lora_B"}

# Settings of PEFT under which an adapter is more, or other, than W + α/r·B·A; what is allowed.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None,),
    "alpha_pattern": ({}, None),
    "arrow_config": (None,),
    "rank_pattern": ({}, None),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    # Others, such as "pissa", put the adapter's start into the frozen weights.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
    "monteclora_config": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "use_bdlora": (None, False),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_rslora": (False, None),
}


class Adapter(NamedTuple):
    """What a PEFT folder holds, in our layout."""

    lora: LoraConfig
    adapters: Any  # the `lora` collection, by block
    head: Any | None  # weights of the task head, if the folder has one


def _modules(model: Backbone, family: Family, *, legacy: bool = False) -> Iterator[tuple[str, str]]:
    """Each layer that may carry an adapter: its path in our tree, its module in transformers."""
    targets = model.lora_targets()
    for part, module in _dense(model, family, legacy=legacy):
        if part.rsplit("/", 1)[-1] in targets:
            yield part, module


def _dense(model: Backbone, family: Family, *, legacy: bool) -> Iterator[tuple[str, str]]:
    """Each dense layer that transformers has, whether or not this backbone reads the pooler."""
    for part, names in family.dense.items():
        for i in range(model.num_hidden_layers) if "{i}" in part else (0,):
            yield part.format(i=i), names[-1 if legacy else 0].format(i=i)


def _shortest_suffixes(wanted: set[str], everything: set[str]) -> list[str]:
    """Names for PEFT's `target_modules`, which match ends of module names: no more than wanted."""
    suffixes = set()
    for name in wanted:
        words = name.split(".")
        for first in range(len(words) - 1, -1, -1):
            suffix = ".".join(words[first:])
            matched = {n for n in everything if n == suffix or n.endswith(f".{suffix}")}
            if matched <= wanted:
                suffixes.add(suffix)
                break
    return sorted(suffixes)


def export_peft(
    folder: Path,
    checkpoint: Checkpoint,
    lora: LoraConfig,
    adapters: Any,
    head: Any,
    *,
    transformers_4: bool = False,
) -> None:
    """Write adapters and a head as PEFT does, for use with PyTorch.

    Args:
      folder: where to write; created. Files are complete or absent.
      checkpoint: what was fine-tuned.
      lora: the adapters' configuration.
      adapters: the `lora` collection, by block or stacked.
      head: weights of the task head.
      transformers_4: name the modules of a ViT as transformers 4 did; version 5 renamed them.

    Where transformers has no class of this backbone and head (BERT with mean pooling, ViT with a
    pooler), the adapter is for the bare encoder and the head is beside it, `head.safetensors`.

    Raises:
      OSError: the folder cannot be written.
    """
    model, family = checkpoint.model, checkpoint.family
    in_class = model.pooling == family.pooling  # transformers has this model with its head
    root = f"{_ROOT}.{family.prefix}" if in_class else _ROOT
    modules = dict(_modules(model, family, legacy=transformers_4))
    flat = flatten_dict(by_block(adapters), sep="/")
    parts = sorted({path.rsplit("/", 1)[0] for path in flat})
    tensors = {
        f"{root}.{modules[part]}.{which}.weight": np.asarray(flat[f"{part}/{ours}"], np.float32)
        for part in parts
        for ours, which in _FACTORS.items()
    }
    everything = {module for _, module in _dense(model, family, legacy=transformers_4)}
    wanted = {modules[part] for part in parts}
    config = _adapter_config(checkpoint, lora, wanted, everything, in_class)
    head_tensors = _head_tensors(family if in_class else None, head)
    folder.mkdir(parents=True, exist_ok=True)
    if in_class:
        tensors |= {f"{_ROOT}.{name}": tensor for name, tensor in head_tensors.items()}
        (folder / _HEAD_FILE).unlink(missing_ok=True)  # of another model that was here before
    else:
        with atomic_path(folder / _HEAD_FILE) as path:
            save_file(head_tensors, path)
    with atomic_path(folder / "adapter_model.safetensors") as path:
        save_file(tensors, path, {"format": "pt", "jaxsplit": version("jaxsplit")})
    with atomic_path(folder / "adapter_config.json") as path:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _adapter_config(
    checkpoint: Checkpoint, lora: LoraConfig, wanted: set[str], everything: set[str], in_class: bool
) -> dict[str, Any]:
    family = checkpoint.family
    heads = sorted({name.split(".")[0] for name in family.head.values()})
    return {
        "peft_type": "LORA",
        "task_type": family.peft_task if in_class else "FEATURE_EXTRACTION",
        "base_model_name_or_path": checkpoint.source,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": _shortest_suffixes(wanted, everything | set(family.head.values())),
        "modules_to_save": heads if in_class else None,
    }


def _head_tensors(family: Family | None, head: Any) -> dict[str, np.ndarray]:
    """Weights of a head by their names in transformers, or by ours where there is no such head."""
    names = family.head if family else {part: part for part in head["params"]}
    return {
        f"{module}.{theirs}": np.ascontiguousarray(
            np.asarray(head["params"][part][ours], np.float32).T
        )
        for part, module in names.items()
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    }


def import_peft(folder: str | Path, checkpoint: Checkpoint) -> Adapter:
    """Read a PEFT LoRA adapter for a checkpoint.

    Args:
      folder: with `adapter_config.json` and `adapter_model.safetensors`.
      checkpoint: what the adapter was trained on.

    Returns:
      The adapters' configuration and weights, and the head if the folder holds one.

    Raises:
      CheckpointError: not a plain LoRA adapter, or one that does not fit this checkpoint; the
        message names the file and the setting or tensor.
    """
    folder = Path(folder).expanduser()
    path = folder / "adapter_config.json"
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type={config.get('peft_type')!r}: only LORA is read")
    for setting, plain in _PLAIN.items():
        if setting in config and config[setting] not in plain:
            raise CheckpointError(
                f"{path}: {setting}={config[setting]!r} is more than W + α/r·B·A; "
                f"only {plain[0]!r} is read: merge the adapter with PEFT first"
            )
    tensors = {_plain(name): t for name, t in read_tensors(folder, "adapter_model").items()}
    if (folder / _HEAD_FILE).exists():
        tensors |= read_tensors(folder, "head")
    prefix = f"{checkpoint.family.prefix}."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    adapters, used = _adapters_of(tensors, checkpoint, folder)
    head, of_head = _head_of(tensors, checkpoint, folder)
    if unknown := sorted(set(tensors) - used - of_head):
        raise CheckpointError(
            f"{folder}: {len(unknown)} tensors that this checkpoint has no place for, the first "
            f"is {unknown[0]!r}: is the adapter of another model?"
        )
    targets = {part[-2] for part in flatten_dict(adapters)}
    try:
        lora = LoraConfig(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            targets=tuple(target for target in TARGETS if target in targets),
            dropout=float(config.get("lora_dropout") or 0),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}: is it of an adapter?") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_shapes(adapters, checkpoint, lora, folder)
    return Adapter(lora, adapters, head)


def _plain(name: str) -> str:
    """A tensor's name without PEFT's wrappers."""
    name = name.removeprefix(f"{_ROOT}.")
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".")


def _adapters_of(
    tensors: dict[str, np.ndarray], checkpoint: Checkpoint, folder: Path
) -> tuple[Any, set[str]]:
    flat, used = {}, set()
    for legacy in (False, True):
        for part, module in _modules(checkpoint.model, checkpoint.family, legacy=legacy):
            names = {ours: f"{module}.{which}.weight" for ours, which in _FACTORS.items()}
            present = {ours: name for ours, name in names.items() if name in tensors}
            if len(present) == 1:
                absent = next(name for name in names.values() if name not in tensors)
                raise CheckpointError(f"{folder}: {absent!r} is missing, its partner is there")
            for ours, name in present.items():
                flat[(*part.split("/"), ours)] = jnp.asarray(tensors[name], jnp.float32)
                used.add(name)
    if not flat:
        raise CheckpointError(
            f"{folder}: no adapter for a layer of {checkpoint.name}: of another model?"
        )
    return unflatten_dict(flat), used


def _check_shapes(adapters: Any, checkpoint: Checkpoint, lora: LoraConfig, folder: Path) -> None:
    """Every block has the same adapters, and each fits its weight."""
    found = flatten_dict(adapters, sep="/")
    shapes = jax.eval_shape(by_block, checkpoint.params)
    weights = flatten_dict(shapes, sep="/")
    for part, module in _modules(checkpoint.model, checkpoint.family):
        if part.rsplit("/", 1)[-1] not in lora.targets:
            continue
        out, width = weights[f"{part}/weight"].shape
        for ours, shape in (("a", (lora.rank, width)), ("b", (out, lora.rank))):
            tensor = found.get(f"{part}/{ours}")
            if tensor is None:
                raise CheckpointError(
                    f"{folder}: {module} has no adapter, others of its kind have one; "
                    "adapters on some blocks only are not read"
                )
            if tensor.shape != shape:
                raise CheckpointError(
                    f"{folder}: {module}.{_FACTORS[ours]} has the shape {tensor.shape}, rank "
                    f"{lora.rank} on {checkpoint.name} asks for {shape}"
                )


def _head_of(
    tensors: dict[str, np.ndarray], checkpoint: Checkpoint, folder: Path
) -> tuple[Any | None, set[str]]:
    model, family = checkpoint.model, checkpoint.family
    modules = family.head if model.pooling == family.pooling else {"out": "out"}
    names = {
        (part, ours): f"{module}.{theirs}"
        for part, module in modules.items()
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    }
    if not set(names.values()) <= set(tensors):
        return None, set()
    for module in modules.values():
        shape = tensors[f"{module}.weight"].shape
        if shape != (*tensors[f"{module}.bias"].shape, model.hidden_size):
            raise CheckpointError(
                f"{folder}: {module}.weight has the shape {shape}, the features of "
                f"{checkpoint.name} have {model.hidden_size} columns"
            )
    flat = {
        ("params", *path): jnp.asarray(tensors[name].T, jnp.float32) for path, name in names.items()
    }
    return unflatten_dict(flat), set(names.values())
