"""Who takes part in a round and on which bandwidth.

`base.py` states the contract; every other file is a member or the allocation it uses.
"""

from jaxsplit.scheduling.bandwidth import equal_bandwidth, min_delay_bandwidth, slowest_delay
from jaxsplit.scheduling.base import (
    Observation,
    Schedule,
    Scheduler,
    prefix_masks,
    strongest_first,
    virtual_queue,
)
from jaxsplit.scheduling.baselines import aaba, all_in, greedy
from jaxsplit.scheduling.lyapunov import LyapunovParams, lyapunov, solve_p1

__all__ = [
    "LyapunovParams",
    "Observation",
    "Schedule",
    "Scheduler",
    "aaba",
    "all_in",
    "equal_bandwidth",
    "greedy",
    "lyapunov",
    "min_delay_bandwidth",
    "prefix_masks",
    "slowest_delay",
    "solve_p1",
    "strongest_first",
    "virtual_queue",
]
