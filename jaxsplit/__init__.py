"""Split federated LoRA fine-tuning of foundation models over wireless networks, in JAX.

A run is a pure function of a key and a configuration. `Network` and `Scheme` hold the choices,
`NetworkParams` and `LearningParams` the numbers, `run` lays the learning over the radio.
"""

from importlib.metadata import version

from jaxsplit.compile_cache import use_compile_cache
from jaxsplit.federated import LearningParams, Scheme
from jaxsplit.network import Network, NetworkParams, run_network
from jaxsplit.simulate import NonFiniteError, run
from jaxsplit.sweeps import sweep

__version__ = version("jaxsplit")

__all__ = [
    "LearningParams",
    "Network",
    "NetworkParams",
    "NonFiniteError",
    "Scheme",
    "run",
    "run_network",
    "sweep",
    "use_compile_cache",
]
