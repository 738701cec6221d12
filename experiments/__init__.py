"""Figures of the papers: their runs as data, their drawings, and verdicts on their claims."""

from . import (
    fedft_fig3,
    fedft_fig4,
    fedft_fig5,
    fedft_fig6,
    sft_fig3,
    sft_fig5,
    sft_fig6,
    sft_fig7,
    sft_fig8,
    sft_fig9,
    sft_fig10,
    sft_table3,
)
from .figure import Figure

#: The figures that can be reproduced, by name.
FIGURES: dict[str, Figure] = {
    module.FIGURE.name: module.FIGURE
    for module in (
        fedft_fig3,
        fedft_fig4,
        fedft_fig5,
        fedft_fig6,
        sft_fig3,
        sft_fig5,
        sft_fig6,
        sft_fig7,
        sft_fig8,
        sft_fig9,
        sft_fig10,
        sft_table3,
    )
}
