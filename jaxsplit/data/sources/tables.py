"""Tables as data sets of the Hugging Face hub have them: which columns hold what."""

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxsplit.data.sources.base import RawDataset, RawSplit, Texts, checked

if TYPE_CHECKING:
    import pyarrow as pa

_LABELS = ("label", "fine_label")
_IMAGES = ("img", "image")
_TEXTS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("sentence",),
    ("text",),
)

#: The columns that are read, of those that a table has.
COLUMNS = frozenset({*_LABELS, *_IMAGES, *(column for group in _TEXTS for column in group)})

#: Reads a split by its name: the table, and the file and row of a sample.
Reader = Callable[[str], "tuple[pa.Table, Callable[[int], str]]"]


def split_of(name: str) -> str | None:
    """The split that the name of a file or folder tells; MNLI's mismatched one is left out.

    Example:
      >>> split_of("valid-00000-of-00001.parquet"), split_of("training_log.parquet")
      ('validation', None)
    """
    found = re.match(r"(train|test|validation|valid|val)(?![A-Za-z0-9])(?!.*mismatched)", name)
    if found is None:
        return None
    return "validation" if found[1].startswith("val") else found[1]


def require_splits(splits: Collection[str], place: Path) -> None:
    """Raise a `ValueError` where training or test samples are missing."""
    if "train" not in splits or len(splits) < 2:
        have = ", ".join(sorted(splits)) or "none"
        raise ValueError(f"{place}: found splits: {have}; expected train and test or validation")


def read_tables(read: Reader, splits: Collection[str], place: Path) -> RawDataset:
    """Put a data set together from tables.

    The test set is the split `test` where that is labelled, else `validation`: the hub's copies of
    benchmarks keep the test labels back and write -1.

    Args:
      read: reads a split.
      splits: the names there are.
      place: the folder, for messages.

    Returns:
      The raw data set.

    Raises:
      ValueError: a missing split or column, a column of another type, an empty cell, a label out of
        range.
    """
    require_splits(splits, place)
    table, where = read("train")
    names = _label_names(table.schema)
    train = _split(table, where)
    if "test" in splits:
        test = _split(*read("test"))
        if "validation" in splits and len(test.labels) and (test.labels == -1).all():
            test = _split(*read("validation"))
    else:
        test = _split(*read("validation"))
    is_score = train.labels.dtype == np.float32
    if train.labels.dtype != test.labels.dtype or type(train.inputs) is not type(test.inputs):
        raise ValueError(f"{test.where(0)}: columns are of other types than those of training")
    return checked(RawDataset(train, test, names, "regression" if is_score else "classification"))


def _label_names(schema: "pa.Schema") -> tuple[str, ...]:
    """Names of the classes, which the `datasets` library writes beside the schema."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    for column in _LABELS:
        if column in schema.names:
            return tuple(features.get(column, {}).get("names") or ())
    return ()


def _split(table: "pa.Table", where: Callable[[int], str]) -> RawSplit:
    import pyarrow as pa
    import pyarrow.compute as pc

    def column(name: str, fits: Callable[..., bool], kind: str) -> "pa.ChunkedArray":
        values = table[name]
        if not fits(values.type):
            raise ValueError(f"{where(0)}: column {name!r} is of {values.type}, expected {kind}")
        if values.null_count:
            row = pc.index(pc.is_null(values), True).as_py()
            raise ValueError(f"{where(row)}: column {name!r} is empty, expected {kind}")
        return values

    def text(name: str) -> list[str]:
        texts: list[str] = column(name, is_text, "texts").to_pylist()
        return texts

    def is_text(kind: "pa.DataType") -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def is_binary(kind: "pa.DataType") -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def is_number(kind: "pa.DataType") -> bool:
        return pa.types.is_integer(kind) or pa.types.is_floating(kind)

    label = next((name for name in _LABELS if name in table.column_names), None)
    image = next((name for name in _IMAGES if name in table.column_names), None)
    texts = next((names for names in _TEXTS if set(names) <= set(table.column_names)), None)
    if label is None or (image is None and texts is None):
        expected = f"{' or '.join(_IMAGES)}, or {', '.join('+'.join(names) for names in _TEXTS)}"
        raise ValueError(
            f"{where(0)}: found columns {', '.join(table.column_names)}; expected "
            f"{' or '.join(_LABELS)}, and {expected}"
        )
    labels = column(label, is_number, "whole numbers or scores")
    dtype = np.float32 if pa.types.is_floating(labels.type) else np.int32
    inputs: Texts | list[bytes]
    if image is not None:
        kind = table.schema.field(image).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            images = pc.struct_field(table[image], "bytes")
            table = table.set_column(table.column_names.index(image), image, images)
        inputs = column(image, is_binary, "the bytes of image files").to_pylist()
    else:
        inputs = Texts(*(text(name) for name in texts or ()))
    return RawSplit(inputs, labels.to_numpy().astype(dtype), where)
