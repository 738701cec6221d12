"""The real branches of the Lambert W function."""

from jaxsplit_kernels.lambertw.kernel import lambertw

__all__ = ["lambertw"]
