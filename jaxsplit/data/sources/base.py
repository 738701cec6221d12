"""What every data set looks like, and the contract of a format on disk."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

#: Is told how far a long stage is: `(stage, done, total)`.
Progress = Callable[[str, int, int], None]

#: What is learnt: a class, or a number.
Task = Literal["classification", "regression"]


class Dataset(NamedTuple):
    """A task with its common test set, as arrays.

    Inputs are images, [M, H, W, C] uint8 or float32, or tokens: a dict of `input_ids`,
    `attention_mask` and, where the tokenizer has them, `token_type_ids`, each [M, S] int32.
    """

    train_inputs: Any  # pytree of arrays [M, ...]
    train_labels: np.ndarray  # [M] int32, 0 … num_classes − 1; float32 for a regression
    test_inputs: Any  # pytree of arrays [M_test, ...]
    test_labels: np.ndarray  # [M_test]
    label_names: tuple[str, ...] = ()  # of the classes, where the source knows them
    task: Task = "classification"

    @property
    def num_classes(self) -> int:
        """Number of labels of a classification."""
        if self.task == "regression":
            raise ValueError("a regression has no classes: its head has num_outputs=1")
        highest = max(self.train_labels.max(), self.test_labels.max())
        return len(self.label_names) or int(highest) + 1

    @property
    def num_outputs(self) -> int:
        """Width of the head: one number for a regression, else one per class."""
        return 1 if self.task == "regression" else self.num_classes


class Texts(NamedTuple):
    """Sentences, or pairs of them."""

    first: list[str]
    second: list[str] | None = None  # as long as `first`

    def take(self, rows: np.ndarray) -> "Texts":
        """The texts of some rows."""
        second = None if self.second is None else [self.second[row] for row in rows]
        return Texts([self.first[row] for row in rows], second)


class RawSplit(NamedTuple):
    """Training or test samples as a file holds them."""

    inputs: Texts | list[bytes] | np.ndarray  # texts, encoded images, or decoded [M, H, W, C] uint8
    labels: np.ndarray  # [M] int32 or float32
    where: Callable[[int], str]  # the file and row of a sample, for messages

    def take(self, rows: np.ndarray) -> "RawSplit":
        """Some of the samples, which still know where they come from."""
        if isinstance(self.inputs, Texts):
            inputs: Texts | list[bytes] | np.ndarray = self.inputs.take(rows)
        elif isinstance(self.inputs, list):
            inputs = [self.inputs[row] for row in rows]
        else:
            inputs = self.inputs[rows]
        return RawSplit(inputs, self.labels[rows], lambda row: self.where(int(rows[row])))


class RawDataset(NamedTuple):
    """A data set as its files hold it: nothing decoded, nothing tokenized."""

    train: RawSplit
    test: RawSplit
    label_names: tuple[str, ...] = ()
    task: Task = "classification"


class Source(NamedTuple):
    """A format of data sets on disk.

    `files(path)` lists what `read` would open, and is empty where the path is not of this format;
    it opens no large file. `read(path)` returns samples in the order of the files, with labels that
    `checked` has passed. Both raise a `ValueError` for a folder of this format that is not complete
    or not sound: it names the file, the row, what was found there and what is expected.
    """

    format: str  # for messages
    files: Callable[[Path], tuple[Path, ...]]
    read: Callable[[Path], RawDataset]


def checked(raw: RawDataset) -> RawDataset:
    """Check that both splits hold samples and that every label can be learnt.

    Args:
      raw: what a source has read.

    Returns:
      The same.

    Raises:
      ValueError: a split without samples; a class below 0 or beyond the names; a score that is not
        finite.
    """
    for name, split in (("training", raw.train), ("test", raw.test)):
        if not len(split.labels):
            raise ValueError(f"the {name} set is empty: {split.where(0)} is not there")
        if raw.task == "regression":
            wrong, allowed = ~np.isfinite(split.labels), "a finite score"
        else:
            highest = len(raw.label_names) - 1 if raw.label_names else np.iinfo(np.int32).max
            wrong = (split.labels < 0) | (split.labels > highest)
            allowed = f"a class from 0 to {highest}" if raw.label_names else "a class from 0 on"
        if wrong.any():
            row = int(wrong.argmax())
            label = split.labels[row].item()
            hint = " (-1 marks unlabelled samples)" if label == -1 else ""
            raise ValueError(f"{split.where(row)}: label {label}{hint}: give {allowed}")
    return raw


def plain_name(name: str) -> str:
    """The letters and digits of a name in lower case, by which names are compared.

    Example:
      >>> plain_name("SST-2")
      'sst2'
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())
