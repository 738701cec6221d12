"""Checks of user options: each wrong value ends in one line that says what is allowed."""

import dataclasses
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class OptionError(ValueError):
    """A wrong option: its name, its value, and what is allowed instead."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"{option}={value!r} is not allowed: give {allowed}")
        self.option, self.value, self.allowed = option, value, allowed


class Allowed(NamedTuple):
    """What a field may hold; put it into the field's `Annotated` type."""

    text: str
    test: Callable[[Any], bool]

    def or_none(self) -> "Allowed":
        """The same, or nothing."""
        return Allowed(self.text, lambda value: value is None or self.test(value))

    def or_empty(self) -> "Allowed":
        """The same, or an empty tuple."""
        return Allowed(self.text, lambda value: value == () or self.test(value))


def whole(low: int) -> Allowed:
    """Integers from `low` on.

    Example:
      >>> whole(1).text
      'a whole number, 1 or more'
    """
    return Allowed(
        f"a whole number, {low} or more",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low,
    )


def number(
    *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> Allowed:
    """Finite numbers in a range.

    Example:
      >>> number(above=0).text, number(above=0).test(float("nan"))
      ('a finite number above 0', False)
    """
    limits = [
        f"above {above:g}" if above > -math.inf else "",
        f"of at least {at_least:g}" if at_least > -math.inf else "",
        f"of at most {at_most:g}" if at_most < math.inf else "",
    ]
    text = " ".join(["a finite number", " and ".join(limit for limit in limits if limit)]).strip()

    def test(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and above < value and at_least <= value <= at_most

    return Allowed(text, test)


def some_of(names: typing.Collection[str]) -> Allowed:
    """One or more different names out of a list.

    Example:
      >>> some_of(("a", "b")).test(("b", "b"))
      False
    """
    return Allowed(
        f"one or more of {', '.join(names)}, each once",
        lambda value: 0 < len(value) == len(set(value)) and set(value) <= set(names),
    )


def allowed_of(config: Any) -> dict[str, Allowed]:
    """What each checked field of a configuration dataclass (or its class) may hold."""
    cls = config if isinstance(config, type) else type(config)
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: extra
        for field in dataclasses.fields(cls)
        for extra in getattr(hints[field.name], "__metadata__", ())
        if isinstance(extra, Allowed)
    }


def check_options(config: Any) -> None:
    """Check every annotated field of a configuration.

    Args:
      config: a dataclass instance with `Annotated[type, Allowed]` fields.

    Raises:
      OptionError: for the first wrong value.
    """
    for name, allowed in allowed_of(config).items():
        value = getattr(config, name)
        if not allowed.test(value):
            raise OptionError(name, value, allowed.text)


def check_writable_folder(option: str, folder: Path) -> None:
    """Create a folder and make sure that files can be written there, before any work is done.

    Args:
      option: the option's name, for the message.
      folder: the folder.

    Raises:
      OptionError: it cannot be created or written.
    """
    allowed = "a folder that can be written, such as results/quickstart"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".jaxsplit-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(option, str(folder), f"{allowed} ({error.strerror})") from error
