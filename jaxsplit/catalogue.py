"""Channels and schedulers by name, for command lines and configurations."""

import functools
from collections.abc import Callable

from jaxsplit.scheduling import (
    Scheduler,
    aaba,
    all_in,
    greedy,
    lyapunov,
    proportional_fair,
    random_k,
    round_robin,
)
from jaxsplit.wireless import (
    ChannelModel,
    fixed_snr,
    gauss_markov,
    log_normal_shadowing,
    nakagami,
    random_waypoint,
    rayleigh,
    rician,
    trace,
    uma,
    umi,
)

CHANNELS: dict[str, Callable[[], ChannelModel]] = {
    "rayleigh": rayleigh,
    "rician": rician,
    "nakagami": nakagami,
    "log_normal_shadowing": log_normal_shadowing,
    "gauss_markov": gauss_markov,
    "random_waypoint": random_waypoint,
    "umi": umi,
    "uma": uma,
    "fixed_snr": fixed_snr,
}
SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "all_in": all_in,
    "lyapunov_bound": functools.partial(lyapunov, objective="bound"),
    "lyapunov_count": functools.partial(lyapunov, objective="count"),
    "first_descent_bound": functools.partial(lyapunov, "first_descent", "bound"),
    "first_descent_count": functools.partial(lyapunov, "first_descent", "count"),
    "greedy": greedy,
    "aaba": aaba,
}
SIZED_SCHEDULERS: dict[str, Callable[[int], Scheduler]] = {
    "random_k": random_k,
    "round_robin": round_robin,
    "proportional_fair": proportional_fair,
}


def channel_named(name: str) -> ChannelModel:
    """A channel model by its name, `trace:FILE` for a recorded one.

    Args:
      name: a key of `CHANNELS`, or `trace:` and the path of a NetCDF or CSV file.

    Returns:
      The model with its default numbers.

    Raises:
      ValueError: an unknown name, or a file that is not a trace; what is allowed is said.

    Example:
      >>> channel_named("rayleigh").params.path_loss_exponent
      3.0
    """
    kind, _, file = name.partition(":")
    if kind == "trace" and file:
        try:
            return trace(file)
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}: name a file that can be read") from error
    if name not in CHANNELS:
        raise ValueError(f"give one of {', '.join(CHANNELS)} or trace:FILE")
    return CHANNELS[name]()


def scheduler_named(name: str) -> Scheduler:
    """A scheduler by its name, `random_k:4` and the like for those of a fixed size.

    Args:
      name: a key of `SCHEDULERS`, or a key of `SIZED_SCHEDULERS` with the devices per round.

    Returns:
      The scheduler with its default numbers.

    Raises:
      ValueError: an unknown name; what is allowed is said.

    Example:
      >>> scheduler_named("random_k:4").params
      ()
    """
    kind, _, size = name.partition(":")
    if kind in SIZED_SCHEDULERS and size.isdecimal() and int(size) > 0:
        return SIZED_SCHEDULERS[kind](int(size))
    if name not in SCHEDULERS:
        sized = ", ".join(f"{kind}:4" for kind in SIZED_SCHEDULERS)
        raise ValueError(f"give one of {', '.join(SCHEDULERS)}, {sized} (4 devices per round)")
    return SCHEDULERS[name]()
