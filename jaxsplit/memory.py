"""Memory that there is, and what a compiled program takes of it."""

from collections.abc import Sequence
from typing import Any

import jax
import psutil

USED_PART = 0.8  # of what is free: others live here, too


def device_bytes(devices: Sequence[jax.Device] | None = None) -> float:
    """Memory that a program may take on each device, in bytes.

    Args:
      devices: of this process; all local ones by default.

    Returns:
      A part of the free memory; devices that are processor cores share the host's.
    """
    devices = devices or jax.local_devices()
    statistics = devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return USED_PART * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return USED_PART * host_bytes() / len(devices)


def host_bytes() -> float:
    """Free memory of the host, in bytes."""
    return float(psutil.virtual_memory().available)


def program_bytes(compiled: jax.stages.Compiled, *, arguments: bool = True) -> int:
    """Memory that a compiled program takes on each device, by the compiler's own analysis, bytes.

    Args:
      compiled: from `jitted.lower(...).compile()`.
      arguments: count them, too; not where they are there already.

    Returns:
      Temporary buffers, results that do not reuse an argument's memory, and arguments; 0 where
      the backend does not tell.

    Example:
      >>> import jax.numpy as jnp
      >>> program_bytes(jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)).compile())
      8000
    """
    memory: Any = compiled.memory_analysis()
    if memory is None:
        return 0
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    needed = memory.temp_size_in_bytes + results
    return int(needed + (memory.argument_size_in_bytes if arguments else 0))


def size(number: float) -> str:
    """Bytes for a reader.

    Example:
      >>> size(3 * 2**30)
      '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
