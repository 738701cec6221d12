"""Numerical kernels for wireless learning in JAX; depends on jax and numpy only."""

from ._version import __version__ as __version__
from .bandwidth import bandwidth_for_rate as bandwidth_for_rate
from .bitstream import StreamError as StreamError
from .bitstream import compressed_bits as compressed_bits
from .bitstream import decode as decode
from .bitstream import encode as encode
from .compress import compress as compress
from .lambertw import lambertw as lambertw
from .lambertw import lambertw_exp as lambertw_exp
from .lambertw import lambertwm1_negexp as lambertwm1_negexp
from .quantize import Quantized as Quantized
from .quantize import dequantize as dequantize
from .quantize import stochastic_quantize as stochastic_quantize
from .topk import topk_mask as topk_mask

__all__ = [
    "Quantized",
    "StreamError",
    "__version__",
    "bandwidth_for_rate",
    "compress",
    "compressed_bits",
    "decode",
    "dequantize",
    "encode",
    "lambertw",
    "lambertw_exp",
    "lambertwm1_negexp",
    "stochastic_quantize",
    "topk_mask",
]
