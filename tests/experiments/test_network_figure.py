import functools

import numpy as np
import pytest
from jaxsplit_experiments import FIGURES, fedft_fig6
from jaxsplit_experiments.fedft_fig6 import Case, SchedulerScale
from jaxsplit_experiments.figure import judge


@pytest.fixture(scope="module")
def small_network():
    """Fig. 6 of four devices under two budgets."""
    with pytest.MonkeyPatch.context() as patch:
        cases = tuple(case._replace(num_devices=4) for case in fedft_fig6.CASES[:4])
        patch.setattr(fedft_fig6, "CASES", cases)
        patch.setattr(fedft_fig6, "TIMED", cases[:1])
        patch.setattr(fedft_fig6, "BUDGETS_NS", (5, 25))
        patch.setattr(fedft_fig6, "_PLACES", np.arange(2))
        patch.setattr(fedft_fig6, "CALLS", 3)
        simulate = fedft_fig6.simulate

        @functools.cache  # one program to compile: the cases need not differ here
        def simulate_once(seeds, rounds):
            return simulate(Case(4, "count", 0), seeds, rounds, lambda count: None)

        def simulate_cheaply(case, seeds, rounds, done):
            runs = simulate_once(seeds, rounds)
            done(len(runs) * seeds * rounds)
            return runs

        patch.setattr(fedft_fig6, "simulate", simulate_cheaply)
        reports = []
        scale = SchedulerScale(default_seeds=2, rounds=6, timed_seeds=1, repeats=1, batch_calls=1)
        result = fedft_fig6.run(scale, scale.default_seeds, lambda *report: reports.append(report))
        yield result, reports


def test_network_figure_is_labelled_and_reports_progress(small_network):
    result, reports = small_network
    assert dict(result.num_scheduled.sizes) == {
        "case": 4,
        "delay_budget": 2,
        "seed": 2,
        "round": 6,
    }
    assert dict(result.algorithm1_s.sizes) == {"timed_case": 1, "delay_budget": 2, "problem": 6}
    assert result.algorithm1_s.attrs["units"] == "s"
    np.testing.assert_allclose(result.delay_budget, [5e-9, 25e-9])
    for stage, total in (("simulating", 4 * 2 * 2 * 6), ("timing", 2 * 6)):
        assert [report for report in reports if report[0] == stage][-1] == (stage, total, total)


def test_sets_tried_are_those_of_algorithm1(small_network):
    result, _ = small_network
    expected = fedft_fig6.sets_tried(result, fedft_fig6.TIMED[0]).isel(seed=0).values
    told = result.isel(timed_case=0, problem=slice(6))
    surely = ~told.is_ambiguous.values
    np.testing.assert_array_equal(told.sets_tried.values[surely], expected[surely])


def test_network_figure_is_drawn(small_network):
    figure = FIGURES["fedft-fig6"].draw(small_network[0])
    figure.canvas.draw()
    assert len(figure.axes) == 3


def test_network_figure_is_judged(small_network):
    verdicts = judge(FIGURES["fedft-fig6"], small_network[0])
    assert len(verdicts) == 1 + 4 + 1 + 1 + 1
    for verdict in verdicts:
        assert verdict.measured
        assert verdict.reason
        assert "nan" not in verdict.measured + verdict.reason
    [same] = [verdict for verdict in verdicts if verdict.claim.startswith("solve_p1 chooses")]
    assert same.agrees == "yes"
