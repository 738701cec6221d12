"""What a sweep will need, against what there is, said before it starts."""

import shutil
from pathlib import Path

from jaxsplit.memory import USED_PART, host_bytes, size
from jaxsplit.options import OptionError
from jaxsplit.sweeps.summary import PER_DEVICE, PER_ROUND, PER_SCENARIO


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
    free = USED_PART * host_bytes()
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
