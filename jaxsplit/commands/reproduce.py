"""`jaxsplit reproduce`: a figure of a paper, from the experiments beside or inside the package."""

import contextlib
import importlib.util
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxsplit.options import OptionError, allowed_of, check_options, whole

_NAME = "jaxsplit_experiments"  # what the experiments are imported as
_PACKAGE = Path(__file__).parents[1]

_Config = TypeVar("_Config")


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Reproduce a figure of a paper: run it, draw it, and judge the paper's claims.

    A folder that holds the finished runs is drawn and judged anew without running them again.
    """

    figure: tyro.conf.Positional[str]
    """Which: fedft-fig3 to 6, sft-fig3, sft-fig5 to 10 or sft-table3."""
    scale: Literal["laptop", "paper"] = "laptop"
    """Small models and few rounds for two processor cores, or those of the paper."""
    seeds: Annotated[int | None, whole(1).or_none()] = None
    """Independent runs of each policy, with common seeds 0, 1, ...; the figure's own by default."""
    data: tuple[str, ...] = ()
    """Data sets; the paper's by default, as far as they are found."""
    data_dir: Path | None = None
    """Folder of your data sets; $JAXSPLIT_DATA by default."""
    out: Path | None = None
    """Folder for result, figure, verdicts, log and weights; results/FIGURE by default, of figures
    that show the same runs the first's."""
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Options of `jaxsplit run` unlike the figure's, such as rounds=50 partition=dirichlet:0.5."""

    def check(self) -> None:
        """Check what needs no experiment.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        names = tuple(load_experiments().FIGURES)
        if self.figure not in names:
            raise OptionError("figure", self.figure, f"one of {', '.join(names)}")


def load_experiments() -> ModuleType:
    """The folder of experiments: that of a checkout, or the copy in an installed package.

    Returns:
      The package, with `FIGURES`; its module `runner` runs them.

    Raises:
      FileNotFoundError: there is neither.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    places = (_PACKAGE.parent / "experiments", _PACKAGE / "_experiments")
    found = [place for place in places if (place / "runner.py").is_file()]
    if not found:
        raise FileNotFoundError(f"no experiments in {places[0]} or {places[1]}: install again")
    spec = importlib.util.spec_from_file_location(
        _NAME, found[0] / "__init__.py", submodule_search_locations=[str(found[0])]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_NAME]
        raise
    return module


def with_settings(config: _Config, settings: tuple[str, ...]) -> _Config:
    """Change options of a configuration, each given as on the command line.

    Args:
      config: a dataclass of options.
      settings: NAME=VALUE, several values separated by commas.

    Returns:
      The configuration with these options.

    Raises:
      OptionError: there is no such option, or it does not take this value.

    Example:
      >>> from jaxsplit.commands.quickstart import QuickstartConfig
      >>> config = with_settings(QuickstartConfig(), ("rounds=50", "policies=greedy,aaba"))
      >>> config.rounds, config.policies
      (50, ('greedy', 'aaba'))
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.replace("-", "_")
        names: Any = getattr(config, "__dataclass_fields__", {})
        if not equals or name not in names:
            raise OptionError("set", setting, f"NAME=VALUE with one of {', '.join(names)}")
        arguments = [f"--{name.replace('_', '-')}", *value.split(",")]
        if value in ("True", "False"):
            arguments = [arguments[0] if value == "True" else f"--no-{arguments[0][2:]}"]
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                config = tyro.cli(type(config), default=config, args=arguments)
        except SystemExit:
            allowed = allowed_of(config).get(name)
            text = allowed.text if allowed else f"a value as `jaxsplit run --{name}` takes it"
            raise OptionError("set", setting, text) from None
    return config
