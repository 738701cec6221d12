"""Which device holds which samples.

`base.py` states the contract; `counts.py` turns shares into whole numbers of samples; `named.py`
finds members by name; `skew.py` measures what came out; every other file is a member.
"""

from jaxsplit.data.partition.base import Partition, Partitioner
from jaxsplit.data.partition.even import iid
from jaxsplit.data.partition.given import from_file, from_indices
from jaxsplit.data.partition.label_shards import shards
from jaxsplit.data.partition.label_shares import dirichlet
from jaxsplit.data.partition.named import PARTITIONERS, partitioner_named
from jaxsplit.data.partition.size_skew import power_law
from jaxsplit.data.partition.skew import label_counts, label_distance

__all__ = [
    "PARTITIONERS",
    "Partition",
    "Partitioner",
    "dirichlet",
    "from_file",
    "from_indices",
    "iid",
    "label_counts",
    "label_distance",
    "partitioner_named",
    "power_law",
    "shards",
]
