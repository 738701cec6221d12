"""Monte Carlo sweeps of the network: a grid over any parameters × seeds.

`run.py` runs, `grid.py` says what a scenario is, `program.py` compiles a block of them,
`summary.py` what is kept of each, `store.py` where, `result.py` makes a labelled data set of it,
`limits.py` checks what it takes, `config.py` is the command line's form of it.
"""

from jaxsplit.sweeps.config import SweepConfig
from jaxsplit.sweeps.grid import number_names
from jaxsplit.sweeps.result import over_seeds
from jaxsplit.sweeps.run import DiskFullError, sweep

__all__ = ["DiskFullError", "SweepConfig", "number_names", "over_seeds", "sweep"]
