"""What a folder holds, against what is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsplit.options import OptionError

_SHORT = 40  # characters of a value that is worth showing


def check_same_setting(
    option: str,
    folder: Path,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    what: str,
    fix: str = "",
) -> None:
    """Make sure that what a folder holds belongs to this run.

    Args:
      option: the option's name, for the message.
      folder: the folder.
      found: the setting in it.
      wanted: the setting of this run.
      what: the folder holds, for the message.
      fix: what else would help.

    Raises:
      OptionError: they differ; the message says in what.

    Example:
      >>> check_same_setting("out", Path("results"), {"rounds": 5}, {"rounds": 6}, "a run")
      Traceback (most recent call last):
      ...
      jaxsplit.options.OptionError: out='results' is not allowed: give another folder: this one
      holds a run that differs in rounds (5 there, 6 here)
    """
    differs = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if differs:
        shown = ", ".join(_difference(name, found, wanted) for name in differs)
        allowed = f"another folder: this one holds {what} that differs in {shown}{fix}"
        raise OptionError(option, str(folder), allowed)


def _difference(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    there, here = (str(setting.get(name)) for setting in (found, wanted))
    return f"{name} ({there} there, {here} here)" if len(there + here) <= _SHORT else name
