"""A data set by its name: found, read, decoded, and cached."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

from jaxsplit.data.sources import cifar, glue, parquet, saved
from jaxsplit.data.sources.base import Dataset, Progress, RawDataset, RawSplit, Source, Texts
from jaxsplit.data.sources.cache import cache_file, read_cache, write_cache
from jaxsplit.data.sources.decode import decode_images, resize_images
from jaxsplit.data.sources.lookup import find
from jaxsplit.data.text import load_tokenizer, tokenize, tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The formats, in the order in which a folder is tried.
SOURCES: tuple[Source, ...] = (glue.SOURCE, saved.SOURCE, parquet.SOURCE, cifar.SOURCE)

_SUBSET_SEED = 0


def load(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    tokenizer: "str | Path | PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    image_size: int | None = None,
    max_train: int | None = None,
    max_test: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set of images or texts as arrays.

    GLUE folders, Parquet folders of the Hugging Face hub, folders of `DatasetDict.save_to_disk` and
    CIFAR archives are told apart by their files. Arrays are cached: a second call with the same
    files and options decodes nothing.

    Args:
      name: a path, a known name such as "sst2" or "cifar10", or a data set on the hub (see `find`).
      data_dir: the folder of the user's data sets.
      tokenizer: of the checkpoint that reads the texts: a tokenizer, or its folder or hub id.
      max_length: tokens of a text, S; None takes the longest (see `tokenize`).
      image_size: height and width in pixels to which images are resized; None leaves them, unless
        they differ in size (see `decode_images`).
      max_train: how many training samples to keep; the choice is random and always the same, and
        a smaller one is part of a larger one. None keeps all.
      max_test: the same for the test set.
      cache_dir: where arrays are cached; the user's cache folder by default.
      progress: is told ("decoding" or "tokenizing", done, total) about every second.

    Returns:
      A `Dataset`: images [M, H, W, 3] uint8, or a dict of tokens [M, S] int32.

    Raises:
      DataNotFoundError: there is no such data set.
      ValueError: a folder of no known format; a broken file; texts without `tokenizer`; a wrong
        option.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> record = bytes([0, 7]) + bytes(3 * 32 * 32)  # coarse and fine label, pixels
      >>> _ = (folder / "train.bin").write_bytes(5 * record)
      >>> _ = (folder / "test.bin").write_bytes(2 * record)
      >>> cifar = load(folder, image_size=8, max_train=3, cache_dir=folder / "cache")
      >>> cifar.train_inputs.shape, cifar.test_labels.tolist()
      ((3, 8, 8, 3), [7, 7])
    """
    options = {"image_size": image_size, "max_train": max_train, "max_test": max_test}
    for option, value in options.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{option}={value!r}: choose a whole number, 1 or more, or None")
    path = find(name, data_dir)
    source = source_of(path)
    loaded = None if tokenizer is None else load_tokenizer(tokenizer)
    folder = Path(cache_dir or platformdirs.user_cache_path("jaxsplit") / "datasets").expanduser()
    digest = None if loaded is None else tokenizer_digest(loaded)
    key = {**options, "tokenizer": digest, "max_length": max_length}
    file = cache_file(folder, path, source.files(path), key)
    dataset = read_cache(file)
    if dataset is None:
        raw = source.read(path)
        raw = raw._replace(train=_some(raw.train, max_train), test=_some(raw.test, max_test))
        if isinstance(raw.train.inputs, Texts) and loaded is None:
            raise ValueError(
                f"{name} holds texts: give tokenizer=, the folder or the hub id of the checkpoint "
                "that reads them, such as 'bert-base-uncased'"
            )
        dataset = _decoded(raw, loaded, max_length, image_size, progress)
        write_cache(file, dataset)
    return dataset


def source_of(path: Path) -> Source:
    """The format of a folder or an archive.

    Args:
      path: of the data set.

    Returns:
      The first member of `SOURCES` that finds its files there.

    Raises:
      ValueError: none does.
    """
    for source in SOURCES:
        if source.files(path):
            return source
    expected = "; ".join(source.format for source in SOURCES)
    found = "not a folder"
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        found = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "nothing in it"
    raise ValueError(f"{path}: no known format (found {found}): expected {expected}")


def _some(split: RawSplit, count: int | None) -> RawSplit:
    """A fixed random choice of samples, in the order of the file."""
    if count is None or count >= len(split.labels):
        return split
    shuffled = np.random.default_rng(_SUBSET_SEED).permutation(len(split.labels))
    return split.take(np.sort(shuffled[:count]))


def _decoded(
    raw: RawDataset,
    tokenizer: "PreTrainedTokenizerBase | None",
    max_length: int | None,
    image_size: int | None,
    progress: Progress | None,
) -> Dataset:
    """Both splits at once, so that they get one size or length."""
    train, test = raw.train.inputs, raw.test.inputs
    count = len(raw.train.labels)

    def where(row: int) -> str:
        return raw.train.where(row) if row < count else raw.test.where(row - count)

    if isinstance(train, Texts) and isinstance(test, Texts) and tokenizer is not None:
        pairs = None if train.second is None else train.second + (test.second or [])
        tokens = tokenize(tokenizer, train.first + test.first, pairs, max_length, progress)
        train_inputs = {key: array[:count] for key, array in tokens.items()}
        test_inputs = {key: array[count:] for key, array in tokens.items()}
        return _dataset(raw, train_inputs, test_inputs)
    if isinstance(train, list) and isinstance(test, list):
        images = decode_images(train + test, where, image_size, progress)
        return _dataset(raw, images[:count], images[count:])
    assert isinstance(train, np.ndarray)
    assert isinstance(test, np.ndarray)
    if image_size is not None:
        train, test = (resize_images(images, image_size, progress) for images in (train, test))
    return _dataset(raw, train, test)


def _dataset(raw: RawDataset, train_inputs: object, test_inputs: object) -> Dataset:
    return Dataset(
        train_inputs, raw.train.labels, test_inputs, raw.test.labels, raw.label_names, raw.task
    )
