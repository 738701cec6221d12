"""Decoded data sets on disk, so that the next run starts at once."""

import hashlib
import json
import warnings
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jaxsplit.data.sources.base import Dataset, plain_name
from jaxsplit.files import atomic_path

_FORMAT = 1  # of the cached file: raise it with any change of what is decoded
_ARRAYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")


def cache_file(folder: Path, path: Path, files: tuple[Path, ...], options: dict[str, Any]) -> Path:
    """Where the arrays of these files, decoded with these options, are kept.

    Args:
      folder: of the cache.
      path: of the data set.
      files: the files that are read; a change of size or time makes a new name.
      options: all that the arrays depend on besides; JSON values.

    Returns:
      A path in `folder`.

    Example:
      >>> here = Path(".")
      >>> cache_file(here, here, (), {"size": 8}) == cache_file(here, here, (), {"size": 9})
      False
    """
    stats = [(str(file), file.stat()) for file in files]
    key = {
        "format": _FORMAT,
        "version": version("jaxsplit"),
        "path": str(path.resolve()),
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        "options": options,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{plain_name(path.name) or 'data'}-{digest[:32]}.npz"


def read_cache(file: Path) -> Dataset | None:
    """A cached data set; None where there is none or the file is damaged.

    Args:
      file: from `cache_file`.

    Returns:
      The data set or None. Checksums in the file tell damage.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            values: dict[str, Any] = {}
            for name in _ARRAYS:
                leaves = about["leaves"][name]
                values[name] = (
                    stored[name]
                    if leaves is None
                    else {leaf: stored[f"{name}.{leaf}"] for leaf in leaves}
                )
        return Dataset(**values, label_names=tuple(about["label_names"]), task=about["task"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def write_cache(file: Path, dataset: Dataset) -> None:
    """Keep a data set; a file is there in full or not at all.

    A cache that cannot be written is told by a warning and costs only time.

    Args:
      file: from `cache_file`.
      dataset: its inputs are an array or a flat dict of arrays.
    """
    arrays: dict[str, np.ndarray] = {}
    leaves: dict[str, list[str] | None] = {}
    for name in _ARRAYS:
        value = getattr(dataset, name)
        leaves[name] = list(value) if isinstance(value, dict) else None
        if isinstance(value, dict):
            arrays.update({f"{name}.{leaf}": array for leaf, array in value.items()})
        else:
            arrays[name] = value
    about = {"leaves": leaves, "label_names": dataset.label_names, "task": dataset.task}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as partial, partial.open("wb") as stream:
            np.savez(stream, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        warnings.warn(f"{file} was not written, the next run decodes again: {error}", stacklevel=3)
