"""The federated round: who trains what, and how it is put together."""

from jaxsplit.federated.chunk import run_chunk, run_chunk_of_seeds, world_axes
from jaxsplit.federated.evaluate import Evaluation, evaluate
from jaxsplit.federated.optimizers import LearningParams
from jaxsplit.federated.payload import payload
from jaxsplit.federated.round import RoundInfo, federated_round
from jaxsplit.federated.scheme import Scheme, fedft
from jaxsplit.federated.state import LearningState, World, init_learning

__all__ = [
    "Evaluation",
    "LearningParams",
    "LearningState",
    "RoundInfo",
    "Scheme",
    "World",
    "evaluate",
    "federated_round",
    "fedft",
    "init_learning",
    "payload",
    "run_chunk",
    "run_chunk_of_seeds",
    "world_axes",
]
