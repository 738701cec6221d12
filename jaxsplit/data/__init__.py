"""Data sets, how devices share them, and the mini-batches they draw."""

from jaxsplit.data.batches import draw_batch
from jaxsplit.data.images import ImageTransform
from jaxsplit.data.partition import (
    PARTITIONERS,
    Partition,
    Partitioner,
    dirichlet,
    from_file,
    from_indices,
    iid,
    label_counts,
    label_distance,
    partitioner_named,
    power_law,
    shards,
)
from jaxsplit.data.sources import KNOWN_NAMES, DataNotFoundError, Dataset, digits, find, load
from jaxsplit.data.text import load_tokenizer, tokenize

__all__ = [
    "KNOWN_NAMES",
    "PARTITIONERS",
    "DataNotFoundError",
    "Dataset",
    "ImageTransform",
    "Partition",
    "Partitioner",
    "digits",
    "dirichlet",
    "draw_batch",
    "find",
    "from_file",
    "from_indices",
    "iid",
    "label_counts",
    "label_distance",
    "load",
    "load_tokenizer",
    "partitioner_named",
    "power_law",
    "shards",
    "tokenize",
]
