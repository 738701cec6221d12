"""The grid of a sweep: which axes there are, and the numbers of each scenario."""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsplit.network import Network, NetworkParams
from jaxsplit.options import OptionError

CHOICES = ("num_devices", "channel", "scheduler")  # axes that need a program for each value
_POSITIVE = ("bandwidth_hz", "delay_budget", "scheduler.v")


class Program(NamedTuple):
    """The scenarios that share shapes and code, hence one compilation."""

    label: str
    network: Network
    params: NetworkParams  # the numbers that are not swept


@dataclass(frozen=True)
class Grid:
    """All combinations of the axes' values and the seeds.

    Dimensions run in the order choices, numbers, seed; within a program the seed runs fastest.
    """

    network: Network
    params: NetworkParams | None
    choices: dict[str, dict[str, Any]]  # axis: {label: value}
    numbers: dict[str, np.ndarray]  # axis: values, float64
    seeds: range | np.ndarray  # [S]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the number axes and of the seeds: the scenarios of one program."""
        return (*(len(values) for values in self.numbers.values()), len(self.seeds))

    @property
    def scenarios_per_program(self) -> int:
        """Scenarios of one program."""
        return math.prod(self.shape)

    def programs(self) -> Iterator[Program]:
        """One program per combination of choices."""
        for labelled in itertools.product(*(values.items() for values in self.choices.values())):
            chosen = {name: value for name, (_, value) in zip(self.choices, labelled, strict=True)}
            network = dataclasses.replace(self.network, **chosen)
            params = network.default_params()
            if self.params is not None:  # a chosen channel or scheduler brings its own numbers
                own = {name: getattr(params, name) for name in chosen if name != "num_devices"}
                params = self.params._replace(**own)
            yield Program(
                label=", ".join(label for label, _ in labelled),
                network=network,
                params=params,
            )

    def scenarios(self, start: int, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Seeds and numbers of `count` scenarios of a program; the last one repeats at the end.

        Args:
          start: index of the first.
          count: how many.

        Returns:
          `(seeds [count], {axis: values [count]})`, in the dtypes that programs take.
        """
        flat = np.minimum(np.arange(start, start + count), self.scenarios_per_program - 1)
        *indices, of_seed = np.unravel_index(flat, self.shape)
        numbers = {
            name: values[index].astype(jnp.result_type(float))
            for (name, values), index in zip(self.numbers.items(), indices, strict=True)
        }
        seeds = of_seed + self.seeds.start if isinstance(self.seeds, range) else self.seeds[of_seed]
        return seeds.astype(np.uint32), numbers


def make_grid(
    network: Network,
    axes: Mapping[str, Any],
    seeds: int | Sequence[int],
    params: NetworkParams | None,
) -> Grid:
    """Check the axes of a sweep and sort them into choices and numbers.

    Args:
      network: the choices that are not swept.
      axes: see `sweep`.
      seeds: their number, from 0 on, or the seeds.
      params: the numbers that are not swept, None for the defaults.

    Returns:
      The grid.

    Raises:
      OptionError: an axis that is not a parameter, or values that it cannot have.
    """
    grid = Grid(
        network=network,
        params=params,
        choices={name: _choice(name, axes[name]) for name in CHOICES if name in axes},
        numbers={name: _numbers(name, axes[name]) for name in axes if name not in CHOICES},
        seeds=_seeds(seeds),
    )
    for program in grid.programs():
        known = number_names(program.params)
        for name in grid.numbers:
            if name not in known:
                where = f" of {program.label}" if program.label else ""
                raise OptionError("axes", name, f"one of{where}: {_listed(name, known)}")
    return grid


def _listed(name: str, known: Sequence[str]) -> str:
    """The names there are, the most similar first."""
    names = [*CHOICES, *known]
    close = difflib.get_close_matches(name, names, n=3)
    return ", ".join([*close, *(other for other in names if other not in close)])


def _choice(name: str, values: Any) -> dict[str, Any]:
    if name == "num_devices":
        allowed = "whole numbers from 1, each once"
        if not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise OptionError("axes", f"{name}={values!r}", allowed)
        whole = [value for value in values if isinstance(value, int | np.integer) and value >= 1]
        if len(whole) < len(values) or len(set(whole)) < len(whole):
            raise OptionError("axes", f"{name}={values!r}", allowed)
        return {str(value): int(value) for value in values}
    if not isinstance(values, Mapping) or not values:
        raise OptionError("axes", f"{name}={values!r}", f"a dict of labels and {name}s")
    return {str(label): value for label, value in values.items()}


def _numbers(name: str, values: Any) -> np.ndarray:
    shown, allowed = f"{name}={values!r}", "one or more numbers, each once"
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise OptionError("axes", shown, allowed) from None
    if name in _POSITIVE:
        allowed = "one or more numbers above 0, each once"
    wrong = np.isnan(numbers) | (name in _POSITIVE and numbers <= 0)
    if numbers.ndim != 1 or not numbers.size or wrong.any():
        raise OptionError("axes", shown, allowed)
    if np.unique(numbers).size < numbers.size:
        raise OptionError("axes", shown, allowed)
    return numbers


def _seeds(seeds: int | Sequence[int]) -> range | np.ndarray:
    allowed = "how many (1 or more), or different whole numbers from 0 to 2³² − 1"
    if isinstance(seeds, int | np.integer):
        if not 1 <= seeds <= 2**32:
            raise OptionError("seeds", seeds, allowed)
        return range(int(seeds))
    array = np.asarray(seeds)
    is_whole = array.ndim == 1 and array.size and np.issubdtype(array.dtype, np.integer)
    if not is_whole or array.min() < 0 or array.max() >= 2**32:
        raise OptionError("seeds", seeds, allowed)
    if np.unique(array).size < array.size:
        raise OptionError("seeds", seeds, allowed)
    return array.astype(np.int64)


# -- numbers by name -------------------------------------------------------------------------------


def number_names(params: NetworkParams) -> list[str]:
    """Names of the scalars in a params pytree, such as `delay_budget` and `channel.radius_m`.

    Args:
      params: of a network.

    Returns:
      The names that can be axes of a sweep.

    Example:
      >>> from jaxsplit.scheduling import lyapunov
      >>> from jaxsplit.wireless import rayleigh
      >>> names = number_names(Network(20, rayleigh(), lyapunov()).default_params())
      >>> names[:2], names[7:9]
      (['channel.radius_m', 'channel.centre_m.0'], ['scheduler.v_decay', 'scheduler.contraction'])
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [_name(path) for path, leaf in leaves if np.ndim(leaf) == 0]


def with_numbers(params: NetworkParams, numbers: Mapping[str, ArrayLike]) -> NetworkParams:
    """A params pytree with other values for some of its scalars.

    Args:
      params: of a network.
      numbers: values by name.

    Returns:
      The new pytree.

    Example:
      >>> from jaxsplit.scheduling import greedy
      >>> from jaxsplit.wireless import rayleigh
      >>> params = Network(20, rayleigh(), greedy()).default_params()
      >>> with_numbers(params, {"channel.radius_m": 50.0}).channel.radius_m
      50.0
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: numbers.get(_name(path), leaf), params
    )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
