"""Checks of options: what is wrong, and what is allowed."""

import dataclasses
from typing import Annotated

import pytest

from jaxsplit.options import (
    OptionError,
    check_options,
    check_writable_folder,
    number,
    some_of,
    whole,
)


@dataclasses.dataclass(frozen=True)
class Config:
    count: Annotated[int, whole(1)] = 3
    rate: Annotated[float, number(above=0)] = 0.1
    share: Annotated[float, number(at_least=0, at_most=1)] = 0.5
    names: Annotated[tuple[str, ...], some_of(("a", "b"))] = ("a",)
    note: str = "not checked"


def test_defaults_pass():
    check_options(Config())
    check_options(Config(count=1, rate=1e-300, share=0, names=("b", "a")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 0),
        ("count", 1.5),
        ("count", True),
        ("rate", 0.0),
        ("rate", -1.0),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("rate", "0.1"),
        ("share", 1.01),
        ("share", -0.01),
        ("names", ()),
        ("names", ("c",)),
        ("names", ("a", "a")),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(name, value):
    with pytest.raises(OptionError) as caught:
        check_options(dataclasses.replace(Config(), **{name: value}))
    assert caught.value.option == name
    assert caught.value.value is value
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} is not allowed: give ")
    assert "\n" not in message


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OptionError, match="a folder that can be written"):
        check_writable_folder("out", file / "below")
    check_writable_folder("out", tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
