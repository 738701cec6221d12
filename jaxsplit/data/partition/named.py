"""Partitioners by name, as the command line states them."""

import inspect
from collections.abc import Callable

from jaxsplit.data.partition.base import Partitioner
from jaxsplit.data.partition.even import iid
from jaxsplit.data.partition.given import from_file
from jaxsplit.data.partition.label_shards import shards
from jaxsplit.data.partition.label_shares import dirichlet
from jaxsplit.data.partition.size_skew import power_law

#: Factories by name; the first parameter of each may follow the name.
PARTITIONERS: dict[str, Callable[..., Partitioner]] = {
    "iid": lambda: iid,
    "dirichlet": dirichlet,
    "shards": shards,
    "power_law": power_law,
}

_ALLOWED = (
    "iid, dirichlet:ALPHA, shards:LABELS_PER_DEVICE, power_law:EXPONENT (more choices follow as "
    ":min_size=10 or :bins=10) or file:PATH"
)


def partitioner_named(text: str) -> Partitioner:
    """A partitioner by its name and choices.

    Args:
      text: a key of `PARTITIONERS`, alone or with the value of its first parameter and with others
        by name: `dirichlet:0.5`, `shards:2`, `power-law:1.2:min_size=10`; or `file:PATH`.

    Returns:
      The partitioner.

    Raises:
      ValueError: an unknown name or choice, or a file that is no partition; what is allowed is
        said.

    Example:
      >>> import numpy as np
      >>> partitioner_named("power_law:1:min_size=5")(0, np.zeros(30), 4).sizes.min()
      np.int32(5)
    """
    name, *choices = text.split(":")
    if name == "file" and choices:
        path = text.partition(":")[2]
        try:
            return from_file(path)
        except OSError as error:
            raise ValueError(f"give a file that can be read ({error.strerror})") from error
    factory = PARTITIONERS.get(name.replace("-", "_"))
    if factory is None:
        raise ValueError(f"give one of {_ALLOWED}")
    try:
        values = _values(factory, choices)
    except ValueError as error:
        raise ValueError(f"give one of {_ALLOWED}") from error
    try:
        return factory(**values)
    except ValueError as error:
        raise ValueError(f"give {name} another value ({error})") from error


def _values(factory: Callable[..., Partitioner], choices: list[str]) -> dict[str, int | float]:
    """What stands behind the name, by parameter."""
    parameters = inspect.signature(factory).parameters
    values: dict[str, int | float] = {}
    for place, choice in enumerate(choices):
        key, equals, value = choice.partition("=")
        if not equals and place == 0:
            key, value = next(iter(parameters), ""), choice
        if key not in parameters or key in values:
            raise ValueError(choice)
        values[key] = float(value) if parameters[key].annotation is float else int(value)
    return values
