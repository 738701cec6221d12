"""FedFT Fig. 4: training loss and test accuracy of a ViT on CIFAR-10 under four policies."""

import dataclasses

from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.commands.learning_options import POLICIES

from . import claims, drawings
from .figure import LearningFigure
from .scales import PolicyScale

_DATA = ("cifar10",)
LAPTOP = FineTuneConfig(
    model="vit-small-tin32",
    data=_DATA[0],
    policies=tuple(POLICIES),
    devices=20,
    delay_budget_ns_per_bit=25.0,
    max_test=1000,
    batch_size=4,
    rounds=75,
    evaluate_every=15,
    adapter_learning_rate=2e-3,
    head_learning_rate=1e-2,
    optimizer="adam",
    devices_per_step=2,
)
PAPER = dataclasses.replace(
    LAPTOP,
    model="google/vit-base-patch16-224",
    max_test=None,
    image_size=224,
    batch_size=16,
    rounds=200,
    evaluate_every=10,
)

_LEARNING = "FedFT Fig. 4"
_TEXT = "FedFT Sec. V-C"

FIGURE = LearningFigure(
    name="fedft-fig4",
    title="FedFT Fig. 4: split federated LoRA of a vision transformer on CIFAR-10",
    scales={
        "laptop": PolicyScale(config=LAPTOP, data=_DATA, heads_only=True),
        "paper": PolicyScale(config=PAPER, data=_DATA, heads_only=True),
    },
    draw=drawings.learning_curves,
    claims=(
        claims.all_in_is_best(_LEARNING),
        claims.proposed_above_benchmarks(_LEARNING),
        claims.proposed_loss_below_benchmarks(_LEARNING),
        claims.greedy_above_aaba(_LEARNING),
        claims.slow_then_fast(_LEARNING),
        claims.more_devices_do_better(_LEARNING),
        claims.close_to_all_in(_TEXT),
        claims.adapters_beat_heads(),
        claims.few_are_trained(_TEXT),
        claims.smoother_than(_TEXT, "fedft-fig3"),
    ),
)
