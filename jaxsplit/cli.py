"""The command line: `jaxsplit quickstart | run | plan | sweep | reproduce | data | export`."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import re
import shutil
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from jaxsplit.artefacts import ArtefactError
from jaxsplit.commands.comparison import CHECKPOINTS, Task, comparison_samples
from jaxsplit.commands.describe_data import (
    DescribeConfig,
    describe,
    description_table,
    save_description,
)
from jaxsplit.commands.export import ExportConfig, export
from jaxsplit.commands.fine_tune import FineTuneConfig, fine_tune, prepare
from jaxsplit.commands.learning_options import LearningOptions
from jaxsplit.commands.plan import PlanConfig, make_plan, save_plan
from jaxsplit.commands.progress import progress_bars, stages, sweep_progress
from jaxsplit.commands.quickstart import QuickstartConfig, foundation_model, quickstart
from jaxsplit.commands.report import rounds_above, summary_table, sweep_table, trainable_line
from jaxsplit.commands.reproduce import ReproduceConfig, load_experiments
from jaxsplit.commands.watch import Watch, watched
from jaxsplit.compile_cache import use_compile_cache
from jaxsplit.costs import Phases
from jaxsplit.gantt import gantt_figure
from jaxsplit.models import CheckpointError
from jaxsplit.options import OptionError, allowed_of, check_writable_folder
from jaxsplit.plots import comparison_figure, save_figure, sweep_figure
from jaxsplit.results import save
from jaxsplit.simulate import NonFiniteError
from jaxsplit.sweeps import SweepConfig, sweep
from jaxsplit.tracking import Tracker, tracker_named

_POSITIONAL = ("figure",)  # options without a flag


def _flag(option: str) -> str:
    return option if option in _POSITIONAL else "--" + option.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class Common:
    """What every command takes."""

    compile_cache: bool = True
    """Keep compiled programs in the user's cache folder, and read them at the next start. The
    environment variable JAXSPLIT_COMPILE_CACHE names another folder, or says off."""


_Common = tyro.conf.OmitArgPrefixes[Common]


def _quickstart(config: tyro.conf.OmitArgPrefixes[QuickstartConfig], common: _Common) -> Any:
    return config, common


def _run(config: tyro.conf.OmitArgPrefixes[FineTuneConfig], common: _Common) -> Any:
    return config, common


def _plan(config: tyro.conf.OmitArgPrefixes[PlanConfig], common: _Common) -> Any:
    return config, common


def _sweep(config: tyro.conf.OmitArgPrefixes[SweepConfig], common: _Common) -> Any:
    return config, common


def _reproduce(config: tyro.conf.OmitArgPrefixes[ReproduceConfig], common: _Common) -> Any:
    return config, common


def _data(
    command: Annotated[DescribeConfig, tyro.conf.subcommand("describe")]
    | Annotated[None, tyro.conf.Suppress],
    common: _Common,
) -> Any:
    return command, common


def _export(config: tyro.conf.OmitArgPrefixes[ExportConfig], common: _Common) -> Any:
    return config, common


_COMMANDS: dict[str, Callable[..., Any]] = {
    "quickstart": _quickstart,
    "run": _run,
    "plan": _plan,
    "sweep": _sweep,
    "reproduce": _reproduce,
    "data": _data,
    "export": _export,
}
_CONFIGS = {
    "quickstart": QuickstartConfig,
    "run": FineTuneConfig,
    "plan": PlanConfig,
    "sweep": SweepConfig,
    "reproduce": ReproduceConfig,
    "data": DescribeConfig,
    "export": ExportConfig,
}


def _parse(arguments: Sequence[str]) -> tuple[Any, Common]:
    """Parse with tyro; its boxed message becomes one line on the option at fault."""
    _refuse_repeated(arguments)
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.extras.subcommand_cli_from_dict(
                _COMMANDS,
                prog="jaxsplit",
                args=list(arguments),
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.OmitSubcommandPrefixes,
                    tyro.conf.CascadeSubcommandArgs,  # common options after `data describe`, too
                ),
            )
    except SystemExit as stop:
        if stop.code:
            command = arguments[0] if arguments else ""
            print(f"jaxsplit: error: {_one_line(captured.getvalue(), command)}", file=sys.stderr)
        raise


def _refuse_repeated(arguments: Sequence[str]) -> None:
    """Of an option with several values the parser would keep the last list and drop the others.

    An option with one value may be given again: the last one counts, as scripts rely on.
    """
    config = _CONFIGS.get(arguments[0]) if arguments else None
    hints = typing.get_type_hints(config) if config else {}
    names = {"settings": "set"}
    lists = {_flag(names.get(name, name)) for name, kind in hints.items() if "tuple" in str(kind)}
    flags = [text.partition("=")[0].replace("_", "-") for text in arguments]
    for flag in flags:
        if flag in lists and (times := flags.count(flag)) > 1:
            _fail(2, f"{flag} is given {times} times: give it once, with all its values")


def _one_line(box: str, command: str) -> str:
    """The message in tyro's box, without title, rules and help, with what the option allows."""
    lines = [line.strip("│| ") for line in box.splitlines() if any(map(str.isalnum, line))]
    is_help = [line.startswith(("Argument helptext", "For full helptext")) for line in lines]
    text = " ".join(lines[1 : is_help.index(True) if any(is_help) else None])
    if command not in _CONFIGS:
        return f"{text}; give one of {', '.join(_CONFIGS)}"
    named = re.search(r"--([a-z0-9-]+)", text)
    allowed = allowed_of(_CONFIGS[command]).get(named[1].replace("-", "_")) if named else None
    return f"{text}; give {allowed.text}" if allowed else f"{text}; see jaxsplit {command} --help"


def _run_quickstart(config: QuickstartConfig, console: Console) -> None:
    config.check()
    check_writable_folder("out", config.out)
    tracker = tracker_named(config.track, config.out)
    data = config.out / "quickstart.nc"
    with progress_bars(console) as bars:
        foundation_model(functools.partial(stages(bars), "backbone"))
        with _watched(config, bars, data, config.task(), tracker) as observe:
            result = quickstart(config, observe=observe, resume_folder=config.out / CHECKPOINTS)
    _tell(config, result, data, console)


@contextlib.contextmanager
def _watched(
    config: LearningOptions, bars: Progress, data: Path, task: Task, tracker: Tracker
) -> Iterator[Watch]:
    """Watch a comparison whose result will be `data`."""
    setting, samples = dataclasses.asdict(config), comparison_samples(config, task, stages(bars))
    with watched(bars, data.with_suffix(".log"), setting, samples, tracker) as watch:
        yield watch


def _tell(config: LearningOptions, result: Any, data: Path, console: Console) -> None:
    """Write the result and its figure, drop what was kept for a resumption, print the table."""
    picture = data.with_suffix(".png")
    save(result, data)
    save_figure(comparison_figure(result), picture)
    written = [data, picture, data.with_suffix(".log")]
    if "phase_s" in result:
        written.append(_save_gantt(result, data.with_name("gantt.png")))
    shutil.rmtree(data.parent / CHECKPOINTS)
    console.print(summary_table(result))
    reference, *others = config.policies
    for policy in others:
        if above := rounds_above(result, policy, reference):
            console.print(f"{policy} lies above {reference} (paired 95 % interval) after {above}")
    console.print(f"wrote {', '.join(map(str, written[:-1]))} and {written[-1]}")


def _save_gantt(result: Any, path: Path) -> Path:
    """Draw the last round of the first policy and seed."""
    last = result.phase_s.isel(policy=0, seed=0, round=-1)
    setting = json.loads(result.attrs["configuration"])
    order: Any = "sequential" if setting["scheme"] == "sl" else "parallel"
    save_figure(gantt_figure(Phases(*last.transpose("phase", "device").values), order), path)
    return path


def run_and_tell(config: FineTuneConfig, console: Console) -> None:
    """Do what `jaxsplit run` does.

    Args:
      config: the options.
      console: for progress and the summary.

    Raises:
      OptionError: an option is wrong.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    config.check()
    check_writable_folder("out", config.out)
    tracker = tracker_named(config.track, config.out)
    data = config.out / "run.nc"
    with progress_bars(console) as bars:
        prepared = prepare(config, stages(bars))
        with _watched(config, bars, data, prepared.task, tracker) as watch:
            watch.say(trainable_line(prepared.scheme, prepared.checkpoint.params))
            result = fine_tune(
                config, prepared, observe=watch, resume_folder=config.out / CHECKPOINTS
            )
    _tell(config, result, data, console)
    console.print(f"the adapters for PyTorch: jaxsplit export --run {config.out}")


def _run_plan(config: PlanConfig, console: Console) -> None:
    config.check()
    check_writable_folder("out", config.out)
    with progress_bars(console) as bars:
        prepared = prepare(config.measured_with(1), stages(bars))
        planned = make_plan(config.measured_with(1), prepared, stages(bars))
    data, picture, lines = save_plan(config, planned)
    for line in lines:
        console.print(line, highlight=False)
    console.print(f"wrote {data} and {picture}")


def _run_data_describe(config: DescribeConfig, console: Console) -> None:
    config.check()
    check_writable_folder("out", config.out)
    description = describe(config)
    data, picture = save_description(description, config.out)
    console.print(description_table(description))
    console.print(f"wrote {data} and {picture}")


def _run_export(config: ExportConfig, console: Console) -> None:
    exported = export(config)
    console.print(f"wrote {exported.folder}; use it with")
    console.print(exported.usage, markup=False, highlight=False, soft_wrap=True)


def _run_sweep(config: SweepConfig, console: Console) -> None:
    config.check()
    if config.coordinator is not None:
        jax.distributed.initialize(config.coordinator, config.processes, config.process)
    network, axes = config.network(), config.parsed_axes()
    with sweep_progress(console) as progress:
        result = sweep(
            network,
            axes,
            seeds=config.seeds,
            num_rounds=config.rounds,
            warmup_rounds=config.warmup_rounds,
            keep_devices=config.keep_devices,
            keep_rounds=config.keep_rounds,
            out=config.out,
            block_size=config.block_size,
            progress=progress,
        )
    if jax.process_index() == 0:
        picture = config.out / "sweep.png"
        save_figure(sweep_figure(result), picture)
        console.print(sweep_table(result))
        console.print(f"{config.out / 'sweep.nc'} and {picture}")


def _run_reproduce(config: ReproduceConfig, console: Console) -> None:
    runner = importlib.import_module(".runner", load_experiments().__name__)
    runner.reproduce(config, console)


_RUNNERS: dict[type, Callable[[Any, Console], None]] = {
    QuickstartConfig: _run_quickstart,
    FineTuneConfig: run_and_tell,
    PlanConfig: _run_plan,
    SweepConfig: _run_sweep,
    ReproduceConfig: _run_reproduce,
    DescribeConfig: _run_data_describe,
    ExportConfig: _run_export,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
      arguments: without the program's name; `sys.argv` by default.

    Exits with 2 on a wrong option, with 1 where a run failed and with 130 on Ctrl-C, each with
    one line on standard error.
    """
    config, common = _parse(sys.argv[1:] if arguments is None else arguments)
    # A log has no width of its own: leave room for the table.
    console = Console(width=None if sys.stdout.isatty() else 140)
    if common.compile_cache:
        use_compile_cache(warn=_warn)
    try:
        _RUNNERS[type(config)](config, console)
    except OptionError as error:
        _fail(2, f"{_flag(error.option)} {_shown(error.value)}: give {error.allowed}")
    except (ArtefactError, CheckpointError) as error:
        _fail(2, str(error))
    except (NonFiniteError, OSError) as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(130, "interrupted; the last checkpoint is kept, the same command resumes")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _warn(message: str) -> None:
    print(f"jaxsplit: warning: {message}", file=sys.stderr)


def _fail(code: int, message: str) -> None:
    print(f"jaxsplit: error: {message}", file=sys.stderr)
    sys.exit(code)
