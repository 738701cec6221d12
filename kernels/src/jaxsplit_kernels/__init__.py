"""Numerical kernels for wireless learning in JAX, importable without the simulator."""

from jaxsplit_kernels._version import __version__
from jaxsplit_kernels.bandwidth import bandwidth_for_rate
from jaxsplit_kernels.lambertw import lambertw

__all__ = ["__version__", "bandwidth_for_rate", "lambertw"]
