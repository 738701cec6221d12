"""The command line: `jaxsplit quickstart`."""

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxsplit.options import OptionError, allowed_of, check_writable_folder
from jaxsplit.plots import comparison_figure, save_figure
from jaxsplit.quickstart import QuickstartConfig, foundation_model, quickstart
from jaxsplit.report import rounds_above, summary_table
from jaxsplit.results import save
from jaxsplit.simulate import NonFiniteError

_FINISHED = ".finished"  # below --out: what an interrupted run had finished


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _parse(arguments: Sequence[str]) -> QuickstartConfig:
    """Parse with tyro; its boxed message becomes one line on the option at fault."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            config = tyro.extras.subcommand_cli_from_dict(
                {"quickstart": _identity}, prog="jaxsplit", args=list(arguments)
            )
    except SystemExit as stop:
        if stop.code:
            print(f"jaxsplit: error: {_one_line(captured.getvalue())}", file=sys.stderr)
        raise
    return config


def _identity(config: tyro.conf.OmitArgPrefixes[QuickstartConfig]) -> QuickstartConfig:
    return config


def _one_line(box: str) -> str:
    """The message in tyro's box, without title, rules and help, with what the option allows."""
    lines = [line.strip("│| ") for line in box.splitlines() if any(map(str.isalnum, line))]
    is_help = [line.startswith(("Argument helptext", "For full helptext")) for line in lines]
    text = " ".join(lines[1 : is_help.index(True) if any(is_help) else None])
    named = re.search(r"--([a-z0-9-]+)", text)
    allowed = allowed_of(QuickstartConfig).get(named[1].replace("-", "_")) if named else None
    return f"{text}; give {allowed.text}" if allowed else f"{text}; see jaxsplit quickstart --help"


def _run_quickstart(config: QuickstartConfig, console: Console) -> None:
    config.check()
    check_writable_folder("out", config.out)
    progress = Progress(
        TextColumn("{task.description:>15}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task("backbone", total=None, visible=False, unit="epochs")
        foundation_model(
            lambda done, epochs: progress.update(task, completed=done, total=epochs, visible=True)
        )
        task = progress.add_task("compiling", total=config.total_rounds, unit="rounds")
        result = quickstart(
            config,
            lambda policy, rounds: progress.update(task, advance=rounds, description=policy),
            resume_folder=config.out / _FINISHED,
        )
    data, picture = config.out / "quickstart.nc", config.out / "quickstart.png"
    save(result, data)
    save_figure(comparison_figure(result), picture)
    shutil.rmtree(config.out / _FINISHED)
    console.print(summary_table(result))
    reference, *others = config.policies
    for policy in others:
        if above := rounds_above(result, policy, reference):
            console.print(f"{policy} lies above {reference} (paired 95 % interval) after {above}")
    console.print(f"wrote {data} and {picture}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
      arguments: without the program's name; `sys.argv` by default.

    Exits with 2 on a wrong option, with 1 where a run failed and with 130 on Ctrl-C, each with
    one line on standard error.
    """
    config = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        # A log has no width of its own: leave room for the table.
        _run_quickstart(config, Console(width=None if sys.stdout.isatty() else 140))
    except OptionError as error:
        _fail(2, f"{_flag(error.option)} {_shown(error.value)}: give {error.allowed}")
    except (NonFiniteError, OSError) as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(130, "interrupted; policies that had finished are kept, the same command resumes")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fail(code: int, message: str) -> None:
    print(f"jaxsplit: error: {message}", file=sys.stderr)
    sys.exit(code)
