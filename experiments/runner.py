"""Runs a figure: its parts one after the other, then the drawing and the verdicts."""

import dataclasses
import functools
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from rich.console import Console
from rich.progress import Progress

from jaxsplit.commands.comparison import CHECKPOINTS, comparison_samples
from jaxsplit.commands.fine_tune import Prepared, fine_tune, prepare, prepare_again
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
from .figure import LearningFigure, NetworkFigure, judge, verdict_markdown, verdict_table
from .scales import Part, Scale

_SEEDS = 5  # of learning runs


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
    folder = config.out or Path("results") / figure.runs
    config = dataclasses.replace(config, out=folder)
    path = folder / f"{figure.runs}.nc"
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
        for name in {other.runs for other in FIGURES.values()} - {figure.runs}
        if (there := path.parent.parent / name / f"{name}.nc").exists()
    }
    verdicts = judge(figure, result, siblings)
    picture, table = (path.with_name(figure.name + kind) for kind in (".png", ".md"))
    save_figure(figure.draw(result.assign_attrs(title=figure.title)), picture)
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
        parts = {
            part: prepare_again(part.config, prepared[part.data]) for part in scale.parts(prepared)
        }
        samples = _samples(parts, bars)
        tracker = tracker_named(scale.config.track, path.parent)
        log = path.with_suffix(".log")
        with watched(bars, log, setting, samples, tracker) as watch:

            def observe(part: Part, policy: str) -> Observer:
                return watch(f"{part.name}-{policy}")

            runs = {
                part: fine_tune(
                    part.config,
                    ready,
                    observe=functools.partial(observe, part),
                    resume_folder=path.parent / CHECKPOINTS / part.name,
                )
                for part, ready in parts.items()
            }
    result = scale.assemble(runs).assign_attrs(
        title=figure.title,
        setting=json.dumps(setting),
        metric="accuracy",
        **_counts(next(iter(parts.values()))),
    )
    save(result, path)
    shutil.rmtree(path.parent / CHECKPOINTS)
    return result


def _samples(parts: dict[Part, Prepared], bars: Progress) -> int:
    """What all parts will send through the backbone."""
    told, total = stages(bars), sum(len(part.config.policies) for part in parts)
    samples = before = 0
    for part, ready in parts.items():

        def tell(stage: str, done: int, _: int, before: int = before) -> None:
            told(stage, before + done, total)

        samples += comparison_samples(part.config, ready.task, tell)
        before += len(part.config.policies)
    return samples


def _asked_for(config: ReproduceConfig, scale: Scale) -> Scale:
    """The scale with the user's seeds, data and options."""
    base = dataclasses.replace(
        scale.config,
        seeds=config.seeds or _SEEDS,
        data_dir=config.data_dir,
        out=config.out or scale.config.out,
    )
    base = with_settings(base, config.settings)
    check_options(base)
    own = {setting.partition("=")[0].replace("-", "_") for setting in config.settings}
    return scale.with_options(base, own, config.data)


def _prepare(config: ReproduceConfig, scale: Scale, bars: Progress) -> dict[str, Prepared]:
    """Checkpoint and data by data set; what was not asked for by name may be missing."""
    prepared: dict[str, Prepared] = {}
    for data in scale.data:
        try:
            prepared[data] = prepare(scale.of_data(data), stages(bars))
        except OptionError as error:
            if config.data or not isinstance(error.__cause__, DataNotFoundError):
                raise
            bars.console.print(f"{data} is left out: it was not found")
    if not prepared:
        raise OptionError("data", ", ".join(scale.data), "a data set that is there; see --data-dir")
    return prepared


def _setting(config: ReproduceConfig, scale: Scale, data: tuple[str, ...]) -> dict[str, Any]:
    """What tells this figure from another of its kind."""
    options = dataclasses.asdict(scale.config)
    for free in ("out", "data_dir", "data", "track", "checkpoint_every_s"):
        del options[free]
    return {
        "scale": config.scale,
        "data": list(data),
        **scale.description(),
        "jaxsplit": version("jaxsplit"),
        "jax": jax.__version__,
        "device_kind": jax.devices()[0].device_kind,
        "options": json.loads(json.dumps(options, default=str)),
    }


def _counts(ready: Prepared) -> dict[str, int]:
    """Parameters that a device trains, and all."""
    counts = parameter_counts(ready.scheme, ready.checkpoint.params)
    return {"trainable_parameters": counts.trained, "total_parameters": counts.total}


# -- figures of the network alone ------------------------------------------------------------------


def _simulated(
    config: ReproduceConfig, figure: NetworkFigure, path: Path, console: Console
) -> xr.Dataset:
    for option in ("data", "settings"):
        if value := getattr(config, option):
            name = "set" if option == "settings" else option
            raise OptionError(name, value, f"it with a figure that learns; {figure.name} does not")
    scale = figure.scales[config.scale]
    if config.seeds and scale.default_seeds is None:
        text = f"nothing: {figure.name} is counted, no part of it is drawn at random"
        raise OptionError("seeds", config.seeds, text)
    seeds = config.seeds or scale.default_seeds or 1
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
