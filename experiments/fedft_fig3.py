"""FedFT Fig. 3: training loss and test accuracy of BERT on GLUE under four policies."""

import dataclasses

from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.commands.learning_options import POLICIES

from . import claims, drawings
from .figure import LearningFigure
from .scales import PolicyScale

_DATA = ("sst2", "mrpc", "qnli")
_LAPTOP = FineTuneConfig(
    model="minilm",
    data=_DATA[0],
    policies=tuple(POLICIES),
    devices=20,
    delay_budget_ns_per_bit=25.0,
    pooling="mean",  # as MiniLM was trained; its pooler was not
    max_length=32,
    batch_size=8,
    rounds=150,
    evaluate_every=30,
    adapter_learning_rate=2e-3,
    head_learning_rate=1e-2,
    optimizer="adam",
    devices_per_step=2,
)
_PAPER = dataclasses.replace(
    _LAPTOP,
    model="google-bert/bert-base-uncased",
    pooling="pooler",  # with adapters of its own, as in the paper
    max_length=128,
    batch_size=16,
    rounds=200,
    evaluate_every=10,
)

_LEARNING = "FedFT Fig. 3"
_TEXT = "FedFT Sec. V-B"

FIGURE = LearningFigure(
    name="fedft-fig3",
    title="FedFT Fig. 3: split federated LoRA of a text encoder on GLUE",
    scales={
        "laptop": PolicyScale(
            config=_LAPTOP,
            data=_DATA,
            heads_only=True,
            overrides={"mrpc": {"max_length": 64}},  # pairs of sentences
        ),
        "paper": PolicyScale(config=_PAPER, data=_DATA, heads_only=True),
    },
    draw=drawings.learning_curves,
    claims=(
        claims.all_in_is_best(_LEARNING),
        claims.proposed_above_benchmarks(_LEARNING),
        claims.proposed_loss_below_benchmarks(_LEARNING),
        claims.greedy_above_aaba(_LEARNING),
        claims.slow_then_fast(_LEARNING),
        claims.more_devices_do_better(_TEXT),
        claims.close_to_all_in(_TEXT),
        claims.adapters_beat_heads(),
        claims.few_are_trained(_TEXT),
    ),
)
