"""CIFAR archives of both versions, and pickles that ask for more than arrays."""

import io
import os
import pickle
import tarfile
from typing import ClassVar

import numpy as np
import pytest

from jaxsplit.data import load
from jaxsplit.data.sources import cifar
from jaxsplit.data.sources.unpickle import read_pickle

RNG = np.random.default_rng(0)


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote into the archives: byte strings, and NumPy's old module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_str

    def save_global(self, thing, name=None):
        module = thing.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or thing.__name__}\n".encode())
        self.memoize(thing)

    dispatch[type] = dispatch[type(len)] = save_global


def python2_pickle(value):
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue()


def batch(count, key="labels", high=10):
    pixels = RNG.integers(0, 256, (count, 3072), np.uint8)
    labels = RNG.integers(0, high, count).tolist()
    return {"batch_label": "a batch", key: labels, "data": pixels, "filenames": ["x.png"] * count}


def pictures(batches):
    """[M, 32, 32, 3] from rows of red, green and blue planes."""
    planes = np.concatenate([b["data"] for b in batches])
    return np.stack(
        [planes[:, c * 1024 : (c + 1) * 1024].reshape(-1, 32, 32) for c in range(3)], -1
    )


def make(version, write):
    """The files of one version, and the batches in them."""
    classes = 100 if "100" in version else 10
    key, high = ("fine_labels", 100) if classes == 100 else ("labels", 10)
    train = [batch(3, key, high)] if classes == 100 else [batch(2, key, high) for _ in range(5)]
    test = [batch(2, key, high)]
    names = [f"class{index}" for index in range(classes)]
    if version.endswith(("py", "python")):
        files = ["train"] if classes == 100 else [f"data_batch_{i}" for i in range(1, 6)]
        for name, content in zip(files, train, strict=True):
            write(name, python2_pickle(content))
        write("test" if classes == 100 else "test_batch", python2_pickle(test[0]))
        meta = {"fine_label_names": names} if classes == 100 else {"label_names": names}
        write("meta" if classes == 100 else "batches.meta", python2_pickle(meta))
    else:
        files = ["train.bin"] if classes == 100 else [f"data_batch_{i}.bin" for i in range(1, 6)]
        coarse = bytes([19]) if classes == 100 else b""
        for name, content in zip(
            [*files, "test.bin" if classes == 100 else "test_batch.bin"], train + test, strict=True
        ):
            rows = zip(content[key], content["data"], strict=True)
            write(name, b"".join(coarse + bytes([label]) + row.tobytes() for label, row in rows))
        text = "\n".join(names) + "\n\n"
        write("fine_label_names.txt" if classes == 100 else "batches.meta.txt", text.encode())
    return train, test, key, names


VERSIONS = ["cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", ["folder", "parent", "archive"])
def test_every_version_is_read(version, form, tmp_path):
    folder = tmp_path / version
    folder.mkdir()
    train, test, key, names = make(version, lambda name, raw: (folder / name).write_bytes(raw))
    path = {"folder": folder, "parent": tmp_path}.get(form)
    if path is None:
        path = tmp_path / f"{version}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, version)
    dataset = load(path, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.train_inputs, pictures(train))
    np.testing.assert_array_equal(dataset.test_inputs, pictures(test))
    assert dataset.train_labels.tolist() == [label for b in train for label in b[key]]
    assert dataset.test_labels.tolist() == test[0][key]
    assert dataset.train_labels.dtype == np.int32
    assert dataset.label_names == tuple(names)


def test_the_pickles_of_these_tests_are_those_of_python_2():
    raw = python2_pickle(batch(1))
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in raw
    assert b"data" in pickle.loads(raw, encoding="bytes")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_newer_pickles_are_read(protocol):
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [0, 1], "b": b"\xff"}
    if protocol == 5:  # names another function, which CIFAR never does
        with pytest.raises(ValueError, match=r"asks for numpy\._?core\S*\._frombuffer"):
            read_pickle(pickle.dumps(value, protocol), "batch")
        return
    back = read_pickle(pickle.dumps(value, protocol), "batch")
    np.testing.assert_array_equal(back["data"], value["data"])
    assert back["b"] == b"\xff"


class Malicious:
    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "asked"),
    [
        (lambda mark: Malicious(os.system, f"touch {mark}"), r"\w+\.system"),
        (lambda mark: Malicious(eval, f"open({str(mark)!r}, 'w')"), r"__builtin__\.eval"),
        (lambda mark: Malicious(getattr, np.ndarray, "tofile"), r"__builtin__\.getattr"),
        (lambda mark: Malicious(np.load, str(mark)), r"numpy\.load"),
    ],
)
def test_a_malicious_pickle_runs_nothing(attack, asked, tmp_path):
    mark = tmp_path / "was_here"
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    make("cifar-100-python", lambda name, raw: (folder / name).write_bytes(raw))
    (folder / "test").write_bytes(pickle.dumps({b"data": attack(mark)}, 2))
    message = rf"test: it asks for {asked}, and pickles are never executed here: get the file again"
    with pytest.raises(ValueError, match=message):
        load(folder, cache_dir=tmp_path / "cache")
    assert not mark.exists()


def test_only_bytes_are_encoded():
    attack = pickle.dumps(b"\xff", 2).replace(b"latin1", b"bz2_co")
    with pytest.raises(ValueError, match="asks for the encoding"):
        read_pickle(attack, "batch")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_batch", b"", "test_batch: .*get the file again"),
        ("test_batch", b"no pickle", "test_batch: .*get the file again"),
        ("test_batch", python2_pickle([1, 2]), r"test_batch: expected 'data', \[M, 3072\] uint8"),
        ("test_batch", python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}),
         r"test_batch: expected 'data', \[M, 3072\] uint8, and 'labels', M whole numbers"),
        ("test_batch", python2_pickle({"data": np.zeros((0, 3072), np.uint8), "labels": []}),
         "test_batch: expected 'data'"),
        ("data_batch_3", None, "data_batch_3 missing: get the archive again"),
    ],
)  # fmt: skip
def test_broken_batches_are_named(name, content, message, tmp_path):
    make("cifar-10-batches-py", lambda name, raw: (tmp_path / name).write_bytes(raw))
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_broken_binaries_archives_and_labels_are_named(tmp_path):
    (tmp_path / "train.bin").write_bytes(bytes(3074))
    (tmp_path / "test.bin").write_bytes(bytes(3073))
    with pytest.raises(
        ValueError, match=r"test.bin: found 3073 bytes, expected a multiple of 3074"
    ):
        cifar.SOURCE.read(tmp_path)
    (tmp_path / "test.bin").write_bytes(bytes([0, 100]) + bytes(3072))
    (tmp_path / "fine_label_names.txt").write_text("\n".join("c" * 100))
    with pytest.raises(
        ValueError, match=r"test.bin, row 0 .*: label 100: give a class from 0 to 99"
    ):
        cifar.SOURCE.read(tmp_path)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz: no sound archive"):
        cifar.SOURCE.read(archive)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "fine_label_names.txt", "names.txt")
    with pytest.raises(ValueError, match="expected an archive of CIFAR-10 or CIFAR-100"):
        cifar.SOURCE.read(archive)


def test_a_truncated_archive_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    make("cifar-10-batches-bin", lambda name, raw: (folder / name).write_bytes(raw))
    archive = tmp_path / "half.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"half.tar.gz: (no sound archive|.*missing: get)"):
        cifar.SOURCE.read(archive)
