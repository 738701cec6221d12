"""Top-K, stochastic quantization and the length of the lossless code in one pass."""

from .kernel import compress as compress
