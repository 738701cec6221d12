"""Stochastic quantization of the kept entries of a row."""

from .kernel import Quantized as Quantized
from .kernel import dequantize as dequantize
from .kernel import stochastic_quantize as stochastic_quantize
