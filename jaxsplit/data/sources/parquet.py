"""Parquet folders as on the Hugging Face hub, of images or of texts."""

import bisect
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsplit.data.sources.base import RawDataset, Source
from jaxsplit.data.sources.tables import COLUMNS, read_tables, require_splits, split_of

if TYPE_CHECKING:
    import pyarrow as pa

_FOLDERS = (".", "data", "plain_text", "default")  # where repositories keep their files
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_WNIDS = "wnids.txt"  # the classes of Tiny-ImageNet, by WordNet id


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, shards in order."""
    for place in (folder / name for name in _FOLDERS):
        splits: dict[str, list[Path]] = {}
        for file in sorted(place.glob("*.parquet")):
            if split := split_of(file.name):
                splits.setdefault(split, []).append(file)
        if splits:
            for files in splits.values():
                _require_all_shards(files)
            require_splits(splits, place)
            return splits
    return {}


def _require_all_shards(files: list[Path]) -> None:
    """An unnumbered file stands alone; of numbered ones, each part is there once."""
    shards = [_SHARD.search(file.name) for file in files]
    parts = [(int(shard[1]), int(shard[2])) if shard else (0, 1) for shard in shards]
    total = parts[0][1]
    if parts != [(index, total) for index in range(total)]:
        names = ", ".join(file.name for file in files)
        raise ValueError(
            f"{files[0].parent}: found {names}; expected {total} files, each part once: "
            "get the missing ones, remove the others"
        )


def _read_files(files: list[Path]) -> "tuple[pa.Table, Callable[[int], str]]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in files:
        try:
            names = [name for name in pq.read_schema(file).names if name in COLUMNS]
            tables.append(pq.read_table(file, columns=names, partitioning=None))
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file}: no sound parquet file ({reason}): get it again") from error
    ends = list(itertools.accumulate(len(table) for table in tables))

    def where(row: int) -> str:
        part = min(bisect.bisect_right(ends, row), len(files) - 1)
        return f"{files[part]}, row {row - (ends[part] - len(tables[part]))} (counted from 0)"

    try:
        return pa.concat_tables(tables), where
    except pa.ArrowException as error:
        raise ValueError(
            f"{files[0].parent}: the columns of {files[0].name} and its other parts differ: "
            "get them again"
        ) from error


def _files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    files = tuple(itertools.chain.from_iterable(_splits(folder).values()))
    wnids = folder / _WNIDS
    return (*files, wnids) if files and wnids.is_file() else files


def _read(folder: Path) -> RawDataset:
    splits = _splits(folder)
    raw = read_tables(lambda split: _read_files(splits[split]), splits, folder)
    if not raw.label_names and (folder / _WNIDS).is_file():
        names = tuple((folder / _WNIDS).read_text(encoding="utf-8").split())
        if len(names) > max(raw.train.labels.max(), raw.test.labels.max()):
            raw = raw._replace(label_names=names)
    return raw


#: Images (`img` or `image`) or texts, each with `label` or `fine_label`.
SOURCE = Source("a parquet folder (train*.parquet; test*.parquet or val*.parquet)", _files, _read)
