"""The bitstream of quantized rows: its exact length under jit, and its bytes."""

from .codec import StreamError as StreamError
from .codec import decode as decode
from .codec import encode as encode
from .kernel import compressed_bits as compressed_bits
