"""FedFT Fig. 5: training loss and test accuracy of a ViT on CIFAR-10 over the delay budget."""

import dataclasses

from . import claims, drawings, fedft_fig4
from .figure import LearningFigure
from .scales import PolicyScale

_DATA = ("cifar10",)
_BUDGETS_NS = (5.0, 10.0, 25.0, 50.0, 90.0)
_SOURCE = "FedFT Fig. 5"

FIGURE = LearningFigure(
    name="fedft-fig5",
    title="FedFT Fig. 5: a vision transformer on CIFAR-10 over the delay budget",
    scales={
        name: PolicyScale(
            config=dataclasses.replace(config, evaluate_every=config.rounds),
            data=_DATA,
            budgets_ns=_BUDGETS_NS,
        )
        for name, config in (("laptop", fedft_fig4.LAPTOP), ("paper", fedft_fig4.PAPER))
    },
    draw=drawings.over_budgets,
    claims=(
        claims.best_of_constrained(_SOURCE),
        claims.superior_when_tight(_SOURCE),
        claims.accuracy_gain_shrinks(_SOURCE),
        claims.loss_gain_shrinks(_SOURCE),
        claims.accuracy_grows_with_budget(_SOURCE),
        claims.loss_falls_with_budget(_SOURCE),
    ),
)
