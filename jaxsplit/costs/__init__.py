"""What a round costs, counted from the shapes and dtypes of what is really sent."""

from jaxsplit.costs.delay import (
    MinMaxTerms,
    Order,
    Phases,
    Processor,
    RadioLink,
    RoundLoad,
    Traffic,
    min_max_terms,
    round_delay,
    round_phases,
    round_traffic,
)
from jaxsplit.costs.energy import DeviceEnergy, device_energy
from jaxsplit.costs.flops import ModelFlops, SplitFlops, model_flops, split_flops
from jaxsplit.costs.memory import Memory, Optimizer, device_memory, model_memory
from jaxsplit.costs.payload import Payload, bits_of
from jaxsplit.costs.shape import BLOCK_LAYERS, EncoderShape, Mode, Pooling
from jaxsplit.costs.wide import wide_add, wide_sum, wide_value

__all__ = [
    "BLOCK_LAYERS",
    "DeviceEnergy",
    "EncoderShape",
    "Memory",
    "MinMaxTerms",
    "Mode",
    "ModelFlops",
    "Optimizer",
    "Order",
    "Payload",
    "Phases",
    "Pooling",
    "Processor",
    "RadioLink",
    "RoundLoad",
    "SplitFlops",
    "Traffic",
    "bits_of",
    "device_energy",
    "device_memory",
    "min_max_terms",
    "model_flops",
    "model_memory",
    "round_delay",
    "round_phases",
    "round_traffic",
    "split_flops",
    "wide_add",
    "wide_sum",
    "wide_value",
]
