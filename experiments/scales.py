"""How large a learning figure is reproduced: the runs it takes, and how they are put together."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, cast

import numpy as np
import xarray as xr

from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.options import OptionError

#: What tells a part from the others: names and values.
Labels = tuple[tuple[str, Any], ...]


class Part(NamedTuple):
    """Runs with the same options, in a folder of their own."""

    name: str  # of the folder
    data: str
    labels: Labels
    config: FineTuneConfig


#: The results of all parts.
Runs = Mapping[Part, xr.Dataset]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Options of the runs of a figure."""

    config: FineTuneConfig
    """Options of every run; data, seeds and what the parts differ in are set run by run."""
    data: tuple[str, ...]
    """Data sets."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options that differ for a data set."""

    def with_options(self, config: FineTuneConfig, own: set[str], data: tuple[str, ...]) -> Self:
        """The scale with a user's options.

        Args:
          config: the options.
          own: names of those that the user has set.
          data: the user's data sets, () for those of the figure.

        Returns:
          The scale; what the user has set is the same for all data sets.

        Raises:
          OptionError: an option that the parts differ in, with a value that none of them has.
        """
        overrides = {
            name: {option: value for option, value in options.items() if option not in own}
            for name, options in self.overrides.items()
        }
        chosen = (config.data,) if "data" in own else data or self.data
        return dataclasses.replace(self, config=config, data=chosen, overrides=overrides)

    def of_data(self, data: str) -> FineTuneConfig:
        """The options of a data set."""
        return dataclasses.replace(self.config, data=data, **self.overrides.get(data, {}))

    def parts(self, data_sets: Iterable[str]) -> Iterator[Part]:
        """The runs there are to make."""
        for data in data_sets:
            start = re.sub(r"[^A-Za-z0-9._]+", "-", data).strip("-.")
            for part in self._parts_of_data(data):
                name = f"{start}-{part.name}"
                config = dataclasses.replace(part.config, out=self.config.out / name)
                yield part._replace(name=name, config=config)

    def assemble(self, runs: Runs) -> xr.Dataset:
        """One data set out of the results of all parts, with the dimension data before the rest."""
        data_sets = list(dict.fromkeys(part.data for part in runs))
        return xr.concat(
            [
                self._assemble_data({part: run for part, run in runs.items() if part.data == data})
                for data in data_sets
            ],
            dim=xr.Variable("data", data_sets),
            data_vars="all",
            combine_attrs="drop_conflicts",
        )

    def description(self) -> dict[str, Any]:
        """What tells these runs from others, beside the options."""
        raise NotImplementedError

    def _parts_of_data(self, data: str) -> Iterator[Part]:
        raise NotImplementedError

    def _assemble_data(self, runs: Runs) -> xr.Dataset:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PolicyScale(Scale):
    """Policies under one or several delay budgets, with dimensions delay_budget and policy."""

    budgets_ns: tuple[float, ...] = (25.0,)
    """Delay budgets τ̄, ns/bit."""
    heads_only: bool = False
    """Whether to add the schedule of `lyapunov_bound` with a frozen backbone."""
    heads_only_learning_rate: float | None = None
    """Learning rate of the heads where the backbone is frozen; that of the others by default."""

    def with_options(self, config: FineTuneConfig, own: set[str], data: tuple[str, ...]) -> Self:
        """See `Scale`; a budget of the user's is the only one."""
        scale = super().with_options(config, own, data)
        if "delay_budget_ns_per_bit" not in own:
            return scale
        return dataclasses.replace(scale, budgets_ns=(config.delay_budget_ns_per_bit,))

    def description(self) -> dict[str, Any]:
        """See `Scale`."""
        return {"budgets_ns": list(self.budgets_ns)}

    def _parts_of_data(self, data: str) -> Iterator[Part]:
        """All-in does not depend on the budget and runs once."""
        of_data = self.of_data(data)
        constrained = tuple(name for name in of_data.policies if name != "all_in")
        for k, budget_ns in enumerate(self.budgets_ns):
            if policies := of_data.policies if k == 0 else constrained:
                config = dataclasses.replace(
                    of_data, policies=policies, delay_budget_ns_per_bit=budget_ns
                )
                yield Part(f"{budget_ns:g}ns", data, (("budget_ns", budget_ns),), config)
        if self.heads_only:
            config = dataclasses.replace(
                of_data,
                policies=("lyapunov_bound",),
                delay_budget_ns_per_bit=self.budgets_ns[0],
                adapter_learning_rate=0.0,
                head_learning_rate=self.heads_only_learning_rate or of_data.head_learning_rate,
            )
            yield Part("heads_only", data, (), config)

    def _assemble_data(self, runs: Runs) -> xr.Dataset:
        by_labels = {part.labels: _without_payload(run) for part, run in runs.items()}
        alone = by_labels.pop((), None)
        heads_only = [] if alone is None else [alone.assign_coords(policy=["heads_only"])]
        first = next(iter(by_labels.values()))
        everywhere = [first.sel(policy=["all_in"])] if "all_in" in first.policy else []
        rows = [
            xr.concat([*(everywhere if k else []), run, *heads_only], "policy", data_vars="all")
            for k, run in enumerate(by_labels.values())
        ]
        budgets_ns = [dict(labels)["budget_ns"] for labels in by_labels]
        budget = xr.Variable("delay_budget", 1e-9 * np.array(budgets_ns), {"units": "s/bit"})
        return xr.concat(rows, budget, data_vars="all", combine_attrs="drop_conflicts")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run, under one policy."""

    labels: Mapping[str, Any]
    """Options that tell it from the others, with their values."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options that differ, too."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", f"{v}") for v in self.labels.values())


@dataclass(frozen=True, kw_only=True)
class VariantScale(Scale):
    """Variants of a run, along a dimension `variant` with the labels as coordinates."""

    variants: tuple[Variant, ...]

    def with_options(self, config: FineTuneConfig, own: set[str], data: tuple[str, ...]) -> Self:
        """See `Scale`; an option that the variants differ in selects among them."""
        scale = super().with_options(config, own, data)
        if len(config.policies) != 1:
            raise OptionError("set", f"policies={','.join(config.policies)}", "one policy")
        variants = self.variants
        for name in own & set(variants[0].labels):
            wanted = getattr(config, name)
            there = list(dict.fromkeys(variant.labels[name] for variant in variants))
            variants = tuple(variant for variant in variants if variant.labels[name] == wanted)
            if not variants:
                allowed = f"one of {', '.join(map(str, there))}, which this figure compares"
                raise OptionError("set", f"{name}={wanted}", allowed)
        return dataclasses.replace(scale, variants=variants)

    def description(self) -> dict[str, Any]:
        """See `Scale`."""
        return {"variants": [variant.name for variant in self.variants]}

    def _parts_of_data(self, data: str) -> Iterator[Part]:
        for variant in self.variants:
            changes = {**variant.labels, **variant.changes}
            config = dataclasses.replace(self.of_data(data), **changes)
            yield Part(variant.name, data, tuple(variant.labels.items()), config)

    def _assemble_data(self, runs: Runs) -> xr.Dataset:
        rows = [_without_payload(run.isel(policy=0, drop=True)) for run in runs.values()]
        together = xr.concat(rows, "variant", data_vars="all", combine_attrs="drop_conflicts")
        names = [name for name, _ in next(iter(runs)).labels]
        values = {name: [dict(part.labels)[name] for part in runs] for name in names}
        return together.assign_coords({name: ("variant", of) for name, of in values.items()})


def product(*axes: Iterable[Variant]) -> tuple[Variant, ...]:
    """Every combination of variants, one of each axis.

    Args:
      *axes: variants whose labels do not meet.

    Returns:
      Their combinations, the last axis the fastest.
    """
    return tuple(
        Variant(
            labels={name: v for variant in point for name, v in variant.labels.items()},
            changes={name: v for variant in point for name, v in variant.changes.items()},
        )
        for point in itertools.product(*axes)
    )


def variant_of(result: xr.Dataset, **labels: Any) -> xr.Dataset | None:
    """The runs of a variant.

    Args:
      result: with the dimension variant.
      **labels: values of its coordinates.

    Returns:
      The result without that dimension; None where it has no such variant.
    """
    found = np.ones(result.sizes["variant"], bool)
    for name, value in labels.items():
        found &= cast(np.ndarray, result[name].values == value)
    places = np.flatnonzero(found)
    return result.isel(variant=places[0]) if len(places) else None


def _without_payload(result: xr.Dataset) -> xr.Dataset:
    """The payload, which differs between parts, as variables instead of attributes."""
    result = result.assign(
        {
            name: ((), result.attrs[name], {"units": "bit", "long_name": f"{way} per round"})
            for name, way in (("up_bits", "uplink payload"), ("down_bits", "downlink payload"))
        }
    )
    return result.drop_attrs(deep=False)
