"""Data sets, how devices share them, and the mini-batches they draw."""

from jaxsplit.data.batches import draw_batch
from jaxsplit.data.partition import Partition, Partitioner, iid
from jaxsplit.data.sources import Dataset, digits

__all__ = ["Dataset", "Partition", "Partitioner", "digits", "draw_batch", "iid"]
