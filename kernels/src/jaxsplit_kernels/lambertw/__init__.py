"""The real Lambert W function: both branches and two parametrisations that keep every digit."""

from .kernel import lambertw as lambertw
from .kernel import lambertw_exp as lambertw_exp
from .kernel import lambertwm1_negexp as lambertwm1_negexp

__all__ = ["lambertw", "lambertw_exp", "lambertwm1_negexp"]
