"""The bandwidth that a rate needs on a Shannon link."""

from jaxsplit_kernels.bandwidth.kernel import bandwidth_for_rate

__all__ = ["bandwidth_for_rate"]
