"""Parquet folders of the hub and folders of the `datasets` library."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxsplit.data import load
from jaxsplit.data.sources import parquet, saved


def image_bytes(color, size=(4, 4), mode="RGB", kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind)
    return file.getvalue()


def image_table(colors, labels, image="img", label="label", names=None, **options):
    cells = [{"bytes": image_bytes(color, **options), "path": None} for color in colors]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(cells, kind), label: pa.array(labels, pa.int64())})
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    return table


def text_table(label_type=None, **columns):
    if label_type:
        columns["label"] = pa.array(columns["label"], label_type)
    return pa.table(columns)


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def images(tmp_path):
    """As `uoft-cs/cifar10` keeps them, in two shards."""
    folder = tmp_path / "plain_text"
    folder.mkdir()
    names = ["airplane", "automobile"]
    pq.write_table(
        image_table([RED, BLUE], [0, 1], names=names), folder / "train-00000-of-00002.parquet"
    )
    pq.write_table(image_table([BLUE], [1], names=names), folder / "train-00001-of-00002.parquet")
    pq.write_table(image_table([RED], [0], names=names), folder / "test-00000-of-00001.parquet")
    return tmp_path


def test_shards_and_names_of_the_classes_are_read(images, tmp_path):
    dataset = load(images, cache_dir=tmp_path / "cache")
    assert dataset.train_inputs.shape == (3, 4, 4, 3)
    assert dataset.train_inputs.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train_inputs[:, 0, 0], [RED, BLUE, BLUE])
    assert dataset.train_labels.tolist() == [0, 1, 1]
    assert dataset.test_labels.tolist() == [0]
    assert dataset.label_names == ("airplane", "automobile")


def test_a_missing_shard_is_named(images):
    (images / "plain_text" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"found train-00000-of-00002.parquet; expected 2 files"):
        parquet.SOURCE.files(images)


def test_two_copies_of_the_training_set_are_named(images):
    pq.write_table(image_table([RED], [0]), images / "plain_text" / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet; expected 2 files, each part once"):
        parquet.SOURCE.files(images)


def test_cifar_100_has_fine_labels(tmp_path):
    for name in ("train", "test"):
        table = image_table([RED], [99], label="fine_label", names=[f"c{i}" for i in range(100)])
        table = table.append_column("coarse_label", pa.array([19]))
        pq.write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
    raw = parquet.SOURCE.read(tmp_path)
    assert raw.train.labels.tolist() == [99]
    assert len(raw.label_names) == 100


@pytest.mark.parametrize("held_out", ["val", "valid-00000-of-00001-70d52db3c749a935", "validation"])
def test_tiny_imagenet_has_a_validation_set_and_wordnet_ids(held_out, tmp_path):
    (tmp_path / "data").mkdir()
    train = image_table([RED], [1], image="image", size=(64, 64), kind="JPEG")
    pq.write_table(train, tmp_path / "data" / "train-00000-of-00001-1359597a978bc4fa.parquet")
    grey = image_table([7], [0], image="image", size=(64, 64), mode="L", kind="JPEG")
    pq.write_table(grey, tmp_path / "data" / f"{held_out}.parquet")
    (tmp_path / "wnids.txt").write_text("n01443537\nn01629819\n")
    dataset = load(tmp_path, image_size=32, cache_dir=tmp_path / "cache")
    assert dataset.train_inputs.shape == dataset.test_inputs.shape == (1, 32, 32, 3)
    assert dataset.label_names == ("n01443537", "n01629819")
    np.testing.assert_array_equal(dataset.test_inputs, 7)  # grey has three equal channels


def test_images_of_different_sizes_get_the_most_frequent_one(tmp_path):
    wide = image_table([RED], [0], size=(9, 5))
    pq.write_table(
        pa.concat_tables([wide, image_table([RED, BLUE], [0, 1])]), tmp_path / "train.parquet"
    )
    pq.write_table(image_table([BLUE], [1]), tmp_path / "test.parquet")
    dataset = load(tmp_path, cache_dir=tmp_path / "cache")
    assert dataset.train_inputs.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(dataset.train_inputs[0, 0, 0], RED)


def test_large_images_are_decoded_by_threads_in_order(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (300, 48, 48, 3), np.uint8)
    cells = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"image": cells, "label": [0] * 300})
    for name in ("train", "test"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    calls = []
    dataset = load(
        tmp_path, cache_dir=tmp_path / "cache", progress=lambda *call: calls.append(call)
    )
    np.testing.assert_array_equal(dataset.train_inputs, pictures)
    np.testing.assert_array_equal(dataset.test_inputs, pictures)
    assert calls[-1] == ("decoding", 600, 600)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.set_column(1, "label", pa.array([0, -1, 1])),
         r"train.parquet, row 1 \(counted from 0\): label -1 \(-1 marks unlabelled samples\)"),
        (lambda t: t.set_column(1, "label", pa.array([0, 5, 1])),
         r"row 1 \(counted from 0\): label 5: give a class from 0 to 1"),
        (lambda t: t.set_column(1, "label", pa.array([0, None, 1])),
         r"row 1 \(counted from 0\): column 'label' is empty"),
        (lambda t: t.set_column(1, "label", pa.array(["a", "b", "c"])),
         r"column 'label' is of string, expected whole numbers or scores"),
        (lambda t: t.rename_columns(["picture", "label"]),
         r"found columns label; expected label or fine_label, and img or image, or sentence1\+"),
        (lambda t: t.set_column(0, "img", pa.array(["a", "b", "c"])),
         r"column 'img' is of string, expected the bytes of image files"),
        (lambda t: t.set_column(0, "img", pa.array([{"bytes": b"x", "path": None}, None, None])),
         r"row 1 \(counted from 0\): column 'img' is empty"),
        (lambda t: t.set_column(0, "img", pa.array([{"bytes": image_bytes(RED), "path": None},
                                                    {"bytes": b"no image", "path": None},
                                                    {"bytes": b"", "path": None}])),
         r"train.parquet, row 1 .*: the image cannot be decoded \(cannot identify image file\)"),
        (lambda t: t.slice(0, 0), r"the training set is empty"),
    ],
)  # fmt: skip
def test_broken_tables_are_named(change, message, tmp_path):
    good = image_table([RED, BLUE, RED], [0, 1, 0], names=["red", "blue"])
    pq.write_table(good, tmp_path / "test.parquet")
    pq.write_table(
        change(good).replace_schema_metadata(good.schema.metadata), tmp_path / "train.parquet"
    )
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_truncated_images_and_files_are_named(tmp_path):
    table = image_table([RED], [0], size=(64, 64), kind="JPEG")
    cut = table["img"][0].as_py()["bytes"][:400]
    for name in ("train", "test"):
        pq.write_table(
            pa.table({"img": [{"bytes": cut, "path": None}], "label": [0]}),
            tmp_path / f"{name}.parquet",
        )
    with pytest.raises(ValueError, match=r"train.parquet, row 0 .* decoded \(.*[Tt]runcated"):
        load(tmp_path, cache_dir=tmp_path / "cache")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"test.parquet: no sound parquet file \("):
        load(tmp_path, cache_dir=tmp_path / "cache")
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(ValueError, match="found splits: train; expected train and test or valid"):
        load(tmp_path, cache_dir=tmp_path / "cache")


def test_glue_on_the_hub_keeps_its_test_labels_back(tmp_path):
    train = text_table(sentence1=["a", "b"], sentence2=["c", "d"], label=[1, 0], idx=[0, 1])
    test = text_table(sentence1=["e"], sentence2=["f"], label=[-1], idx=[0])
    pq.write_table(train, tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(train, tmp_path / "validation-00000-of-00001.parquet")
    pq.write_table(test, tmp_path / "test-00000-of-00001.parquet")
    raw = parquet.SOURCE.read(tmp_path)
    assert raw.test.inputs.first == ["a", "b"]
    (tmp_path / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"test-.*parquet, row 0 .*: label -1 .*unlabelled"):
        parquet.SOURCE.read(tmp_path)


def test_matched_mnli_and_scores_are_read(tmp_path):
    mnli = text_table(premise=["a"], hypothesis=["b"], label=[2])
    (tmp_path / "mnli").mkdir()
    for name in ("train", "validation_matched", "validation_mismatched"):
        pq.write_table(mnli, tmp_path / "mnli" / f"{name}-00000-of-00001.parquet")
    raw = parquet.SOURCE.read(tmp_path / "mnli")
    assert (raw.test.inputs.first, raw.test.inputs.second) == (["a"], ["b"])
    scores = text_table(pa.float32(), sentence1=["a"], sentence2=["b"], label=[3.5])
    for name in ("train", "validation"):
        pq.write_table(scores, tmp_path / f"{name}.parquet")
    raw = parquet.SOURCE.read(tmp_path)
    assert raw.task == "regression"
    assert raw.train.labels.dtype == np.float32


def test_folders_of_the_datasets_library_are_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="writes the folders to be read")
    kinds = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["red", "blue"])}
    )
    rows = {"img": [Image.new("RGB", (4, 4), c) for c in (RED, BLUE, RED)], "label": [0, 1, 0]}
    train = datasets.Dataset.from_dict(rows, kinds).select([2, 1])
    datasets.DatasetDict(train=train, test=train).save_to_disk(tmp_path / "pictures")
    dataset = load(tmp_path / "pictures", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.train_inputs[:, 0, 0], [RED, BLUE])
    assert dataset.label_names == ("red", "blue")
    texts = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]})
    both = datasets.DatasetDict(train=texts, validation=texts)
    both.save_to_disk(tmp_path / "texts", num_shards={"train": 2, "validation": 1})
    raw = saved.SOURCE.read(tmp_path / "texts")
    assert raw.train.inputs.first == ["a", "b"]
    texts.save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match="holds one split: save a DatasetDict with train and test"):
        saved.SOURCE.files(tmp_path / "one")


def test_damaged_folders_of_the_datasets_library_are_named(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match=r"train.state.json: no JSON with '_data_files' \("):
        saved.SOURCE.files(tmp_path)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data-00000-of-00001.arrow").write_bytes(b"nothing")
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (tmp_path / name / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"data-00000-of-00001.arrow: no sound Arrow file"):
        saved.SOURCE.read(tmp_path)
