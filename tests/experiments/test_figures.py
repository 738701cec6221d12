import pytest
from jaxsplit_experiments import FIGURES
from jaxsplit_experiments.figure import LearningFigure

BUDGETS = (5e-9, 10e-9, 25e-9, 50e-9, 90e-9)
SCALES = [
    pytest.param(scale, id=f"{name}-{kind}")
    for name, figure in FIGURES.items()
    if isinstance(figure, LearningFigure)
    for kind, scale in figure.scales.items()
]


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_has_options_that_pass(scale):
    parts = list(scale.parts(scale.data))
    assert len({part.name for part in parts}) == len(parts) >= len(scale.data)
    for part in parts:
        part.config.check()
    assert set(scale.overrides) <= set(scale.data)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_both_scales_and_claims(name):
    figure = FIGURES[name]
    assert figure.name == name
    assert set(figure.scales) == {"laptop", "paper"}
    assert figure.claims


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("data", [("cifar10",), ("sst2", "mrpc")])
@pytest.mark.parametrize("name", ["fedft-fig3", "fedft-fig4"])
def test_learning_curves(name, data, seeds, synthetic):
    figure = FIGURES[name].draw(synthetic(data=data, seeds=seeds))
    figure.canvas.draw()
    assert len(figure.axes) == 3 * len(data)
    for panel in figure.axes:
        assert len(panel.lines) == 6
    assert ", ".join(data) in figure.get_suptitle()


@pytest.mark.parametrize("seeds", [1, 3])
def test_over_budgets(seeds, synthetic):
    result = synthetic(seeds=seeds, budgets=BUDGETS)
    figure = FIGURES["fedft-fig5"].draw(result.drop_sel(policy="heads_only"))
    figure.canvas.draw()
    assert len(figure.axes) == 6
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["5", "10", "25", "50", "90"]
