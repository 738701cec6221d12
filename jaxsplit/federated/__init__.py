"""The federated round: who trains what, and how it is put together."""

from jaxsplit.federated.chunk import run_chunk, run_chunk_of_seeds, world_axes
from jaxsplit.federated.evaluate import Evaluation, evaluate
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.optimizers import LearningParams
from jaxsplit.federated.payload import Work, encoder_shape, payload, upload_length, work
from jaxsplit.federated.presets import (
    PRESETS,
    fedft,
    fl_full,
    fl_lora,
    sft,
    sft_uncompressed,
    sl,
)
from jaxsplit.federated.round import RoundInfo, federated_round
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.state import LearningState, World, init_learning
from jaxsplit.federated.stream_check import StreamMismatchError, check_streams
from jaxsplit.federated.upload import UploadError, check_upload

__all__ = [
    "PRESETS",
    "Evaluation",
    "LearningParams",
    "LearningState",
    "RoundInfo",
    "Scheme",
    "StreamMismatchError",
    "TrainedHalves",
    "UploadError",
    "Work",
    "World",
    "check_streams",
    "check_upload",
    "encoder_shape",
    "evaluate",
    "federated_round",
    "fedft",
    "fl_full",
    "fl_lora",
    "init_learning",
    "payload",
    "run_chunk",
    "run_chunk_of_seeds",
    "sft",
    "sft_uncompressed",
    "sl",
    "upload_length",
    "work",
    "world_axes",
]
