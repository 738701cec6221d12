"""Devices that differ: their numbers from options, and whether their memory holds the model."""

import dataclasses
from typing import Any

import numpy as np

from jaxsplit.costs import Memory, Optimizer, device_memory, model_memory
from jaxsplit.federated import Scheme, World, encoder_shape, upload_length
from jaxsplit.options import OptionError

_MIB = 2.0**20
_STATES: dict[str, Optimizer] = {"sgd": "sgd", "momentum": "sgd", "adam": "adam", "adamw": "adam"}


def per_device(option: str, values: tuple[float, ...], num_devices: int) -> np.ndarray:
    """One number per device from an option.

    Args:
      option: its name.
      values: one for all; two ends between which devices are evenly spread; or one per device.
      num_devices: N.

    Returns:
      The numbers, [N].

    Raises:
      OptionError: another number of values, or one that is not finite.

    Example:
      >>> per_device("snr_db", (10.0, 20.0), 3).tolist()
      [10.0, 15.0, 20.0]
    """
    if len(values) not in (1, 2, num_devices):
        allowed = f"1 value for all, 2 ends of an even spread, or {num_devices}, one per device"
        raise OptionError(option, values, allowed)
    if not np.isfinite(values).all():
        raise OptionError(option, values, "finite numbers")
    if len(values) == num_devices:
        return np.array(values, float)
    return np.linspace(values[0], values[-1], num_devices)


def shapes_only(backbone: Any, inputs: Any) -> World:
    """A world of which only the shapes of weights and inputs are known.

    Args:
      backbone: frozen weights.
      inputs: of training, [M, ...].

    Returns:
      A world for `jaxsplit.federated.payload`, `work` and `encoder_shape`.
    """
    nobody: Any = None
    return World(backbone, inputs, nobody, nobody, nobody, nobody, nobody)


def device_bytes(scheme: Scheme, optimizer: str, world: World, cut: int | None) -> float:
    """Memory that a device needs with a cut (`jaxsplit.costs`, exact counts).

    With error feedback this includes what the upload codec lost, a float32 for each value.

    Args:
      scheme: the choices but the cut.
      optimizer: its name on the command line.
      world: backbone and data (shapes suffice).
      cut: l; None where the whole model is on the device.

    Returns:
      Bytes.
    """
    shape, states = encoder_shape(scheme, world), _STATES[optimizer]
    at_cut = dataclasses.replace(scheme, cut=cut)
    residual = 4 * upload_length(at_cut, world) if scheme.error_feedback else 0
    memory: Memory
    if cut is None:
        full = scheme.trains_all_weights
        memory = model_memory(shape, scheme.batch_size, states, train_weights=full)
    else:
        memory = device_memory(shape, cut, scheme.batch_size, states)
    return float(memory.total) + residual


def check_device_memory(
    limits_mib: np.ndarray, scheme: Scheme, optimizer: str, world: World
) -> None:
    """Make sure that every device's memory holds its part of the model.

    Args:
      limits_mib: of the devices, MiB, [N].
      scheme: the choices.
      optimizer: its name on the command line.
      world: backbone and data (shapes suffice).

    Raises:
      OptionError: some device's memory does not; with the largest cut that fits all of them.
    """
    needed_mib = device_bytes(scheme, optimizer, world, scheme.cut) / _MIB
    short = np.flatnonzero(limits_mib < needed_mib)
    if not len(short):
        return
    least_mib = float(limits_mib.min())
    cuts = range(scheme.model.num_hidden_layers + 1)
    fitting = [
        cut for cut in cuts if device_bytes(scheme, optimizer, world, cut) / _MIB <= least_mib
    ]
    here = "the whole model" if scheme.cut is None else f"--cut {scheme.cut}"
    fix = f"or --cut {max(fitting)} or less" if fitting else "no cut fits, not even --cut 0"
    raise OptionError(
        "device_memory_mib",
        tuple(float(f"{limit:.4g}") for limit in np.unique(limits_mib[short])),
        f"{needed_mib:.1f} MiB or more to every device for {here} (short of it: device "
        f"{', '.join(map(str, short.tolist()))}); {fix}",
    )
