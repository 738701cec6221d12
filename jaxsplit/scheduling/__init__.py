"""Who takes part in a round and on which bandwidth.

`base.py` states the contract; every other file is a member or the allocation it uses.
"""

from jaxsplit.scheduling.bandwidth import equal_bandwidth, min_delay_bandwidth, slowest_delay
from jaxsplit.scheduling.base import (
    Observation,
    Schedule,
    Scheduler,
    strongest_first,
    virtual_queue,
)
from jaxsplit.scheduling.baselines import aaba, all_in, greedy
from jaxsplit.scheduling.fairness import jain_index
from jaxsplit.scheduling.fixed_size import (
    ProportionalFairParams,
    proportional_fair,
    random_k,
    round_robin,
)
from jaxsplit.scheduling.lyapunov import LyapunovParams, lyapunov, solve_p1
from jaxsplit.scheduling.min_max import min_max_bandwidth
from jaxsplit.scheduling.random_split import random_bandwidth

__all__ = [
    "LyapunovParams",
    "Observation",
    "ProportionalFairParams",
    "Schedule",
    "Scheduler",
    "aaba",
    "all_in",
    "equal_bandwidth",
    "greedy",
    "jain_index",
    "lyapunov",
    "min_delay_bandwidth",
    "min_max_bandwidth",
    "proportional_fair",
    "random_bandwidth",
    "random_k",
    "round_robin",
    "slowest_delay",
    "solve_p1",
    "strongest_first",
    "virtual_queue",
]
