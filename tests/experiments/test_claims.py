import io

import numpy as np
import pytest
import xarray as xr
from jaxsplit_experiments import FIGURES, claims, fedft_fig6
from jaxsplit_experiments.figure import Verdict, judge, verdict_markdown, verdict_table
from jaxsplit_experiments.measures import gains, roughness
from rich.console import Console

from jaxsplit.results import Interval, mean_interval

PAPER = {
    "all_in": (0.82, 20),
    "lyapunov_bound": (0.81, 8),
    "lyapunov_count": (0.81, 7),
    "greedy": (0.77, 6),
    "aaba": (0.73, 5),
    "heads_only": (0.60, 8),
}
BUDGETS = (5e-9, 25e-9, 90e-9)
COUNT = "lyapunov_count, the paper's objective"


def agreements(claim, result, siblings=None):
    return {verdict.claim: verdict.agrees for verdict in claim.judge(result, siblings or {})}


def only(claim, result, part="", siblings=None):
    found = {
        agrees
        for text, agrees in agreements(claim, result, siblings).items()
        if text.endswith(f"{part})") or not part
    }
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.02, 0.021, 0.019], "yes"),
        ([-0.02, -0.021, -0.019], "no"),
        ([0.0, 0.0, 0.0], "no"),
        ([0.02, -0.02, 0.0], "undecided"),
        ([0.02], "undecided"),
    ],
)
def test_above(samples, expected):
    assert claims.above(mean_interval(samples)) == expected


def test_above_a_bar_or_no_more_than_a_negligible_gap():
    assert claims.above(Interval(0.07, 0.06, 0.08), bar=0.05) == "yes"
    assert claims.above(Interval(0.04, 0.03, 0.049), bar=0.05) == "no"
    assert claims.above(Interval(0.004, -0.001, 0.009), negligible=0.01) == "no"
    assert claims.above(Interval(0.004, -0.001, 0.009)) == "undecided"


def test_all_of():
    assert claims.all_of(["yes", "yes"]) == "yes"
    assert claims.all_of(["yes", "undecided"]) == "undecided"
    assert claims.all_of(["yes", "undecided", "no"]) == "no"


# A claim with results in which it holds, fails, and is undecided.
OPPOSITE = PAPER | {"lyapunov_count": (0.70, 7), "lyapunov_bound": (0.70, 7), "greedy": (0.72, 6)}
EQUAL = PAPER | dict.fromkeys(("lyapunov_count", "lyapunov_bound", "greedy", "aaba"), (0.8, 7))


@pytest.mark.parametrize(
    "claim",
    [
        claims.proposed_above_benchmarks("Fig"),
        claims.proposed_loss_below_benchmarks("Fig"),
        claims.greedy_above_aaba("Fig"),
        claims.close_to_all_in("Fig"),
    ],
)
def test_policies_compared(claim, synthetic):
    calm = {"roughness": 1e-4}
    assert only(claim, synthetic(**calm)) == "yes"
    assert only(claim, synthetic(policies=OPPOSITE, **calm)) == "no"
    noisy = {"noise": 0.2, "roughness": 2.0}
    found = agreements(claim, synthetic(policies=EQUAL, **noisy)).values()
    assert "undecided" in found
    assert only(claim, synthetic(seeds=1)) == "undecided"


def test_all_in_is_best(synthetic):
    claim = claims.all_in_is_best("Fig")
    assert only(claim, synthetic()) == "yes"
    above = synthetic(policies=PAPER | {"greedy": (0.9, 6)})
    assert only(claim, above) == "no"
    [verdict] = claim.judge(above)
    assert "greedy after rounds [" in verdict.reason
    assert only(claim, synthetic(seeds=1)) == "undecided"


def test_slow_then_fast(synthetic):
    claim = claims.slow_then_fast("Fig")
    assert only(claim, synthetic(curvature=2)) == "yes"
    assert only(claim, synthetic(curvature=0.5)) == "no"
    assert only(claim, synthetic(seeds=1)) == "undecided"


def test_gains_add_up(synthetic):
    of = synthetic().isel(data=0, delay_budget=0)
    gained = gains(of, "greedy")
    curve = of.accuracy.sel(policy="greedy")
    total = curve.isel(eval_round=-1) - curve.isel(eval_round=0)
    np.testing.assert_allclose(gained.sum(axis=1), total)
    # Fifths end at the evaluations here.
    np.testing.assert_allclose(gained, curve.diff("eval_round").transpose("seed", ...))


def test_more_devices_do_better(synthetic):
    claim = claims.more_devices_do_better("Fig")
    apart = PAPER | {"lyapunov_bound": (0.815, 9)}
    assert only(claim, synthetic(policies=apart, noise=1e-4)) == "yes"
    fewer = PAPER | {"lyapunov_bound": (0.6, 9), "lyapunov_count": (0.65, 7)}
    fewer |= {"greedy": (0.7, 6), "aaba": (0.75, 5)}
    [verdict] = claim.judge(synthetic(policies=fewer, noise=1e-4))
    assert verdict.agrees == "no"
    assert "by accuracy in %: all_in 82.0, aaba 75.0, greedy 70.0" in verdict.reason
    assert only(claim, synthetic(policies=EQUAL, noise=0.1)) == "undecided"


def test_adapters_beat_heads(synthetic):
    claim = claims.adapters_beat_heads()
    assert only(claim, synthetic(), "same schedule") == "yes"
    weak = synthetic(policies=PAPER | {"heads_only": (0.79, 8)})
    assert only(claim, weak) == "no"
    without = {policy: values for policy, values in PAPER.items() if policy != "heads_only"}
    assert claim.judge(synthetic(policies=without)) == []


def test_few_are_trained(synthetic):
    claim = claims.few_are_trained("Fig")
    result = synthetic()
    assert only(claim, result) == "yes"
    assert only(claim, result.assign_attrs(trainable_parameters=2_000_000)) == "no"
    assert claim.judge(result.drop_attrs()) == []


def test_smoother_than_another_figure(synthetic):
    claim = claims.smoother_than("Fig", "other")
    smooth, rough = synthetic(roughness=0.01), synthetic(roughness=0.03)
    assert only(claim, smooth, siblings={"other": rough}) == "yes"
    assert only(claim, rough, siblings={"other": smooth}) == "no"
    assert only(claim, smooth) == "undecided"  # no other result
    [verdict] = claim.judge(smooth, {"other": rough})
    assert "ratio 0.3" in verdict.measured


def test_roughness_of_a_known_noise():
    rng = np.random.default_rng(0)
    loss = xr.DataArray(np.linspace(2, 1, 4000) + 0.1 * rng.normal(size=4000), dims="round")
    # Around a mean of 10 rounds that holds the round itself.
    assert float(roughness(loss, 10)) == pytest.approx(0.1 * np.sqrt(1 - 1 / 10), rel=0.05)


def grows(gain, **options):
    return {"budgets": BUDGETS, "gain_when_tight": gain, "roughness": 1e-4, **options}


def test_best_of_constrained(synthetic):
    claim = claims.best_of_constrained("Fig")
    assert only(claim, synthetic(budgets=BUDGETS)) == "yes"
    assert len(claim.judge(synthetic(budgets=BUDGETS))) == 2 * len(BUDGETS)
    falls_back = synthetic(**grows({"lyapunov_count": -0.1}))
    assert only(claim, falls_back, f"{COUNT}; 5 ns/bit") == "no"
    assert only(claim, falls_back, f"{COUNT}; 90 ns/bit") == "yes"


def test_superior_when_tight(synthetic):
    claim = claims.superior_when_tight("Fig")
    assert only(claim, synthetic(budgets=BUDGETS)) == "yes"
    assert only(claim, synthetic(**grows({"lyapunov_count": -0.2, "lyapunov_bound": -0.2}))) == "no"


@pytest.mark.parametrize(
    "claim", [claims.accuracy_grows_with_budget("Fig"), claims.loss_falls_with_budget("Fig")]
)
def test_grows_with_budget(claim, synthetic):
    lower = dict.fromkeys(claims.CONSTRAINED, -0.2)
    higher = dict.fromkeys(claims.CONSTRAINED, 0.2)
    assert only(claim, synthetic(**grows(lower))) == "yes"
    assert only(claim, synthetic(**grows(higher))) == "no"
    assert only(claim, synthetic(**grows(lower, seeds=1))) == "undecided"
    assert claim.judge(synthetic()) == []  # a single budget


@pytest.mark.parametrize(
    "claim", [claims.accuracy_gain_shrinks("Fig"), claims.loss_gain_shrinks("Fig")]
)
def test_gain_shrinks(claim, synthetic):
    benchmarks = dict.fromkeys(claims.BENCHMARKS, -0.2)
    proposed = dict.fromkeys(claims.PROPOSED, -0.2)
    assert only(claim, synthetic(**grows(benchmarks))) == "yes"
    assert only(claim, synthetic(**grows(proposed))) == "no"
    assert only(claim, synthetic(**grows(benchmarks, seeds=1))) == "undecided"


def test_order_of_budgets_does_not_matter(synthetic):
    claim = claims.accuracy_gain_shrinks("Fig")
    result = synthetic(**grows(dict.fromkeys(claims.BENCHMARKS, -0.2)))
    assert claim.judge(result.isel(delay_budget=[2, 0, 1])) == claim.judge(result)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", ["fedft-fig3", "fedft-fig4", "fedft-fig5"])
def test_every_verdict_has_its_evidence(name, seeds, synthetic):
    result = synthetic(
        data=("sst2", "mrpc"), seeds=seeds, budgets=BUDGETS if name == "fedft-fig5" else (25e-9,)
    )
    verdicts = judge(FIGURES[name], result, {"fedft-fig3": synthetic(seeds=seeds)})
    assert len({(verdict.claim, verdict.source) for verdict in verdicts}) == len(verdicts)
    for verdict in verdicts:
        assert verdict.measured
        assert verdict.reason
        assert "nan" not in verdict.measured + verdict.reason
    if seeds == 1:
        decided = {verdict.claim for verdict in verdicts if verdict.agrees != "undecided"}
        assert decided <= {"less than 1 % of the parameters are trained"}


def test_scores_that_leave_out_untrained_heads_are_given(synthetic):
    claim = claims.proposed_above_benchmarks("Fig")
    result = synthetic()
    result["accuracy_participants"] = result.accuracy.copy()
    result.accuracy_participants.loc[{"policy": "greedy"}] += 0.1
    verdict = claim.judge(result)[0]
    expected = 100 * (result.accuracy_participants.isel(eval_round=-1, data=0, delay_budget=0))
    mean = (expected.sel(policy="lyapunov_count") - expected.sel(policy="greedy")).mean()
    assert f"greedy: devices that took part {float(mean):+.1f} [" in verdict.reason
    for part in ("mean head +", "mean K ", "mean 1/K ", "of devices took part"):
        assert part in verdict.reason


# Fig. 6


def made_up_network(scheduled):
    """Fig. 6 with given numbers of scheduled devices [case, budget, seed, round]."""
    cases = list(map(str, fedft_fig6.CASES))
    timed = list(map(str, fedft_fig6.TIMED))
    shape = (len(timed), len(fedft_fig6.BUDGETS_NS), 4)
    dims = ("timed_case", "delay_budget", "problem")
    scheduled = np.broadcast_to(scheduled, (len(cases), *np.shape(scheduled)))
    return xr.Dataset(
        {
            "num_scheduled": (("case", "delay_budget", "seed", "round"), scheduled),
            "algorithm1_s": (dims, np.ones(shape)),
            "evaluations": (dims, np.ones(shape, int)),
        },
        coords={"case": cases, "timed_case": timed},
    )


RNG = np.random.default_rng(0)
GROWING = np.arange(1, 9)[:, None, None] + 0 * RNG.integers(0, 2, (8, 4, 10))
SWINGING = np.where(np.arange(10) == 5, 19 - np.arange(8)[:, None, None], 1) + np.zeros((1, 4, 1))
ERRATIC = RNG.integers(1, 20, (8, 4, 10))


@pytest.mark.parametrize(
    ("index", "holds", "fails"), [(0, GROWING, GROWING[::-1]), (1, SWINGING, GROWING)]
)
def test_claims_on_searches(index, holds, fails):
    claim = fedft_fig6.FIGURE.claims[index]

    def agreement(scheduled):
        [agrees] = {
            verdict.agrees
            for verdict in claim.judge(made_up_network(scheduled))
            if "(N = 20, count, warm queue)" in verdict.claim
        }
        return agrees

    assert agreement(holds) == "yes"
    assert agreement(fails) == "no"
    assert agreement(ERRATIC) != "yes"
    assert agreement(holds[:, :1]) == "undecided"


def test_either_few_or_many():
    claim = fedft_fig6.FIGURE.claims[2]
    found = [claim.judge(made_up_network(scheduled))[0].agrees for scheduled in (SWINGING, GROWING)]
    assert found == ["yes", "no"]


VERDICTS = [
    Verdict("a claim", "Fig. 3", "+1.0 [+0.5, +1.5]", "yes", "measured"),
    Verdict("P(a|b)", "Fig. 4", "", "no", "[red]\nno"),
]


def test_table_shows_intervals():
    console = Console(width=150, file=io.StringIO())
    console.print(verdict_table(VERDICTS))
    text = console.file.getvalue()
    assert "+1.0 [+0.5, +1.5]" in text
    assert "[red]" in text


def test_markdown_has_a_row_per_verdict():
    lines = verdict_markdown(VERDICTS).splitlines()
    assert lines[2] == "| a claim | Fig. 3 | +1.0 [+0.5, +1.5] | yes | measured |"
    assert lines[3] == r"| P(a\|b) | Fig. 4 |  | no | [red] no |"
    assert len(lines) == 4


@pytest.mark.parametrize("name", ["fedft-fig3", "fedft-fig4", "fedft-fig5"])
@pytest.mark.parametrize("kept", [["greedy"], ["all_in", "lyapunov_bound"]], ids="-".join)
def test_runs_of_some_policies_are_drawn_and_left_undecided(synthetic, name, kept):
    figure = FIGURES[name]
    result = synthetic(budgets=BUDGETS if name == "fedft-fig5" else (25e-9,)).sel(policy=kept)
    siblings = {"fedft-fig3": result} if name == "fedft-fig4" else {}
    verdicts = judge(figure, result, siblings)
    assert len(verdicts) == len(figure.claims)
    undecided = [verdict for verdict in verdicts if verdict.measured == "not run"]
    assert {verdict.agrees for verdict in undecided} == {"undecided"}
    assert all("the runs lack" in verdict.reason for verdict in undecided)
    assert len(undecided) >= len(figure.claims) - 1  # the share of parameters needs no policy
    assert figure.draw(result).axes
