"""Data sets: the contract, one file per format on disk, and `load`, which finds and decodes."""

from jaxsplit.data.sources.base import Dataset
from jaxsplit.data.sources.digits import digits
from jaxsplit.data.sources.load import load
from jaxsplit.data.sources.lookup import KNOWN_NAMES, DataNotFoundError, find

__all__ = ["KNOWN_NAMES", "DataNotFoundError", "Dataset", "digits", "find", "load"]
