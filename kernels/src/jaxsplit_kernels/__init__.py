"""Numerical kernels for wireless learning in JAX; depends on jax and numpy only."""

from ._version import __version__ as __version__
from .bandwidth import bandwidth_for_rate as bandwidth_for_rate
from .lambertw import lambertw as lambertw
from .lambertw import lambertw_exp as lambertw_exp
from .lambertw import lambertwm1_negexp as lambertwm1_negexp

__all__ = [
    "__version__",
    "bandwidth_for_rate",
    "lambertw",
    "lambertw_exp",
    "lambertwm1_negexp",
]
