"""Folders that `DatasetDict.save_to_disk` of the `datasets` library has written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsplit.data.sources.base import RawDataset, Source
from jaxsplit.data.sources.tables import COLUMNS, read_tables, require_splits, split_of

if TYPE_CHECKING:
    import pyarrow as pa


def _entry(file: Path, key: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: no JSON with {key!r} ({error}): save the data set again"
        ) from error


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The Arrow files of each split, in order."""
    splits = {}
    for name in _entry(folder / "dataset_dict.json", "splits"):
        if split := split_of(name):
            parts = _entry(folder / name / "state.json", "_data_files")
            splits[split] = [folder / name / part["filename"] for part in parts]
    require_splits(splits, folder)
    return splits


def _read_files(files: list[Path]) -> "tuple[pa.Table, Callable[[int], str]]":
    import pyarrow as pa

    tables = []
    for file in files:
        try:
            with pa.OSFile(str(file)) as stream:
                table = pa.ipc.open_stream(stream).read_all()
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{file}: no sound Arrow file ({reason}): save the data set again"
            ) from error
        tables.append(table.select([name for name in table.column_names if name in COLUMNS]))
    split = files[0].parent
    return pa.concat_tables(tables), lambda row: f"{split}, row {row} (counted from 0)"


def _files(folder: Path) -> tuple[Path, ...]:
    if (folder / "dataset_dict.json").is_file():
        return tuple(file for files in _splits(folder).values() for file in files)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        raise ValueError(
            f"{folder}: holds one split: save a DatasetDict with train and test instead"
        )
    return ()


def _read(folder: Path) -> RawDataset:
    splits = _splits(folder)
    return read_tables(lambda split: _read_files(splits[split]), splits, folder)


#: What `datasets.load_from_disk` reads, here without that library.
SOURCE = Source("a folder of DatasetDict.save_to_disk (dataset_dict.json)", _files, _read)
