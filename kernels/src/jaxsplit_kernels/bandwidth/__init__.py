"""The bandwidth that carries a rate over an additive white Gaussian noise link."""

from .kernel import bandwidth_for_rate as bandwidth_for_rate

__all__ = ["bandwidth_for_rate"]
