"""The radio: where devices stand, how their channels fade, what a link can carry."""

from jaxsplit.wireless.base import ChannelModel
from jaxsplit.wireless.fading import RayleighParams, RayleighState, rayleigh
from jaxsplit.wireless.geometry import power_law_gain, uniform_disc
from jaxsplit.wireless.link import shannon_rate, snr_density, transmission_delay

__all__ = [
    "ChannelModel",
    "RayleighParams",
    "RayleighState",
    "power_law_gain",
    "rayleigh",
    "shannon_rate",
    "snr_density",
    "transmission_delay",
    "uniform_disc",
]
