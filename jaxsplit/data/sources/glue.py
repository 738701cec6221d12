"""GLUE tasks as folders of tab-separated files, as in the original archives."""

import codecs
import dataclasses
import warnings
from pathlib import Path

import numpy as np

from jaxsplit.data.sources.base import RawDataset, RawSplit, Source, Texts, checked, plain_name


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task: where its texts and its label stand.

    Attributes:
      name: as the Hugging Face hub calls it.
      folder: as the archive calls it.
      text_columns: one for sentences, two for pairs.
      label_column: the label's.
      labels: as the files write them, class 0 first; empty for scores.
      label_names: names of the classes; `labels` themselves where empty.
      header: the columns of files that have no header line.
      dev: the file of the test set.
      drops_malformed: rows with a wrong number of columns are dropped with a warning: the official
        file holds some, and every reader drops them.
    """

    name: str
    folder: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    dev: str = "dev.tsv"
    drops_malformed: bool = False


_BINARY = ("0", "1")
_SENTENCES = ("sentence1", "sentence2")

#: All tasks. Of those with equal columns, the labels tell.
TASKS = (
    GlueTask(
        "cola", "CoLA", ("sentence",), "label", _BINARY, ("unacceptable", "acceptable"),
        header=("source", "label", "mark", "sentence"),
    ),
    GlueTask("sst2", "SST-2", ("sentence",), "label", _BINARY, ("negative", "positive")),
    GlueTask(
        "mrpc", "MRPC", ("#1 String", "#2 String"), "Quality", _BINARY,
        ("not_equivalent", "equivalent"),
    ),
    GlueTask(
        "qqp", "QQP", ("question1", "question2"), "is_duplicate", _BINARY,
        ("not_duplicate", "duplicate"), drops_malformed=True,
    ),
    GlueTask("stsb", "STS-B", _SENTENCES, "score", ()),
    GlueTask(
        "mnli", "MNLI", _SENTENCES, "gold_label", ("entailment", "neutral", "contradiction"),
        dev="dev_matched.tsv",
    ),
    GlueTask("qnli", "QNLI", ("question", "sentence"), "label", ("entailment", "not_entailment")),
    GlueTask("rte", "RTE", _SENTENCES, "label", ("entailment", "not_entailment")),
    GlueTask("wnli", "WNLI", _SENTENCES, "label", _BINARY, ("not_entailment", "entailment")),
)  # fmt: skip


def _lines(file: Path) -> list[str]:
    raw = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8: "
            "save the file as UTF-8"
        ) from error
    # Not splitlines(): texts hold other separators, such as U+2028.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{file}: the file is empty: get it again")
    return lines


def _listing(columns: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(column) for column in columns)


def _task_of(folder: Path, file: Path) -> GlueTask:
    """The task by the folder's name or, under any other name, by its columns and first label."""
    for task in TASKS:
        if plain_name(folder.name) in (task.name, plain_name(task.folder)):
            return task
    lines = [line.split("\t") for line in _lines(file)[:2]]
    for task in sorted(TASKS, key=lambda task: -len(task.text_columns)):  # QNLI has SST-2's columns
        header = list(task.header) or lines[0]
        first = lines[0] if task.header else lines[-1]
        row = dict(zip(header, first, strict=False)) if len(header) == len(first) else {}
        if {*task.text_columns, task.label_column} <= set(row) and (
            not task.labels or row[task.label_column] in task.labels
        ):
            return task
    names = ", ".join(task.folder for task in TASKS)
    raise ValueError(
        f"{file}: columns {_listing(lines[0])} are of no GLUE task: name the folder after one of "
        f"{names}"
    )


def _read_split(task: GlueTask, file: Path) -> RawSplit:
    lines = _lines(file)
    header = list(task.header) or lines[0].split("\t")
    first = 1 if task.header else 2  # line number of the first sample
    for column in (*task.text_columns, task.label_column):
        if column not in header:
            raise ValueError(
                f"{file}, line 1: found columns {_listing(header)}, expected {column!r} of "
                f"{task.folder}: get the file again"
            )
    texts = [header.index(column) for column in task.text_columns]
    label_at = header.index(task.label_column)
    classes = {label: index for index, label in enumerate(task.labels)}
    rows, labels, numbers, dropped = [], [], [], 0
    for number, line in enumerate(lines[first - 1 :], first):
        row = line.split("\t")
        if len(row) != len(header):
            if task.drops_malformed:
                dropped += 1
                continue
            raise ValueError(
                f"{file}, line {number}: columns: found {len(row)}, expected {len(header)} "
                f"({', '.join(header)}): separate them by one tab each"
            )
        try:
            labels.append(float(row[label_at]) if not classes else classes[row[label_at]])
        except (KeyError, ValueError):
            allowed = f"one of {_listing(task.labels)}" if classes else "a number"
            raise ValueError(
                f"{file}, line {number}: found label {row[label_at]!r}, expected {allowed}"
            ) from None
        rows.append(row)
        numbers.append(number)
    if dropped:
        warnings.warn(
            f"{file}: rows dropped that have not {len(header)} columns: {dropped}", stacklevel=2
        )
    columns = [[row[at] for row in rows] for at in texts]
    return RawSplit(
        Texts(*columns),
        np.array(labels, np.int32 if classes else np.float32),
        lambda row: f"{file}, line {numbers[row]}" if numbers else str(file),
    )


def _files(folder: Path) -> tuple[Path, ...]:
    train = folder / "train.tsv"
    if not train.is_file():
        return ()
    for name in ("dev_matched.tsv", "dev.tsv"):
        if (folder / name).is_file():
            return train, folder / name
    raise ValueError(f"{folder}: holds train.tsv but neither dev.tsv nor dev_matched.tsv: add it")


def _read(folder: Path) -> RawDataset:
    train, dev = _files(folder)
    task = _task_of(folder, train)
    return checked(
        RawDataset(
            _read_split(task, train),
            _read_split(task, dev),
            task.label_names or task.labels,
            "classification" if task.labels else "regression",
        )
    )


#: SST-2, MRPC, QNLI, RTE, CoLA, QQP, MNLI, STS-B and WNLI; the test set is the dev file.
SOURCE = Source("a GLUE folder (train.tsv, dev.tsv)", _files, _read)
