"""What a round costs, counted from the shapes and dtypes of what is really sent."""

from jaxsplit.costs.payload import Payload, bits_of

__all__ = ["Payload", "bits_of"]
