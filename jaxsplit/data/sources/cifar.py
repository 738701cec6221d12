"""CIFAR-10 and CIFAR-100 in their publisher's formats: Python and binary, archive or folder."""

import dataclasses
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from jaxsplit.data.sources.base import RawDataset, RawSplit, Source, checked
from jaxsplit.data.sources.unpickle import read_pickle

_PIXELS = 3 * 32 * 32
_SUFFIXES = (".tar.gz", ".tgz", ".tar")


@dataclasses.dataclass(frozen=True)
class _Layout:
    folder: str  # in the archive
    archive: str
    train: tuple[str, ...]
    test: str
    names: str  # the file of the class names
    label: str  # the pickle's key of the labels; "" for binary records
    label_bytes: int = 1  # before the pixels of a binary record; the last is the class


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_LAYOUTS = (
    _Layout(
        "cifar-10-batches-py", "cifar-10-python",
        _BATCHES, "test_batch", "batches.meta", "labels",
    ),
    _Layout(
        "cifar-10-batches-bin", "cifar-10-binary",
        tuple(f"{batch}.bin" for batch in _BATCHES), "test_batch.bin", "batches.meta.txt", "",
    ),
    _Layout("cifar-100-python", "cifar-100-python", ("train",), "test", "meta", "fine_labels"),
    _Layout(
        "cifar-100-binary", "cifar-100-binary",
        ("train.bin",), "test.bin", "fine_label_names.txt", "", label_bytes=2,
    ),
)  # fmt: skip


def _place(path: Path) -> Path | None:
    """The archive or the folder of the batches: the path itself, or what is unpacked in it."""
    if path.is_file():
        return path if path.name.endswith(_SUFFIXES) else None
    if any((path / layout.test).is_file() for layout in _LAYOUTS):
        return path
    for layout in _LAYOUTS:
        for name in (layout.folder, *(layout.archive + suffix for suffix in _SUFFIXES)):
            if (path / name).exists():
                return path / name
    return None


def _files(path: Path) -> tuple[Path, ...]:
    place = _place(path)
    if place is None or place.is_file():
        return () if place is None else (place,)
    layout = _layout({file.name for file in place.iterdir()}, place)
    present = [place / name for name in (*layout.train, layout.test, layout.names)]
    return tuple(file for file in present if file.is_file())


def _layout(names: set[str], place: Path) -> _Layout:
    for layout in _LAYOUTS:
        if layout.test in names:
            missing = [name for name in layout.train if name not in names]
            if missing:
                raise ValueError(f"{place}: {', '.join(missing)} missing: get the archive again")
            return layout
    raise ValueError(
        f"{place}: no test_batch, test_batch.bin, test or test.bin in it, expected an archive of "
        "CIFAR-10 or CIFAR-100"
    )


def _members(place: Path) -> dict[str, bytes]:
    """The batches by name; an archive is read where it lies, nothing is unpacked."""
    if place.is_dir():
        return {file.name: file.read_bytes() for file in _files(place)}
    wanted = {name for layout in _LAYOUTS for name in (*layout.train, layout.test, layout.names)}
    members = {}
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if name in wanted else None
                if stream is not None:
                    members[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{place}: no sound archive ({error}): get it again") from error
    return members


def _batch(raw: bytes, file: str, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [M, 3072] uint8, in planes, and labels [M] int32 of one file."""
    if not layout.label:
        record = layout.label_bytes + _PIXELS
        if not raw or len(raw) % record:
            raise ValueError(
                f"{file}: found {len(raw)} bytes, expected a multiple of {record}: get it again"
            )
        records = np.frombuffer(raw, np.uint8).reshape(-1, record)
        return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int32)
    batch = read_pickle(raw, file)
    batch = batch if isinstance(batch, Mapping) else {}
    pixels = batch.get(b"data", batch.get("data"))
    labels = batch.get(layout.label.encode(), batch.get(layout.label))
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or not isinstance(labels, list)
        or not labels
        or pixels.shape != (len(labels), _PIXELS)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise ValueError(
            f"{file}: expected 'data', [M, {_PIXELS}] uint8, and '{layout.label}', M whole "
            "numbers: get it again"
        )
    return pixels, np.array(labels, np.int32)


def _names(members: Mapping[str, bytes], layout: _Layout, place: Path) -> tuple[str, ...]:
    """Names of the classes, where the file with them is there."""
    if layout.names not in members:
        return ()
    if not layout.label:
        return tuple(members[layout.names].decode("ascii", "replace").split())
    about = read_pickle(members[layout.names], f"{place}: {layout.names}")
    key = layout.label.removesuffix("s") + "_names"
    about = about if isinstance(about, Mapping) else {}
    names = about.get(key.encode(), about.get(key, ()))
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _read(path: Path) -> RawDataset:
    place = _place(path)
    assert place is not None  # `_files` has found it
    members = _members(place)
    layout = _layout(set(members), place)

    def split(files: tuple[str, ...]) -> RawSplit:
        parts = [_batch(members[file], f"{place}: {file}", layout) for file in files]
        planes = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([labels for _, labels in parts])
        rows = [(file, row) for file, part in zip(files, parts, strict=True)
                for row in range(len(part[1]))]  # fmt: skip
        return RawSplit(
            np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
            labels,
            lambda row: f"{place}: {rows[row][0]}, row {rows[row][1]} (counted from 0)",
        )

    names = _names(members, layout, place)
    return checked(RawDataset(split(layout.train), split((layout.test,)), names))


#: The Python version is read by `read_pickle`, which runs nothing.
SOURCE = Source("a CIFAR archive or its folder (cifar-10-batches-py, …)", _files, _read)
