"""The federated round: who trains what, and how it is put together."""

from jaxsplit.federated.chunk import run_chunk
from jaxsplit.federated.evaluate import Evaluation, evaluate
from jaxsplit.federated.round import (
    LearningParams,
    LearningState,
    RoundInfo,
    World,
    federated_round,
    init_learning,
    payload,
)
from jaxsplit.federated.scheme import Scheme, fedft

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
]
