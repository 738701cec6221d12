"""Loading by name: one contract for all formats, the cache, and the real data sets."""

import importlib
import io
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxsplit.data import Dataset, digits, load
from jaxsplit.data.sources.base import RawSplit, Texts
from jaxsplit.data.sources.load import SOURCES, source_of

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("JAXSPLIT_DATA") or ROOT.parent / "shared" / "data")
real_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="JAXSPLIT_DATA names no folder with the real data sets"
)


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )


def write_glue(folder):
    rows = [f"good film {i}\t1" if i % 2 else f"bad film {i}\t0" for i in range(20)]
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("\n".join(["sentence\tlabel", *rows]))


def write_binary(folder):
    record = [bytes([0, i]) + bytes([i]) * 3072 for i in range(20)]
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(b"".join(record))


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (value,) * 3).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder):
    cells = [{"bytes": png(i), "path": None} for i in range(20)]
    for name in ("train.parquet", "test.parquet"):
        pq.write_table(pa.table({"img": cells, "label": list(range(20))}), folder / name)


def write_saved(folder):
    datasets = pytest.importorskip("datasets", reason="writes the folder to be read")
    split = datasets.Dataset.from_dict(
        {"sentence": [f"good {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    )
    datasets.DatasetDict(train=split, test=split).save_to_disk(folder)


WRITERS = {
    "glue": (write_glue, SOURCES[0]),
    "saved": (write_saved, SOURCES[1]),
    "parquet": (write_parquet, SOURCES[2]),
    "cifar": (write_binary, SOURCES[3]),
}


def test_every_format_is_in_the_suite():
    assert [source for _, source in WRITERS.values()] == list(SOURCES)


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    place = tmp_path / "sets"
    place.mkdir()
    WRITERS[request.param][0](place)
    return place, WRITERS[request.param][1]


def equal(first, second):
    assert jax.tree.structure(first.train_inputs) == jax.tree.structure(second.train_inputs)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_every_format_keeps_the_contract(folder, tokenizer, tmp_path):
    place, source = folder
    assert source_of(place) is source
    assert source.files(place)
    assert source.files(tmp_path) == ()  # not of this format
    raw = source.read(place)
    assert len(raw.train.labels) == len(raw.test.labels) == 20
    assert raw.train.labels.dtype == np.int32
    for split in (raw.train, raw.test):
        assert str(place) in split.where(3)
        assert split.take(np.array([3, 5])).where(1) == split.where(5)
    dataset = load(place, tokenizer=tokenizer, cache_dir=tmp_path / "cache")
    for inputs, labels in ((dataset[0], dataset[1]), (dataset[2], dataset[3])):
        assert {len(leaf) for leaf in jax.tree.leaves(inputs)} == {len(labels)} == {20}
        kinds = {leaf.dtype for leaf in jax.tree.leaves(inputs)}
        assert kinds == {np.dtype(np.int32 if isinstance(inputs, dict) else np.uint8)}
        jax.tree.map(jnp.asarray, inputs)
    assert dataset.num_outputs == dataset.num_classes == max(dataset.train_labels) + 1


def test_nothing_is_decoded_the_second_time(folder, tokenizer, tmp_path, monkeypatch):
    place, source = folder
    options = {"tokenizer": tokenizer, "cache_dir": tmp_path / "cache", "image_size": 16}
    calls = []
    first = load(place, progress=lambda *call: calls.append(call), **options)
    assert calls[-1][0] in ("decoding", "tokenizing")
    assert calls[-1][1] == calls[-1][2]
    module = importlib.import_module("jaxsplit.data.sources.load")

    def forbidden(path):
        raise AssertionError("read again")

    unread = tuple(s._replace(read=forbidden) for s in SOURCES)
    monkeypatch.setattr(module, "SOURCES", unread)
    calls.clear()
    second = load(place, progress=lambda *call: calls.append(call), **options)
    assert equal(first, second)
    assert (second.label_names, second.task) == (first.label_names, first.task)
    assert not calls
    with pytest.raises(AssertionError, match="read again"):
        load(place, **options, max_train=5)
    os.utime(source.files(place)[0], ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        load(place, **options)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-50], lambda raw: b"", lambda raw: b"x" * 99])
def test_a_damaged_cache_is_rebuilt(damage, tmp_path):
    write_binary(tmp_path)
    first = load(tmp_path, cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert equal(load(tmp_path, cache_dir=tmp_path / "cache"), first)
    assert file.read_bytes() == sound
    assert list((tmp_path / "cache").iterdir()) == [file]  # nothing half written is left


def test_a_flipped_bit_of_the_cache_is_noticed(tmp_path):
    write_binary(tmp_path)
    first = load(tmp_path, cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert equal(load(tmp_path, cache_dir=tmp_path / "cache"), first)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    write_binary(tmp_path)
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="was not written, the next run decodes again"):
        dataset = load(tmp_path, cache_dir=tmp_path / "file" / "cache")
    assert dataset.train_inputs.shape == (20, 32, 32, 3)


def test_subsets_are_fixed_and_nested(tmp_path):
    write_binary(tmp_path)
    options = {"cache_dir": tmp_path / "cache", "max_test": 4}
    parts = {
        n: load(tmp_path, max_train=n, **options).train_labels.tolist() for n in (5, 10, 20, 99)
    }
    assert parts[20] == parts[99] == list(range(20))
    assert set(parts[5]) < set(parts[10]) < set(parts[20])
    assert parts[10] == sorted(parts[10]) != list(range(10))
    other = load(tmp_path, max_train=10, cache_dir=tmp_path / "elsewhere")
    assert other.train_labels.tolist() == parts[10]
    assert len(other.test_labels) == 20
    np.testing.assert_array_equal(other.train_inputs[:, 0, 0, 0], parts[10])


def test_decoded_images_are_resized_too(tmp_path):
    write_binary(tmp_path)
    dataset = load(tmp_path, image_size=48, cache_dir=tmp_path / "cache")
    assert dataset.train_inputs.shape == dataset.test_inputs.shape == (20, 48, 48, 3)
    np.testing.assert_array_equal(dataset.train_inputs[:, 20, 20, 1], range(20))


def test_a_broken_row_keeps_its_number_in_a_subset(tmp_path):
    cells = [{"bytes": b"no image", "path": None}] * 20
    for name in ("train.parquet", "test.parquet"):
        pq.write_table(pa.table({"img": cells, "label": [0] * 20}), tmp_path / name)
    kept = np.sort(np.random.default_rng(0).permutation(20)[:3])
    with pytest.raises(ValueError, match=rf"train.parquet, row {kept[0]} \(counted from 0\)"):
        load(tmp_path, max_train=3, cache_dir=tmp_path / "cache")


def test_train_and_test_texts_get_one_length(tokenizer, tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "bad " * 9 + "\t0\n")
    dataset = load(tmp_path, tokenizer=tokenizer, cache_dir=tmp_path / "cache")
    assert dataset.train_inputs["input_ids"].shape == dataset.test_inputs["input_ids"].shape
    assert dataset.test_inputs["input_ids"].shape == (1, 16)
    assert dataset.label_names == ("negative", "positive")


def test_pairs_with_scores_are_a_regression(tokenizer, tmp_path):
    table = pa.table(
        {"sentence1": ["good"], "sentence2": ["bad"], "label": pa.array([3.5], pa.float32())}
    )
    for name in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    for _ in range(2):  # read, cached
        dataset = load(tmp_path, tokenizer=tokenizer, max_length=4, cache_dir=tmp_path / "cache")
        assert dataset.train_inputs["input_ids"].tolist() == [[2, 3, 0, 0]]
        assert (dataset.task, dataset.num_outputs) == ("regression", 1)
        assert dataset.train_labels.dtype == np.float32
    with pytest.raises(ValueError, match="a regression has no classes"):
        _ = dataset.num_classes


def test_what_is_missing_or_wrong_is_named(tmp_path, tokenizer):
    with pytest.raises(
        ValueError, match=r"no known format \(found nothing in it\): expected a GLUE"
    ):
        load(tmp_path, cache_dir=tmp_path / "cache")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"found notes.txt\).* a parquet folder .* CIFAR archive"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"notes.txt: no known format \(found not a folder\)"):
        load(tmp_path / "notes.txt")
    write_glue(tmp_path)
    with pytest.raises(ValueError, match=r"holds texts: give tokenizer=, the folder or the hub id"):
        load(tmp_path, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    for option in ("image_size", "max_train", "max_test"):
        with pytest.raises(ValueError, match=rf"{option}=0: choose a whole number, 1 or more"):
            load(tmp_path, **{option: 0})


def test_digits_know_their_names():
    dataset = digits((5, 7))
    assert dataset.label_names == ("5", "7")
    assert dataset.num_outputs == 2


def test_names_may_be_more_than_the_labels_that_occur():
    labels = np.zeros(2, np.int32)
    assert Dataset(labels, labels, labels, labels, ("a", "b", "c")).num_classes == 3


def test_samples_are_taken_from_any_kind_of_input():
    rows = np.array([2, 0])
    kinds = [Texts(["a", "b", "c"], ["d", "e", "f"]), [b"a", b"b", b"c"], np.arange(3)]
    taken = [RawSplit(kind, np.arange(3), str).take(rows).inputs for kind in kinds]
    assert taken[0] == Texts(["c", "a"], ["f", "d"])
    assert taken[1] == [b"c", b"a"]
    assert taken[2].tolist() == [2, 0]


@real_data
@pytest.mark.parametrize(
    ("name", "train", "test", "words"),
    [("sst2", 67349, 872, "hide new secretions"), ("mrpc", 4076, 1725, "Amrozi accused")],
)
def test_real_glue(name, train, test, words):
    folder = DATA / "glue" / {"sst2": "SST-2", "mrpc": "MRPC"}[name]
    if not folder.is_dir():
        pytest.skip(f"{name} is not in JAXSPLIT_DATA")
    raw = source_of(folder).read(folder)
    assert (len(raw.train.labels), len(raw.test.labels)) == (train, test)
    assert set(raw.train.labels.tolist()) == {0, 1}
    assert any(words in text for text in raw.train.inputs.first)


@real_data
@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [("cifar10", 50000, 10000, 10), ("tiny-imagenet-32", 100000, 10000, 200)],
)
def test_real_images(name, train, test, classes, tmp_path):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in JAXSPLIT_DATA")
    raw = source_of(DATA / name).read(DATA / name)
    assert (len(raw.train.labels), len(raw.test.labels)) == (train, test)
    dataset = load(name, data_dir=DATA, max_train=2000, max_test=1000, cache_dir=tmp_path)
    assert dataset.train_inputs.shape == (2000, 32, 32, 3)
    assert dataset.num_classes == classes
    assert np.bincount(raw.train.labels).tolist() == [train // classes] * classes
    assert 90 < dataset.train_inputs.mean() < 150
