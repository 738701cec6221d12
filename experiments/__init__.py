"""Figures of the papers: their runs as data, their drawings, and verdicts on their claims."""

from . import fedft_fig3, fedft_fig4, fedft_fig5, fedft_fig6
from .figure import Figure

#: The figures that can be reproduced, by name.
FIGURES: dict[str, Figure] = {
    module.FIGURE.name: module.FIGURE for module in (fedft_fig3, fedft_fig4, fedft_fig5, fedft_fig6)
}
