"""`jaxsplit plan`: compression, cut and bandwidth that make a round of SFT the shortest."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.commands.device_limits import device_bytes, per_device, shapes_only
from jaxsplit.commands.fine_tune import FineTuneConfig, Prepared
from jaxsplit.commands.learning_options import POLICIES
from jaxsplit.commands.scheme_options import SchemeName
from jaxsplit.compression import CodecParams
from jaxsplit.costs import RadioLink, RoundLoad, min_max_terms
from jaxsplit.federated import TrainedHalves, World, init_learning, payload, work
from jaxsplit.files import atomic_path
from jaxsplit.options import OptionError, check_options, number, some_of, whole
from jaxsplit.plan_figure import plan_figure
from jaxsplit.planning import (
    Plan,
    PlanProblem,
    explain,
    fit_accuracy,
    fit_beta,
    measured_beta,
    plan,
    plan_problem,
)
from jaxsplit.plots import save_figure
from jaxsplit.setting import check_same_setting
from jaxsplit.simulate import run

_MIB = 2.0**20
_UNLIMITED_MIB = 2.0**30
#: Told the stage, what is done and what there is to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class PlanConfig(FineTuneConfig):
    """Choose ratio, levels and cut of SFT for the least delay at a given accuracy (SFT (27)).

    Accuracy over (ratio, levels) is measured by short fine-tunings in one compiled program: on a
    processor one after another, on an accelerator all levels of a ratio at once, or as many seeds
    of them as --seeds-at-once. They are kept: the same command with another limit plans at once.
    """

    accuracy_min: Annotated[float, number(at_least=0, at_most=1)]
    """Least accuracy A_th of the short fine-tunings, 0 to 1."""
    scheme: SchemeName = "sft"
    """sft; the others leave nothing to plan."""
    out: Path = Path("results/plan")
    """Folder for plan.json, plan.png and grid.json, the accuracies measured."""
    rounds: Annotated[int, whole(1)] = 20
    """Rounds of each short fine-tuning."""
    policies: Annotated[tuple[str, ...], some_of(POLICIES)] = ("all_in",)
    """The policy of the short fine-tunings; the first one counts."""
    ratio_grid: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    """Ratios rho at which accuracy is measured, four or more."""
    levels_grid: tuple[int, ...] = (1, 3, 7, 31)
    """Levels E at which accuracy is measured, four or more."""
    cap_mhz: Annotated[float, number(above=0)] = 1e6
    """Most bandwidth of a device, MHz."""
    bandwidth: Literal["min_max", "equal"] = "min_max"
    """How the band is shared in the plan."""

    def check(self) -> None:
        """See `FineTuneConfig`."""
        check_options(self)
        if self.scheme != "sft":
            raise OptionError("scheme", self.scheme, "sft; the others leave nothing to plan")
        if self.upload_codec is not None:
            text = "nothing; a plan counts the adapters' upload as it is"
            raise OptionError("upload_codec", self.upload_codec, text)
        for name, low, high in (("ratio_grid", 0, 1), ("levels_grid", 1, 255)):
            grid = getattr(self, name)
            inside = all(low <= value <= high for value in grid) and min(grid, default=0) > 0
            if len(set(grid)) < 4 or list(grid) != sorted(set(grid)) or not inside:
                text = f"4 or more different values from {low} to {high}, ascending"
                raise OptionError(name, grid, text)
        self.measured_with(1).check_run()

    def check_run(self) -> None:
        """What `jaxsplit run` would check."""
        super().check()

    def measured_with(self, cut: int) -> "PlanConfig":
        """The options of the short fine-tunings."""
        return self if self.cut is not None else dataclasses.replace(self, cut=cut)


class Planned(NamedTuple):
    """A plan with what it was made from."""

    problem: PlanProblem
    plan: Plan
    accuracy: np.ndarray  # [R, K] measured


def make_plan(config: PlanConfig, prepared: Prepared, progress: Progress) -> Planned:
    """Measure what is not measured yet, and plan.

    Args:
      config: the options.
      prepared: checkpoint and data.
      progress: is told ("measuring", done, total).

    Returns:
      The plan.

    Raises:
      OptionError: the folder holds accuracies of other runs, or the model has but one block.
    """
    if prepared.scheme.model.num_hidden_layers < 2:
        raise OptionError("model", config.model, "one with 2 blocks or more: there is no cut")
    accuracy = _measured_accuracy(config, prepared, progress)
    problem = _problem(config, prepared, accuracy)
    return Planned(problem, plan(problem, bandwidth=config.bandwidth), accuracy)


def save_plan(config: PlanConfig, planned: Planned) -> tuple[Path, Path, list[str]]:
    """Write the plan and its figure.

    Args:
      config: the options.
      planned: of `make_plan`.

    Returns:
      The files, and the plan in words.
    """
    data, picture = config.out / "plan.json", config.out / "plan.png"
    lines = explain(planned.plan)
    record = {
        "configuration": dataclasses.asdict(config),
        "plan": _named(planned.plan),
        "in_words": lines,
        "measured_accuracy": planned.accuracy.tolist(),
    }
    with atomic_path(data) as path:
        path.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    save_figure(plan_figure(planned.problem, planned.plan), picture)
    return data, picture, lines


def _named(value: Any) -> Any:
    """Named tuples as dictionaries, arrays as lists."""
    if hasattr(value, "_asdict"):
        return {name: _named(part) for name, part in value._asdict().items()}
    return np.asarray(value).tolist()


def _measured_accuracy(config: PlanConfig, prepared: Prepared, progress: Progress) -> np.ndarray:
    """Final accuracy of a short fine-tuning at each point of the grid, [R, K]."""
    path = config.out / "grid.json"
    points = [(ratio, levels) for ratio in config.ratio_grid for levels in config.levels_grid]
    wanted = _decides(config)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"setting": wanted}
    fix = f"; to measure anew, delete {path}"
    check_same_setting("out", config.out, kept["setting"], wanted, "a plan's measurements", fix)
    found = {tuple(point[:2]): point[2] for point in kept.get("points", [])}
    missing, at_once = [point for point in points if point not in found], _points_at_once(config)
    for first in range(0, len(missing), at_once):
        progress("measuring", len(points) - len(missing) + first, len(points))
        group = missing[first : first + at_once]
        found |= zip(group, _accuracies_at(config, prepared, group), strict=True)
        record = {"setting": wanted, "points": [[*at, value] for at, value in found.items()]}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    progress("measuring", len(points), len(points))
    values = [found[point] for point in points]
    return np.array(values).reshape(len(config.ratio_grid), len(config.levels_grid))


def _decides(config: PlanConfig) -> dict[str, Any]:
    """The options that an accuracy depends on."""
    free = (
        "out", "accuracy_min", "ratio_grid", "levels_grid", "device_memory_mib", "cap_mhz",
        "bandwidth", "codec_ratio", "codec_levels", "track", "checkpoint_every_s", "seeds_at_once",
    )  # fmt: skip
    options = {name: v for name, v in dataclasses.asdict(config).items() if name not in free}
    return dict(json.loads(json.dumps(options, default=str)))


def _points_at_once(config: PlanConfig) -> int:
    """Points of the grid that one call of `run` measures."""
    if config.seeds_at_once is not None:
        return max(1, config.seeds_at_once // config.seeds)
    return 1 if jax.default_backend() == "cpu" else len(config.levels_grid)


def _accuracies_at(
    config: PlanConfig, prepared: Prepared, points: Sequence[tuple[float, int]]
) -> list[float]:
    """Final accuracies of short fine-tunings at some (ratio, levels), means over the seeds."""
    policy, each = config.policies[0], config.learning_params()
    numbers = [each._replace(codec=CodecParams(*point)) for point in points]
    result = run(
        [*range(config.seeds)] * len(points),
        config.network(policy),
        prepared.scheme,
        prepared.checkpoint.params,
        prepared.dataset,
        num_rounds=config.rounds,
        network_params=config.network_params(policy),
        learning_params=[params for params in numbers for _ in range(config.seeds)],
        partitioner=prepared.partitioner,
        evaluate_every=config.rounds,
        seeds_at_once=config.seeds_at_once,
    )
    final = result[result.attrs["metric"]].isel(eval_round=-1)
    return final.values.reshape(len(points), config.seeds).mean(axis=1).tolist()


def _problem(config: PlanConfig, prepared: Prepared, accuracy: np.ndarray) -> PlanProblem:
    """Delays, works and memory of every cut, from the model's own shapes."""
    scheme, dataset = prepared.scheme, prepared.dataset
    world = shapes_only(prepared.checkpoint.params, dataset.train_inputs)
    cuts = np.arange(1, scheme.model.num_hidden_layers)
    _, clock_params = config.round_clock()
    snr_db = per_device("snr_db", config.snr_db, config.devices)
    spectral = np.log2(1 + 10 ** (snr_db / 10))
    link = RadioLink(config.bandwidth_hz, spectral, spectral)
    fixed_s, coded, plain = [], [], []
    for cut in cuts.tolist():
        of_cut = dataclasses.replace(scheme, cut=cut, codec=None)
        sent, flop = payload(of_cut, world), work(of_cut, world)
        adapters = RoundLoad(
            local_steps=float(config.local_steps),
            distribution_bits=sent.weight_bits,
            adapter_bits=sent.upload_bits,
            device_forward_flop=flop.device_forward_flop,
            device_backward_flop=flop.device_backward_flop,
            server_flop=flop.server_flop,
        )
        link_load = RoundLoad(
            local_steps=float(config.local_steps),
            activation_bits=sent.activation_bits / config.local_steps,
            gradient_bits=sent.gradient_bits / config.local_steps,
        )
        at_rest, on_link = (
            min_max_terms(load, clock_params.devices, clock_params.server, link)
            for load in (adapters, link_load)
        )
        fixed_s.append(np.asarray(at_rest.fixed_s))
        plain.append(np.asarray(at_rest.work_hz_s))
        coded.append(np.asarray(on_link.work_hz_s))
    memory = [device_bytes(scheme, config.optimizer, world, cut) for cut in cuts.tolist()]
    limits_mib = per_device(
        "device_memory_mib", config.device_memory_mib or (_UNLIMITED_MIB,), config.devices
    )
    ones = np.ones(config.devices)
    ratios, levels = np.meshgrid(config.ratio_grid, config.levels_grid, indexing="ij")
    rows = _activations(config, prepared)
    beta = measured_beta(jax.random.key(0), rows, config.ratio_grid, config.levels_grid)  # type: ignore[arg-type]
    return plan_problem(
        cuts=cuts,
        fixed_s=np.stack(fixed_s),
        coded_work=np.stack(coded),
        plain_work=np.stack(plain),
        memory_bytes=np.outer(memory, ones),
        memory_limit_bytes=_MIB * limits_mib,
        total_hz=config.bandwidth_hz,
        cap_hz=np.minimum(1e6 * config.cap_mhz, config.bandwidth_hz) * ones,
        accuracy_min=config.accuracy_min,
        surface=fit_accuracy(ratios, levels, accuracy),
        beta=fit_beta(np.array(config.ratio_grid), np.array(config.levels_grid), np.asarray(beta)),
    )


def _activations(config: PlanConfig, prepared: Prepared, samples: int = 16) -> jax.Array:
    """Some samples at the cut, a row each."""
    scheme, params = prepared.scheme, prepared.checkpoint.params
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf[:samples]), prepared.dataset.train_inputs)
    nobody: Any = None
    world = World(params, inputs, nobody, nobody, jnp.ones(1, jnp.int32), nobody, nobody)
    state = init_learning(jax.random.key(0), scheme, config.learning_params(), world)
    prepared_inputs = inputs if scheme.transform is None else scheme.transform(inputs)
    halves = TrainedHalves(scheme, params)
    tokens = halves.embed(halves.divide(state.adapters).device, prepared_inputs).tokens
    return tokens.reshape(tokens.shape[0], -1)
