"""The description of a partition: its numbers, its files, and what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from jaxsplit.commands.describe_data import (
    DescribeConfig,
    describe,
    description_rows,
    description_table,
    save_description,
)
from jaxsplit.data import Partition, dirichlet, label_counts, label_distance
from jaxsplit.options import OptionError
from jaxsplit.plots import partition_figure


def test_counts_and_distances_are_those_of_a_loop():
    classes = np.random.default_rng(0).integers(0, 7, 400)
    partition = dirichlet(0.2)(0, classes, 9)
    counts = label_counts(partition, classes, num_classes=8)
    rows = [row[:size] for row, size in zip(partition.indices, partition.sizes, strict=True)]
    for device, row in enumerate(rows):
        for label in range(8):
            assert counts[label, device] == sum(classes[sample] == label for sample in row)
    distance = [
        sum(abs(np.mean(classes[row] == label) - np.mean(classes == label)) for label in range(7))
        / 2
        for row in rows
    ]
    np.testing.assert_allclose(label_distance(counts), distance, atol=1e-12)


def test_a_description_tells_the_skew():
    even, skewed = (
        description_rows(describe(DescribeConfig(devices=10, partition=partition)))
        for partition in ("iid", "shards:1")
    )
    assert even["samples per device"] == "143 / 144 / 144"
    assert even["labels per device"] == "10 / 10 / 10"
    assert skewed["labels per device"] == "1 / 1 / 1"
    assert float(skewed["distance of labels, mean"]) == pytest.approx(0.9, abs=0.01)
    # An IID partition is as far from the mix as chance has it.
    assert float(even["distance of labels, mean"]) == pytest.approx(
        float(even["… mean, if labels were at random"]), abs=0.03
    )


def test_the_table_holds_every_row():
    description = describe(DescribeConfig(devices=5, partition="dirichlet:0.3"))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(description_table(description))
    for name, cell in description_rows(description).items():
        assert name in capture.get()
        assert cell in capture.get()


def test_the_partition_can_be_given_back(tmp_path):
    options = {"devices": 6, "partition": "dirichlet:0.3", "out": tmp_path}
    first = describe(DescribeConfig(**options))
    data, picture = save_description(first, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["partition.npz", "partition.png"]
    again = describe(DescribeConfig(devices=6, partition=f"file:{data}", seed=9))
    np.testing.assert_array_equal(again.partition.indices, first.partition.indices)
    np.testing.assert_array_equal(again.partition.sizes, first.partition.sizes)
    assert imread(picture).shape[0] > 300


def glue_folder(root: Path, name: str, rows: list[str]) -> Path:
    folder = root / name
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_texts_need_no_tokenizer(tmp_path):
    rows = ["sentence\tlabel", *(f"sentence {i}\t{i % 2}" for i in range(40))]
    glue_folder(tmp_path, "SST-2", rows)
    description = describe(DescribeConfig(data="sst2", data_dir=tmp_path, devices=4))
    assert description.partition.sizes.tolist() == [10] * 4
    assert description.classes.tolist() == [0, 1] * 20


def test_scores_are_shown_by_tenths(tmp_path, monkeypatch):
    from jaxsplit.commands import describe_data

    scores = np.linspace(0, 5, 100, dtype=np.float32)
    monkeypatch.setattr(describe_data, "_labels", lambda config: (scores, ()))
    description = describe(DescribeConfig(data="stsb", devices=4))
    assert np.bincount(description.classes).tolist() == [10] * 10
    assert description.label_names[0] == "0 to 0.455"
    with pytest.raises(OptionError, match=r"one that fits the data \(labels are real numbers"):
        describe(DescribeConfig(data="stsb", devices=4, partition="dirichlet:0.5"))


@pytest.mark.parametrize(
    ("options", "option", "message"),
    [
        ({"devices": 0}, "devices", "a whole number, 1 or more"),
        ({"seed": -1}, "seed", "a whole number, 0 or more"),
        ({"devices": 5000}, "devices", "1 to 1438, the number of training samples"),
        ({"partition": "zipf"}, "partition", "one of iid, dirichlet:ALPHA, shards:"),
        ({"partition": "dirichlet:0"}, "partition", "dirichlet another value (alpha=0.0: choose"),
        ({"partition": "file:none.npz"}, "partition", "a file that can be read (No such file"),
        ({"partition": "shards:11"}, "partition", "choose 1 to 10, the number of labels"),
        ({"data": "no-such-data"}, "data", "a data set that can be read (no data set"),
    ],
)
def test_wrong_options_end_in_one_line(options, option, message):
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        describe(DescribeConfig(**options))
    assert caught.value.option == option
    assert "\n" not in str(caught.value)


def test_a_broken_data_set_is_named(tmp_path):
    (tmp_path / "readme.txt").write_text("no data")
    with pytest.raises(OptionError, match="no known format") as caught:
        describe(DescribeConfig(data=str(tmp_path)))
    assert caught.value.option == "data"


@pytest.mark.parametrize(("num_labels", "num_devices"), [(1, 1), (10, 20), (200, 100)])
def test_a_figure_of_any_size_can_be_drawn(num_labels, num_devices):
    classes = np.arange(2000) % num_labels
    partition = dirichlet(0.3)(0, classes, num_devices)
    figure = partition_figure(partition, classes, [f"label {k}" for k in range(num_labels)])
    figure.canvas.draw()
    by_device, panel, *_ = figure.axes
    assert [bar.get_height() for bar in by_device.patches] == partition.sizes.tolist()
    shown = panel.collections[0].get_array()
    np.testing.assert_array_equal(
        np.ma.filled(shown, 0), label_counts(partition, classes).reshape(shown.shape)
    )


def test_a_label_without_samples_keeps_its_row():
    partition = Partition(np.array([[0], [1]], np.int32), np.array([1, 1], np.int32))
    figure = partition_figure(partition, np.array([0, 2]), ["a", "b", "c", "d"])
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["a", "b", "c", "d"]
