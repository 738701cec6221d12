"""What a figure of a paper is: its runs as data, its drawing, and the claims it is to bear out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import matplotlib.figure
import xarray as xr
from rich.markup import escape
from rich.table import Table

from .scales import Scale

Agrees = Literal["yes", "no", "undecided"]
#: Results of other figures, by name.
Siblings = Mapping[str, xr.Dataset]
#: Told the stage, what is done and what there is to do.
Progress = Callable[[str, int, int], None]
_NONE: Siblings = MappingProxyType({})


class Finding(NamedTuple):
    """What a test of a claim found."""

    measured: str
    agrees: Agrees
    reason: str  # the evidence
    of: str = ""  # what part of the claim: a data set, a policy, a budget


@dataclass(frozen=True)
class Verdict:
    """A claim beside what was measured."""

    claim: str
    source: str
    measured: str
    agrees: Agrees
    reason: str


@dataclass(frozen=True)
class Claim:
    """A claim and how it is tested."""

    source: str
    """Who claims it: figure or section of a paper, or this project."""
    text: str
    """The claim, in a sentence."""
    test: Callable[[xr.Dataset, Siblings], Iterable[Finding]]
    """Maps the figure's result, and those of other figures, to findings."""

    def judge(self, result: xr.Dataset, siblings: Siblings = _NONE) -> list[Verdict]:
        """Test the claim.

        Args:
          result: of the figure.
          siblings: results of other figures by name, as far as there are any.

        Returns:
          A verdict per part of the claim; none where the result does not cover it.
        """
        return [
            Verdict(
                claim=f"{self.text} ({finding.of})" if finding.of else self.text,
                source=self.source,
                measured=finding.measured,
                agrees=finding.agrees,
                reason=finding.reason,
            )
            for finding in self.test(result, siblings)
        ]


@dataclass(frozen=True, kw_only=True)
class LearningFigure:
    """A figure of learning runs.

    Its result has the dimension data, those of its scale, then seed, round, eval_round and device,
    and the variables of `jaxsplit.results`.
    """

    name: str
    title: str
    scales: Mapping[str, Scale]
    draw: Callable[[xr.Dataset], matplotlib.figure.Figure]
    claims: tuple[Claim, ...]
    same_runs_as: str = ""
    """The figure whose runs this one shows, if not its own."""

    @property
    def runs(self) -> str:
        """Name of the runs."""
        return self.same_runs_as or self.name


class NetworkScale(Protocol):
    """How large a figure of the network alone is reproduced; each such figure adds its own."""

    @property
    def default_seeds(self) -> int | None:
        """Runs of each setting unless told otherwise; None where nothing is drawn."""


@dataclass(frozen=True, kw_only=True)
class NetworkFigure:
    """A figure of the network alone, without learning."""

    name: str
    title: str
    scales: Mapping[str, NetworkScale]
    run: Callable[[Any, int, Progress], xr.Dataset]
    """Maps a scale (of the figure's own kind), number of seeds and `Progress` to the result."""
    draw: Callable[[xr.Dataset], matplotlib.figure.Figure]
    claims: tuple[Claim, ...]

    @property
    def runs(self) -> str:
        """Name of the runs."""
        return self.name


Figure = LearningFigure | NetworkFigure


def judge(figure: Figure, result: xr.Dataset, siblings: Siblings = _NONE) -> list[Verdict]:
    """Test all claims of a figure.

    Args:
      figure: the figure.
      result: of its runs.
      siblings: results of other figures by name, as far as there are any.

    Returns:
      The verdicts, in the order of the claims.
    """
    return [verdict for claim in figure.claims for verdict in claim.judge(result, siblings)]


_COLUMNS = ("the paper's claim", "source", "measured", "agrees", "reason")
_STYLES = {"yes": "green", "no": "red", "undecided": "yellow"}


def _cells(verdict: Verdict) -> tuple[str, str, str, str, str]:
    return verdict.claim, verdict.source, verdict.measured, verdict.agrees, verdict.reason


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Verdicts as a table for the terminal.

    Args:
      verdicts: of `judge`.

    Returns:
      A rich table.
    """
    table = Table(*_COLUMNS, title="Verdicts; in [ ] paired 95 % intervals", show_lines=True)
    for verdict in verdicts:
        claim, source, measured, agrees, reason = map(escape, _cells(verdict))
        style = _STYLES[verdict.agrees]
        table.add_row(claim, source, measured, f"[{style}]{agrees}[/]", reason)
    return table


def verdict_markdown(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a table in Markdown.

    Args:
      verdicts: of `judge`.

    Returns:
      The table, with a line break at its end.
    """
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_cells, verdicts)]
    return "".join(f"| {' | '.join(map(_one_cell, row))} |\n" for row in rows)


def _one_cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
