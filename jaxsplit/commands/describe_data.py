"""`jaxsplit data describe`: how a data set is divided over the devices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from rich.table import Table

from jaxsplit.data import (
    Partition,
    digits,
    find,
    label_counts,
    label_distance,
    partitioner_named,
)
from jaxsplit.data.partition.base import classes_of
from jaxsplit.data.sources.load import source_of
from jaxsplit.files import atomic_path
from jaxsplit.options import OptionError, check_options, whole
from jaxsplit.plots import partition_figure, save_figure

_SCORE_BINS = 10  # of real labels, for the table and the figure


@dataclass(frozen=True)
class DescribeConfig:
    """Show how the samples of a data set are divided over the devices.

    Nothing is decoded or tokenized: labels alone decide a partition.
    """

    data: str = "digits"
    """Data set: digits, sst2, cifar10 ... or its folder, or owner/name on the Hugging Face hub."""
    data_dir: Path | None = None
    """Folder of your data sets; $JAXSPLIT_DATA by default."""
    devices: Annotated[int, whole(1)] = 20
    """Devices N."""
    partition: str = "iid"
    """Who holds what: iid, dirichlet:0.5, shards:2, power_law:1.2 or file:partition.npz."""
    seed: Annotated[int, whole(0)] = 0
    """Seed of the partition."""
    out: Path = Path("results/data")
    """Folder for partition.npz and partition.png."""

    def check(self) -> None:
        """Check what does not need the data.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        try:
            partitioner_named(self.partition)
        except ValueError as error:
            allowed = str(error).removeprefix("give ")
            raise OptionError("partition", self.partition, allowed) from error


class Description(NamedTuple):
    """A data set divided over devices."""

    title: str
    partition: Partition
    classes: np.ndarray  # [M] int, 0 … K − 1; of real labels the tenth in which each lies
    label_names: tuple[str, ...]  # [K], or none
    seed: int


def describe(config: DescribeConfig) -> Description:
    """Divide the training samples of a data set.

    Args:
      config: the options.

    Returns:
      The partition with the classes of the samples.

    Raises:
      OptionError: a wrong option, a data set that is not there or not sound, or a partition that
        does not fit it.

    Example:
      >>> describe(DescribeConfig(devices=3)).partition.sizes.tolist()
      [480, 479, 479]
    """
    config.check()
    labels, label_names = _labels(config)
    if config.devices > len(labels):
        allowed = f"1 to {len(labels)}, the number of training samples"
        raise OptionError("devices", config.devices, allowed)
    try:
        partition = partitioner_named(config.partition)(config.seed, labels, config.devices)
    except ValueError as error:
        raise OptionError(
            "partition", config.partition, f"one that fits the data ({error})"
        ) from error
    if np.issubdtype(labels.dtype, np.floating):
        labels, label_names = _tenths(labels)
    title = f"{config.data}: {config.partition} over {config.devices} devices, seed {config.seed}"
    return Description(title, partition, labels, label_names, config.seed)


def _labels(config: DescribeConfig) -> tuple[np.ndarray, tuple[str, ...]]:
    """Training labels [M] and their names."""
    if config.data == "digits":
        dataset = digits()
        return dataset.train_labels, dataset.label_names
    try:
        path = find(config.data, config.data_dir)
        raw = source_of(path).read(path)
    except (ValueError, OSError) as error:
        raise OptionError("data", config.data, f"a data set that can be read ({error})") from error
    return raw.train.labels, raw.label_names


def _tenths(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The classes of real labels for the eye, named after their ranges."""
    classes = classes_of(labels, _SCORE_BINS)
    ranges = [labels[classes == k] for k in range(classes.max() + 1)]
    return classes, tuple(f"{each.min():.3g} to {each.max():.3g}" for each in ranges)


def description_rows(description: Description) -> dict[str, str]:
    """What a reader wants to know of a partition.

    The distance of labels is that of `label_distance`. Devices of few samples are far from the
    mix of all even where labels are drawn at random; the last row says how far.

    Args:
      description: of `describe`.

    Returns:
      Formatted cells by the name of the row.

    Example:
      >>> description_rows(describe(DescribeConfig(partition="shards:2")))["labels per device"]
      '2 / 2 / 2'
    """
    partition, classes = description.partition, description.classes
    counts = label_counts(partition, classes)
    shuffled = np.random.default_rng(description.seed).permutation(classes)
    at_random = label_distance(label_counts(partition, shuffled)).mean()
    distance = label_distance(counts)
    held = len(np.unique(np.concatenate([row[:n] for row, n in zip(*partition, strict=True)])))
    return {
        "training samples": f"{len(classes):,}",
        "… on devices": f"{held:,}",
        "labels": f"{len(np.unique(classes))}",
        "devices": f"{len(partition.sizes)}",
        "samples per device": _spread(partition.sizes),
        "labels per device": _spread((counts > 0).sum(0)),
        "distance of labels, mean": f"{distance.mean():.3f}",
        "… largest": f"{distance.max():.3f}",
        "… mean, if labels were at random": f"{at_random:.3f}",
    }


def _spread(values: np.ndarray) -> str:
    return f"{values.min():,} / {np.median(values):,g} / {values.max():,}"


def description_table(description: Description) -> Table:
    """`description_rows` as a table for the terminal.

    Args:
      description: of `describe`.

    Returns:
      A rich table.
    """
    table = Table(
        title=description.title,
        caption="Spreads are smallest / median / largest. The distance is the total variation "
        "between the labels of a device and those of all, 0 to 1.",
    )
    table.add_column("")
    table.add_column("", justify="right")
    for name, cell in description_rows(description).items():
        table.add_row(name, cell)
    return table


def save_description(description: Description, out: Path) -> tuple[Path, Path]:
    """Write the partition, to be given back as `file:partition.npz`, and its figure.

    Args:
      description: of `describe`.
      out: a folder that exists.

    Returns:
      Where they are: partition.npz, with `indices` and `sizes`, and partition.png.
    """
    data, picture = out / "partition.npz", out / "partition.png"
    with atomic_path(data) as temporary:
        np.savez_compressed(temporary, **description.partition._asdict())
    figure = partition_figure(
        description.partition, description.classes, description.label_names, description.title
    )
    save_figure(figure, picture)
    return data, picture
