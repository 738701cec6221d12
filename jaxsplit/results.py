"""Labelled results: what a run measured, with units, and the statistics over seeds."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import xarray as xr

from jaxsplit.clock import Times
from jaxsplit.costs import Payload
from jaxsplit.federated import Evaluation, RoundInfo
from jaxsplit.files import atomic_path
from jaxsplit.network import NetworkInfo
from jaxsplit.scheduling import jain_index

# name: (dimensions, unit, meaning)
_VARIABLES = {
    "scheduled": (("round", "device"), "", "device takes part in the round"),
    "num_scheduled": (("round",), "devices", "scheduled devices K_t"),
    "delay": (("round",), "s/bit", "transmission delay per bit τ_t of the slowest device"),
    "participation": (("device",), "rounds", "rounds that the device took part in"),
    "jain_participation": ((), "", "Jain's index of participation"),
    "transmission_energy_j": (("round", "device"), "J", "energy sent with the round's real upload"),
    "computation_energy_j": (("round", "device"), "J", "energy of the device's processor"),
    "queue": (("round",), "s/bit", "virtual queue Q_t before the round"),
    "final_queue": ((), "s/bit", "virtual queue Q_T after the last round"),
    "sent_up_bits": (("round", "device"), "bit", "what the device sent"),
    "sent_down_bits": (("round", "device"), "bit", "what the device received"),
    "uplink_s": (("round", "device"), "s", "time that the device sends"),
    "downlink_s": (("round", "device"), "s", "time that the device receives"),
    "delay_s": (("round",), "s", "delay of the round, by what was really sent"),
    "time_s": (("round",), "s", "simulated time at the end of the round"),
    "loss": (("round",), "{loss_unit}", "mean training loss of the scheduled devices"),
    "device_loss": (
        ("round", "device"),
        "{loss_unit}",
        "training loss of each scheduled device, NaN for the others",
    ),
    "{metric}": (("eval_round",), "", "test {metric}, mean over devices with their own heads"),
    "{metric}_participants": (
        ("eval_round",),
        "",
        "test {metric}, mean over devices that took part at least once",
    ),
    "{metric}_mean_head": (
        ("eval_round",),
        "",
        "test {metric} with the participation-weighted mean head",
    ),
    "test_loss": (("eval_round",), "{loss_unit}", "test loss, mean over devices"),
    "device_{metric}": (("eval_round", "device"), "", "test {metric} of each device"),
    "eval_time_s": (("eval_round",), "s", "simulated time at the evaluation"),
    "compile_s": ((), "s", "wall time spent compiling"),
    "run_s": ((), "s", "wall time of the run without compiling"),
}


def describe_run(
    *,
    seed: int,
    schedule: NetworkInfo,
    last_queue: float,
    times: Times,
    sent: Payload,
    rounds: RoundInfo,
    evaluations: Evaluation,
    evaluate_every: int,
    payload: Payload,
    delay_budget: float,
    metric: str = "accuracy",
    loss_unit: str = "nat",
    compile_s: float,
    run_s: float,
) -> xr.Dataset:
    """Label what one run measured.

    Args:
      seed: of the run.
      schedule: the network's rounds, fields with a leading axis [T].
      last_queue: Q_T in s/bit.
      times: of the clock, fields [T, ...].
      sent: bits that were really exchanged, int64 [T, N] each.
      rounds: what training showed, fields with a leading axis [T].
      evaluations: fields with a leading axis [E], the first before round 0.
      evaluate_every: rounds between two of them.
      payload: bits per scheduled device and round, beside what a codec counts.
      delay_budget: τ̄ in s/bit.
      metric: the name of the task's metric.
      loss_unit: of the task's loss.
      compile_s: seconds spent compiling.
      run_s: seconds of the rest.

    Returns:
      A data set with the coordinate `seed` and dimensions round, eval_round and device.
    """
    num_rounds = len(rounds.loss)
    time_s = np.cumsum(times.delay_s, dtype=np.float64)
    eval_round = np.minimum(np.arange(len(evaluations.score)) * evaluate_every, num_rounds)
    values = {
        "scheduled": schedule.mask,
        "num_scheduled": schedule.mask.sum(axis=-1),
        "participation": schedule.mask.sum(axis=0),
        "jain_participation": float(jain_index(schedule.mask.sum(axis=0))),
        "transmission_energy_j": schedule.transmission_energy_per_bit * sent.up_bits,
        "computation_energy_j": schedule.computation_energy_per_bit * sent.up_bits,
        "delay": schedule.delay,
        "queue": schedule.queue,
        "final_queue": last_queue,
        "sent_up_bits": sent.up_bits,
        "sent_down_bits": sent.down_bits,
        "uplink_s": times.uplink_s,
        "downlink_s": times.downlink_s,
        "delay_s": times.delay_s,
        "time_s": time_s,
        "loss": rounds.loss,
        "device_loss": rounds.device_loss,
        "{metric}": evaluations.score,
        "{metric}_participants": evaluations.score_participants,
        "{metric}_mean_head": evaluations.score_mean_head,
        "test_loss": evaluations.loss,
        "device_{metric}": evaluations.device_score,
        "eval_time_s": np.concatenate([[0.0], time_s])[eval_round],
        "compile_s": compile_s,
        "run_s": run_s,
    }
    variables = {
        name.format(metric=metric): xr.Variable(
            dims,
            values[name],
            {
                "units": units.format(loss_unit=loss_unit),
                "long_name": meaning.format(metric=metric),
            },
        )
        for name, (dims, units, meaning) in _VARIABLES.items()
    }
    phases = {}
    if times.phases is not None:
        busy_s = np.sum(times.phases, axis=0)  # of each device, [T, N]
        nobody = ~np.asarray(schedule.mask).any(axis=-1)
        variables["straggler"] = xr.Variable(
            "round",
            np.where(nobody, -1, np.argmax(busy_s, axis=-1)),
            {"long_name": "device that takes the longest; -1 where none takes part"},
        )
        variables["phase_s"] = xr.Variable(
            ("phase", "round", "device"),
            np.stack(times.phases),
            {"units": "s", "long_name": "time in each phase of the round, all local steps"},
        )
        phases = {"phase": [name.removesuffix("_s") for name in times.phases._fields]}
    return xr.Dataset(
        variables,
        coords=phases
        | {
            "seed": seed,
            "round": np.arange(num_rounds),
            "eval_round": ("eval_round", eval_round, {"long_name": "rounds done"}),
            "device": np.arange(schedule.mask.shape[-1]),
        },
        attrs={
            "metric": metric,
            "delay_budget_s_per_bit": delay_budget,
            "up_bits": payload.up_bits,
            "down_bits": payload.down_bits,
        },
    )


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(samples: Any, confidence: float = 0.95) -> Interval:
    """Mean and Student-t confidence interval over independent seeds.

    Args:
      samples: one number per seed.
      confidence: level, between 0 and 1.

    Returns:
      The interval; its ends are NaN for a single sample.

    Example:
      >>> mean_interval([1.0, 2.0, 3.0])
      Interval(mean=2.0, low=-0.484..., high=4.484...)
    """
    samples = np.asarray(samples, np.float64)
    mean = float(samples.mean())
    if samples.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    quantile = scipy.stats.t.ppf((1 + confidence) / 2, samples.size - 1)
    half = float(quantile * samples.std(ddof=1) / np.sqrt(samples.size))
    return Interval(mean, mean - half, mean + half)


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a data set as NetCDF 4, whole or not at all.

    Args:
      dataset: what to write.
      path: the file; replaced only once the new one is complete.

    Raises:
      OSError: the folder cannot be written.
    """
    dataset = dataset.assign_attrs(Conventions="CF-1.11")
    with atomic_path(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")
