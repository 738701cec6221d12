"""What a sweep will need, against what there is, said before it starts."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import psutil

from jaxsplit.options import OptionError
from jaxsplit.sweeps.summary import PER_DEVICE, PER_ROUND, PER_SCENARIO

_USED_PART = 0.8  # of what is free: others live here, too


def device_bytes(devices: Sequence[jax.Device]) -> float:
    """Memory that a program may take on each device, in bytes.

    Args:
      devices: of this process.

    Returns:
      A part of the free memory; devices that are processor cores share the host's.
    """
    statistics = devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return _USED_PART * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return _USED_PART * host_bytes() / len(devices)


def host_bytes() -> float:
    """Free memory of the host, in bytes."""
    return float(psutil.virtual_memory().available)


def result_bytes(scenarios: int, num_devices: int, num_rounds: int) -> int:
    """Size of a sweep's result.

    Args:
      scenarios: their number.
      num_devices: kept per device, 0 for none.
      num_rounds: kept per round, 0 for none.

    Returns:
      Bytes, at 8 for a number.
    """
    numbers = len(PER_SCENARIO) + len(PER_DEVICE) * num_devices + len(PER_ROUND) * num_rounds
    return 8 * scenarios * numbers


def check_result_fits(needed: int, out: Path | None) -> None:
    """Make sure that a result fits into memory, and on the disk together with its blocks.

    Args:
      needed: its size in bytes.
      out: the folder it goes to.

    Raises:
      OptionError: it does not.
    """
    what = "fewer values or seeds, or do not keep devices or rounds"
    free = _USED_PART * host_bytes()
    if 2 * needed > free:  # the blocks, and the result made of them
        raise OptionError(
            "axes",
            f"a grid whose result takes {size(2 * needed)} of memory",
            f"{what}, or a machine with more than the {size(free)} that are free",
        )
    if out is not None and 2 * needed > (free := shutil.disk_usage(out).free):
        raise OptionError(
            "out",
            str(out),
            f"a disk with {size(2 * needed)} free (there are {size(free)}), or {what}",
        )


def size(number: float) -> str:
    """Bytes for a reader.

    Example:
      >>> size(3 * 2**30)
      '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
