"""Runs a figure: its parts one after the other, then the drawing and the verdicts."""

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import Progress

from jaxsplit.commands.comparison import CHECKPOINTS, comparison_samples
from jaxsplit.commands.fine_tune import FineTuneConfig, Prepared, fine_tune, prepare
from jaxsplit.commands.progress import progress_bars, stages
from jaxsplit.commands.report import parameter_counts
from jaxsplit.commands.reproduce import ReproduceConfig, with_settings
from jaxsplit.commands.watch import watched
from jaxsplit.data.sources.lookup import DataNotFoundError
from jaxsplit.files import atomic_path
from jaxsplit.observer import Observer
from jaxsplit.options import OptionError, check_options, check_writable_folder
from jaxsplit.plots import save_figure
from jaxsplit.results import save
from jaxsplit.setting import check_same_setting
from jaxsplit.tracking import tracker_named

from . import FIGURES
from .figure import LearningFigure, NetworkFigure, Scale, judge, verdict_markdown, verdict_table

_SEEDS = 5  # of learning runs


class _Part(NamedTuple):
    """Policies that run with the same options."""

    data: str
    budget_ns: float
    is_heads_only: bool
    config: FineTuneConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        kind = "heads_only" if self.is_heads_only else f"{self.budget_ns:g}ns"
        return f"{re.sub(r'[^A-Za-z0-9._]+', '-', self.data).strip('-.')}-{kind}"


def reproduce(config: ReproduceConfig, console: Console) -> None:
    """Run a figure where it has not been run yet; draw it and judge the claims.

    Args:
      config: the options.
      console: for the progress and the verdicts.

    Raises:
      OptionError: an option is wrong, or the folder holds something else.
      NonFiniteError: a training diverged.
    """
    config.check()
    figure = FIGURES[config.figure]
    folder = config.folder
    path = folder / f"{figure.name}.nc"
    check_writable_folder("out", folder)
    if isinstance(figure, LearningFigure):
        result = _learned(config, figure, path, console)
    else:
        result = _simulated(config, figure, path, console)
    _tell(figure, result, path, console)


def _tell(
    figure: LearningFigure | NetworkFigure, result: xr.Dataset, path: Path, console: Console
) -> None:
    """Draw and judge."""
    siblings = {
        name: xr.load_dataset(there, engine="h5netcdf")
        for name in FIGURES
        if (there := path.parent.parent / name / f"{name}.nc").exists() and name != figure.name
    }
    verdicts = judge(figure, result, siblings)
    picture, table = path.with_suffix(".png"), path.with_suffix(".md")
    save_figure(figure.draw(result), picture)
    setting = json.loads(result.attrs["setting"])
    told = ", ".join(f"{name} {value}" for name, value in setting.items() if name != "options")
    with atomic_path(table) as temporary:
        text = f"# {figure.title}\n\n{told}\n\n{verdict_markdown(verdicts)}"
        temporary.write_text(text, encoding="utf-8")
    console.print(verdict_table(verdicts))
    console.print(f"wrote {path}, {picture} and {table}")


def _found(path: Path, wanted: dict[str, Any]) -> xr.Dataset | None:
    """The result that a folder has.

    Raises:
      OptionError: it is of other runs.
    """
    if not path.exists():
        return None
    result = xr.load_dataset(path, engine="h5netcdf")
    found = json.loads(result.attrs.get("setting", "{}"))
    check_same_setting("out", path.parent, _flat(found), _flat(wanted), "a figure")
    return result


def _flat(setting: dict[str, Any]) -> dict[str, Any]:
    """A setting whose options can be told apart."""
    options = setting.get("options", {})
    return {name: value for name, value in setting.items() if name != "options"} | options


# -- figures with learning -------------------------------------------------------------------------


def _learned(
    config: ReproduceConfig, figure: LearningFigure, path: Path, console: Console
) -> xr.Dataset:
    scale = _asked_for(config, figure.scales[config.scale])
    with progress_bars(console) as bars:
        prepared = _prepare(config, scale, bars)
        setting = _setting(config, scale, tuple(prepared))
        if (result := _found(path, setting)) is not None:
            return result
        parts = list(_parts(scale, tuple(prepared), path.parent))
        samples = _samples(parts, prepared, bars)
        tracker = tracker_named(scale.config.track, path.parent)
        log = path.with_suffix(".log")
        with watched(bars, log, setting, samples, tracker) as watch:

            def observe(part: _Part, policy: str) -> Observer:
                return watch(f"{part.name}-{policy}")

            runs = {
                part: fine_tune(
                    part.config,
                    prepared[part.data],
                    observe=functools.partial(observe, part),
                    resume_folder=path.parent / CHECKPOINTS / part.name,
                )
                for part in parts
            }
    result = _assembled(runs).assign_attrs(
        title=figure.title,
        setting=json.dumps(setting),
        metric="accuracy",
        **_counts(prepared),
    )
    save(result, path)
    shutil.rmtree(path.parent / CHECKPOINTS)
    return result


def _samples(parts: list[_Part], prepared: dict[str, Prepared], bars: Progress) -> int:
    """What all parts will send through the backbone."""
    told, policies = stages(bars), [len(part.config.policies) for part in parts]
    total = 0
    for k, part in enumerate(parts):
        before = sum(policies[:k])

        def tell(stage: str, done: int, _: int, before: int = before) -> None:
            told(stage, before + done, sum(policies))

        total += comparison_samples(part.config, prepared[part.data].task, tell)
    return total


def _asked_for(config: ReproduceConfig, scale: Scale) -> Scale:
    """The scale with the user's seeds, data and options."""
    base = dataclasses.replace(
        scale.config, seeds=config.seeds or _SEEDS, data_dir=config.data_dir, out=config.folder
    )
    base = with_settings(base, config.settings)
    check_options(base)
    own = {setting.partition("=")[0].replace("-", "_") for setting in config.settings}
    budgets = (
        (base.delay_budget_ns_per_bit,) if "delay_budget_ns_per_bit" in own else scale.budgets_ns
    )
    data = (base.data,) if "data" in own else config.data or scale.data
    overrides = {
        name: {option: value for option, value in options.items() if option not in own}
        for name, options in scale.overrides.items()
    }
    return dataclasses.replace(
        scale, config=base, data=data, budgets_ns=budgets, overrides=overrides
    )


def _prepare(config: ReproduceConfig, scale: Scale, bars: Progress) -> dict[str, Prepared]:
    """Checkpoint and data by data set; what was not asked for by name may be missing."""
    prepared: dict[str, Prepared] = {}
    for data in scale.data:
        try:
            prepared[data] = prepare(_of_data(scale, data), stages(bars))
        except OptionError as error:
            if config.data or not isinstance(error.__cause__, DataNotFoundError):
                raise
            bars.console.print(f"{data} is left out: it was not found")
    if not prepared:
        raise OptionError("data", ", ".join(scale.data), "a data set that is there; see --data-dir")
    return prepared


def _of_data(scale: Scale, data: str) -> FineTuneConfig:
    return dataclasses.replace(scale.config, data=data, **scale.overrides.get(data, {}))


def _parts(scale: Scale, data_sets: tuple[str, ...], folder: Path) -> Iterator[_Part]:
    """All that is to be run; All-in does not depend on the budget and runs once."""
    for data in data_sets:
        of_data = _of_data(scale, data)
        constrained = tuple(name for name in of_data.policies if name != "all_in")
        for k, budget_ns in enumerate(scale.budgets_ns):
            policies = of_data.policies if k == 0 else constrained
            if policies:
                part = dataclasses.replace(
                    of_data, policies=policies, delay_budget_ns_per_bit=budget_ns
                )
                yield _placed(_Part(data, budget_ns, False, part), folder)
        if scale.heads_only:
            part = dataclasses.replace(
                of_data,
                policies=("lyapunov_bound",),
                delay_budget_ns_per_bit=scale.budgets_ns[0],
                adapter_learning_rate=0.0,
                head_learning_rate=scale.heads_only_learning_rate or of_data.head_learning_rate,
            )
            yield _placed(_Part(data, scale.budgets_ns[0], True, part), folder)


def _placed(part: _Part, folder: Path) -> _Part:
    return part._replace(config=dataclasses.replace(part.config, out=folder / part.name))


def _setting(config: ReproduceConfig, scale: Scale, data: tuple[str, ...]) -> dict[str, Any]:
    """What tells this figure from another of its kind."""
    options = dataclasses.asdict(scale.config)
    for free in ("out", "data_dir", "data", "track", "checkpoint_every_s"):
        del options[free]
    return {
        "scale": config.scale,
        "data": list(data),
        "budgets_ns": list(scale.budgets_ns),
        "jaxsplit": version("jaxsplit"),
        "jax": jax.__version__,
        "device_kind": jax.devices()[0].device_kind,
        "options": json.loads(json.dumps(options, default=str)),
    }


def _assembled(runs: dict[_Part, xr.Dataset]) -> xr.Dataset:
    """One data set with dimensions data, delay_budget, policy and those of a run."""
    data_sets = list(dict.fromkeys(part.data for part in runs))
    return xr.concat(
        [_of_all_budgets(data, runs) for data in data_sets],
        dim=xr.Variable("data", data_sets),
        data_vars="all",
        combine_attrs="drop_conflicts",
    )


def _of_all_budgets(data: str, runs: dict[_Part, xr.Dataset]) -> xr.Dataset:
    of_data = {part: _without_payload(result) for part, result in runs.items() if part.data == data}
    heads_only = [
        result.assign_coords(policy=["heads_only"])
        for part, result in of_data.items()
        if part.is_heads_only
    ]
    budgets = {p.budget_ns: result for p, result in of_data.items() if not p.is_heads_only}
    first = next(iter(budgets.values()))
    everywhere = [first.sel(policy=["all_in"])] if "all_in" in first.policy else []
    rows = [
        xr.concat([*(everywhere if k else []), result, *heads_only], "policy", data_vars="all")
        for k, result in enumerate(budgets.values())
    ]
    budget = xr.Variable("delay_budget", 1e-9 * np.array(list(budgets)), {"units": "s/bit"})
    return xr.concat(rows, budget, data_vars="all", combine_attrs="drop_conflicts")


def _without_payload(result: xr.Dataset) -> xr.Dataset:
    """The payload, which differs between data sets, as variables instead of attributes."""
    result = result.assign(
        {
            name: ((), result.attrs[name], {"units": "bit", "long_name": f"{way} per round"})
            for name, way in (("up_bits", "uplink payload"), ("down_bits", "downlink payload"))
        }
    )
    return result.drop_attrs(deep=False)


def _counts(prepared: dict[str, Prepared]) -> dict[str, int]:
    """Parameters that a device trains, and all."""
    first = next(iter(prepared.values()))
    counts = parameter_counts(first.scheme, first.checkpoint.params)
    return {
        "trainable_parameters": counts.adapters + counts.head,
        "total_parameters": counts.adapters + counts.head + counts.backbone,
    }


# -- figures of the network alone ------------------------------------------------------------------


def _simulated(
    config: ReproduceConfig, figure: NetworkFigure, path: Path, console: Console
) -> xr.Dataset:
    for option in ("data", "settings"):
        if value := getattr(config, option):
            name = "set" if option == "settings" else option
            raise OptionError(name, value, f"it with a figure that learns; {figure.name} does not")
    scale = figure.scales[config.scale]
    seeds = config.seeds or scale.default_seeds
    setting = {
        "scale": config.scale,
        "seeds": seeds,
        "jaxsplit": version("jaxsplit"),
        "jax": jax.__version__,
        "device_kind": jax.devices()[0].device_kind,
    }
    if (result := _found(path, setting)) is not None:
        return result
    with progress_bars(console) as bars:
        result = figure.run(scale, seeds, stages(bars))
    result = result.assign_attrs(title=figure.title, setting=json.dumps(setting))
    save(result, path)
    return result
