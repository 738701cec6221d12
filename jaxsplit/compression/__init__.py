"""Codecs of the link between device and server, on top of `jaxsplit_kernels`.

`base.py` states the contract, `members.py` holds SFT's stages alone and together.
"""

from jaxsplit.compression.base import Codec, CodecParams
from jaxsplit.compression.members import (
    CODECS,
    check_codec_params,
    compressed,
    identity,
    quantization,
    top_k,
    top_k_quantization,
)

__all__ = [
    "CODECS",
    "Codec",
    "CodecParams",
    "check_codec_params",
    "compressed",
    "identity",
    "quantization",
    "top_k",
    "top_k_quantization",
]
