"""Partitions that come from outside."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from jaxsplit.data.partition.base import Partition, Partitioner, padded


def from_indices(indices: Sequence[ArrayLike], *, allow_overlap: bool = False) -> Partitioner:
    """Take a partition as it is: the sample indices of each device, from wherever they come.

    Args:
      indices: for each device its sample indices, whole numbers, 0 … M − 1.
      allow_overlap: let a sample stand on several devices, or twice on one.

    Returns:
      A `Partitioner` that ignores the seed. Samples may be left out.

    Raises:
      ValueError: no device, a device without samples, indices that are not whole numbers or
        negative, a sample that stands twice; at the call of the partitioner: an index beyond the
        data set, or another number of devices.

    Example:
      >>> from_indices([[4, 2], [0]])(0, np.zeros(5), 2).indices.tolist()
      [[4, 2], [0, 0]]
    """
    rows = [_checked_row(device, row) for device, row in enumerate(indices)]
    if not rows:
        raise ValueError("indices=[]: give the sample indices of at least one device")
    sizes = np.array([len(row) for row in rows])
    samples = np.concatenate(rows)
    owner = np.repeat(np.arange(len(rows)), sizes)
    if not allow_overlap:
        order = np.argsort(samples, kind="stable")
        again = np.flatnonzero(np.diff(samples[order]) == 0)
        if len(again):
            first, second = owner[order[again[0]]], owner[order[again[0] + 1]]
            raise ValueError(
                f"indices: sample {samples[order[again[0]]]} is on device {first} and again on "
                f"device {second}; give each sample once, or set allow_overlap=True"
            )

    def partition(seed: int, labels: np.ndarray, num_devices: int) -> Partition:
        del seed
        if num_devices != len(rows):
            raise ValueError(
                f"num_devices={num_devices}: the given partition has {len(rows)} devices; "
                f"choose {len(rows)}"
            )
        beyond = np.flatnonzero(samples >= len(labels))
        if len(beyond):
            raise ValueError(
                f"indices: device {owner[beyond[0]]} holds sample {samples[beyond[0]]}; the data "
                f"set has samples 0 to {len(labels) - 1}"
            )
        return padded(samples, sizes)

    return partition


def _checked_row(device: int, row: ArrayLike) -> np.ndarray:
    """The samples of one device, as integers."""
    values = np.asarray(row)
    if values.ndim != 1:
        raise ValueError(
            f"indices: device {device} has shape {values.shape}; give a list of indices"
        )
    if not len(values):
        raise ValueError(f"indices: device {device} has no samples; give each device at least one")
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"indices: device {device} has indices of type {values.dtype}; give whole numbers"
        )
    if values.min() < 0:
        raise ValueError(f"indices: device {device} holds sample {values.min()}; count from 0 on")
    return values.astype(np.int64)


def from_file(path: str | Path, *, allow_overlap: bool = False) -> Partitioner:
    """Take a partition from a file that holds `indices` and `sizes`.

    Args:
      path: an .npz file with `indices`, shape [N, M_max], and `sizes`, shape [N], such as
        `numpy.savez(path, **partition._asdict())` writes it.
      allow_overlap: see `from_indices`.

    Returns:
      A `Partitioner` that ignores the seed.

    Raises:
      ValueError: the file is no such file, or see `from_indices`.
      OSError: it cannot be read.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder) / "partition.npz"
      ...     np.savez(path, indices=[[0, 2], [1, 0]], sizes=[2, 1])
      ...     from_file(path)(0, np.zeros(3), 2).sizes.tolist()
      [2, 1]
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            indices, sizes = arrays["indices"], arrays["sizes"]
        rows = [row[:size] for row, size in zip(indices, sizes, strict=True)]
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: give an .npz file that holds indices and sizes") from error
    return from_indices(rows, allow_overlap=allow_overlap)
