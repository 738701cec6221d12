"""Summary tables for the terminal."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from rich.table import Table

from jaxsplit.federated import Scheme
from jaxsplit.models import adapter_count, count
from jaxsplit.results import Interval, mean_interval
from jaxsplit.sweeps import over_seeds

_MAX_ROWS = 60


class ParameterCounts(NamedTuple):
    """Parameters of a model, by who trains them."""

    adapters: int
    head: int  # of each device
    backbone: int
    trains_backbone: bool = False  # for want of adapters

    @property
    def trained(self) -> int:
        """What a device trains."""
        return self.adapters + self.head + (self.backbone if self.trains_backbone else 0)

    @property
    def total(self) -> int:
        """All of them, with one head."""
        return self.adapters + self.head + self.backbone


def parameter_counts(scheme: Scheme, backbone: Any) -> ParameterCounts:
    """How many parameters a model has.

    Args:
      scheme: the choices of the learning round.
      backbone: its weights.

    Returns:
      Their numbers.
    """
    features = jax.ShapeDtypeStruct((1, scheme.model.hidden_size), jnp.float32)
    return ParameterCounts(
        adapters=adapter_count(backbone, scheme.model.lora) if scheme.model.lora else 0,
        head=count(jax.eval_shape(scheme.head.init, jax.random.key(0), features)),
        backbone=count(backbone),
        trains_backbone=scheme.trains_all_weights,
    )


def trainable_line(scheme: Scheme, backbone: Any) -> str:
    """How much of a model is trained, in a line.

    PEFT's `print_trainable_parameters` says the same number for one device; of all parameters it
    counts the head twice, the fresh one and the one it replaced.

    Args:
      scheme: the choices of the learning round.
      backbone: frozen weights.

    Returns:
      The line.
    """
    counts = parameter_counts(scheme, backbone)
    if counts.trains_backbone:
        return f"trained: all {counts.total:,} parameters, {counts.head:,} of them of each head"
    return (
        f"trained: {counts.adapters:,} of the adapters + {counts.head:,} of each head = "
        f"{counts.trained:,}, {counts.trained / counts.total:.3%} of {counts.total:,}"
    )


def paired_difference(result: xr.Dataset, policy: str, reference: str) -> Interval:
    """Final test metric of a policy minus the reference's, paired by seed.

    Args:
      result: with dimensions policy, seed and eval_round.
      policy: which policy.
      reference: compared with which.

    Returns:
      Mean difference with its 95 % interval.
    """
    final = result[result.attrs["metric"]].isel(eval_round=-1)
    difference = final.sel(policy=policy) - final.sel(policy=reference)
    return mean_interval(difference.values)


def rounds_above(result: xr.Dataset, policy: str, reference: str) -> list[int]:
    """Evaluations at which a policy's paired 95 % interval lies wholly above the reference.

    Args:
      result: with dimensions policy, seed and eval_round.
      policy: which policy.
      reference: compared with which.

    Returns:
      The numbers of rounds done at those evaluations.
    """
    score = result[result.attrs["metric"]]
    difference = score.sel(policy=policy) - score.sel(policy=reference)
    return [
        int(rounds)
        for rounds in difference.eval_round.values
        if mean_interval(difference.sel(eval_round=rounds).values).low > 0
    ]


def _percent(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{100 * interval.mean:.1f}"
    return f"{100 * interval.mean:.1f} ± {100 * (interval.high - interval.mean):.1f}"


def _difference(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{100 * interval.mean:+.1f}"
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _energy_j(of: xr.Dataset) -> float:
    """Energy of a whole run, mean over seeds."""
    energy = of.transmission_energy_j + of.computation_energy_j
    return float(energy.sum(("round", "device")).mean())


def _traffic_mbit(of: xr.Dataset) -> float:
    """What all devices send and receive in a whole run, mean over seeds."""
    bits = of.sent_up_bits + of.sent_down_bits
    return 1e-6 * float(bits.sum(("round", "device")).mean())


def _straggler_row(of: xr.Dataset) -> dict[str, str]:
    """The device that most rounds wait for, where the result knows."""
    if "straggler" not in of:
        return {}
    rounds = of.straggler.values[of.straggler.values >= 0]
    devices, counts = np.unique(rounds, return_counts=True)
    if not len(devices):
        return {"slowest device (rounds, %)": "none"}
    share = 100 * counts.max() / len(rounds)
    return {"slowest device (rounds, %)": f"{devices[counts.argmax()]} ({share:.0f})"}


def summary_rows(result: xr.Dataset) -> dict[str, list[str]]:
    """What a reader wants to know of each policy: a row per quantity, a column per policy.

    Args:
      result: of `quickstart`, with dimensions policy, seed, round, eval_round and device.

    Returns:
      Formatted cells by the name of the row.
    """
    budget = result.attrs["delay_budget_s_per_bit"]
    reference, metric = str(result.policy.values[0]), result.attrs["metric"]
    rows: dict[str, list[str]] = {}
    for policy in map(str, result.policy.values):
        of = result.sel(policy=policy)
        ratio = of.delay / budget
        busy = of.num_scheduled.where(of.num_scheduled > 0)
        took_part = float(of.scheduled.any("round").mean())
        for name, cell in {
            f"final test {metric}, %": _percent(mean_interval(of[metric][:, -1].values)),
            f"… minus {reference}, points": "reference"
            if policy == reference
            else _difference(paired_difference(result, policy, reference)),
            "… of devices that took part, %": _percent(
                mean_interval(of[f"{metric}_participants"][:, -1].values)
            ),
            "… with the mean head, %": _percent(
                mean_interval(of[f"{metric}_mean_head"][:, -1].values)
            ),
            "mean scheduled devices K": f"{float(of.num_scheduled.mean()):.2f}",
            "mean 1/K": f"{float((1 / busy).mean()):.3f}",
            "devices that ever took part, %": f"{100 * took_part:.0f}",
            "Jain's index of participation": f"{float(of.jain_participation.mean()):.3f}",
            "mean delay τ over τ̄": f"{float(ratio.mean()):.3f}",
            "median delay τ over τ̄": f"{float(ratio.median()):.3f}",
            "simulated time, s": f"{float(of.time_s[:, -1].mean()):.2f}",
            "traffic of all devices, Mbit": f"{_traffic_mbit(of):.4g}",
            "energy of all devices, J": f"{_energy_j(of):.3g}",
            **_straggler_row(of),
            "compile, s": f"{float(of.compile_s.sum()):.1f}",
            "run, s": f"{float(of.run_s.sum()):.1f}",
        }.items():
            rows.setdefault(name, []).append(cell)
    return rows


def summary_table(result: xr.Dataset) -> Table:
    """`summary_rows` as a table for the terminal.

    Args:
      result: of `quickstart`.

    Returns:
      A rich table.
    """
    budget = result.attrs["delay_budget_s_per_bit"]
    table = Table(
        title=result.attrs["title"],
        caption=f"{result.sizes['seed']} common seeds; ± and [ ] are 95 % intervals, differences "
        f"paired by seed. Budget τ̄ = {budget * 1e9:g} ns/bit.",
    )
    table.add_column("")
    for policy in map(str, result.policy.values):
        table.add_column(policy.replace("_", " "), justify="right")
    for name, cells in summary_rows(result).items():
        table.add_row(name, *cells)
    return table


def sweep_table(result: xr.Dataset) -> Table:
    """Means over seeds for the points of a sweep's grid.

    Args:
      result: of `sweep`.

    Returns:
      A rich table, a row per point, of which it shows the first 60.
    """
    mean = over_seeds(result).sel(statistic="mean")
    axes = [name for name in result.mean_delay.dims if name != "seed"]
    columns = {
        "K": mean.mean_scheduled,
        "1/K": mean.mean_inverse_scheduled,
        "τ/τ̄": mean.mean_delay / mean.delay_budget,
        "Q_T/τ̄": mean.final_queue / mean.delay_budget,
        "took part, %": 100 * mean.part_participating,
        "Jain": mean.jain_participation,
        "feasible, %": 100 * mean.is_feasible,
        "energy, nJ/bit": 1e9
        * (mean.transmission_energy_per_bit + mean.computation_energy_per_bit),
    }
    points = list(itertools.product(*(range(result.sizes[name]) for name in axes)))
    bad = int((~np.isfinite(result.mean_delay)).sum())
    table = Table(
        title=result.attrs["title"],
        caption=f"Means over {result.sizes['seed']} seeds and all rounds; energy of all devices."
        + (f" The first {_MAX_ROWS} of {len(points)} points." if len(points) > _MAX_ROWS else "")
        + (f" {bad} runs have a delay that is not finite." if bad else ""),
    )
    for name in [*axes, *columns]:
        table.add_column(name, justify="right")
    for point in points[:_MAX_ROWS]:
        at = dict(zip(axes, point, strict=True))
        place = [_coordinate(result[name].values[index]) for name, index in at.items()]
        table.add_row(*place, *(f"{float(values.isel(at)):.4g}" for values in columns.values()))
    return table


def _coordinate(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
