"""The version of both distributions, `jaxsplit` and `jaxsplit-kernels`, stated once."""

__version__ = "0.1.0"
