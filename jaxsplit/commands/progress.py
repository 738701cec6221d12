"""Progress in the terminal: done and to do, rate, time left."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_UNITS = {
    "compiling": "programs",
    "simulating": "rounds",
    "decoding": "images",
    "tokenizing": "texts",
    "backbone": "epochs",
    "timing": "problems",
    "scheduling": "policies",
    "measuring": "points",
}


class _RateColumn(ProgressColumn):
    """What is done per second, the mean so far."""

    def render(self, task: Task) -> Text:
        if not task.completed or not task.elapsed:
            return Text("")
        return Text(f"{task.completed / task.elapsed:,.3g}/s")


def progress_bars(console: Console | None = None) -> Progress:
    """Bars for tasks that have a field `unit`.

    Args:
      console: where to draw; standard output by default.

    Returns:
      A rich `Progress`, a context manager.
    """
    return Progress(
        TextColumn("{task.description:>15}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=3600,  # s: chunks of rounds take long, and some longer than others
    )


@contextlib.contextmanager
def sweep_progress(console: Console | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a sweep is, with its rate and the time left.

    Args:
      console: where to draw; standard output by default.

    Yields:
      What `sweep` takes as `progress`.

    Example:
      >>> from jaxsplit import Network, scheduling, sweep, wireless
      >>> network = Network(5, wireless.rayleigh(), scheduling.greedy())
      >>> with sweep_progress(Console(quiet=True)) as progress:
      ...     result = sweep(network, {}, seeds=2, num_rounds=5, progress=progress)
    """
    console = console or Console()
    if not console.is_terminal and not console.is_jupyter:
        console.width = 120  # a log has no width of its own
    with progress_bars(console) as bars:
        yield stages(bars)


def stages(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar per stage, made as soon as the stage reports.

    Args:
      bars: from `progress_bars`.

    Returns:
      A function of the stage's name, what is done and what there is to do.
    """
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, unit=_UNITS[stage])
        bars.update(tasks[stage], completed=done, total=total)

    return report
