"""The claims of FedFT's Figs. 3 to 5 and their tests.

All tests are paired by seed. The score is the test accuracy, a mean over all devices with their own
heads; as a device that is never scheduled keeps an untrained head, each reason gives the same
difference for the devices that took part and for the mean head.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import scipy.stats
import xarray as xr

from jaxsplit.commands.report import rounds_above
from jaxsplit.results import Interval, mean_interval

from .figure import Agrees, Claim, Finding, Siblings
from .measures import (
    difference,
    final,
    final_training_loss,
    gains,
    mean_over_evaluations,
    roughness,
    schedule_statistics,
    smoothing_window,
)

#: The proposed scheduler in the paper's form and in ours.
PROPOSED = {
    "lyapunov_count": "lyapunov_count, the paper's objective",
    "lyapunov_bound": "lyapunov_bound, our objective",
}
#: The benchmarks that keep the delay budget, with the paper's names.
BENCHMARKS = {"greedy": "GS", "aaba": "AABA"}
CONSTRAINED = (*PROPOSED, *BENCHMARKS)
COMPARED = ("all_in", *CONSTRAINED)
OURS = "this project"

NEGLIGIBLE = 0.01  # accuracy; an interval wholly below it refutes a "significant gap"
CLOSE = 0.02  # accuracy; "close to All-in"
ABOVE_HEADS = 0.05  # accuracy; what fine-tuning the adapters is to add


# -- decisions -------------------------------------------------------------------------------------


def above(interval: Interval, bar: float = 0.0, negligible: float = 0.0) -> Agrees:
    """Whether a mean is above a bar.

    Args:
      interval: the mean with its 95 % interval.
      bar: to be exceeded.
      negligible: what is no gap above the bar.

    Returns:
      Yes where the interval lies above the bar; no where it reaches no further than a negligible
      gap; undecided else, and for one seed.
    """
    if np.isnan(interval.low):
        return "undecided"
    if interval.low > bar:
        return "yes"
    return "no" if interval.high <= bar + negligible else "undecided"


def all_of(agreements: Iterable[Agrees]) -> Agrees:
    """Whether every part of a claim holds."""
    found = set(agreements)
    return "no" if "no" in found else "undecided" if "undecided" in found else "yes"


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.mean, -interval.high, -interval.low)


# -- words -----------------------------------------------------------------------------------------


def signed(interval: Interval, digits: int = 2) -> str:
    """A difference with its interval, if there is more than one seed."""
    mean, low, high = (f"{value:+.{digits}f}" for value in interval)
    return mean if np.isnan(interval.low) else f"{mean} [{low}, {high}]"


def points(interval: Interval) -> str:
    """A difference of accuracies in percentage points."""
    return signed(Interval(*(100 * value for value in interval)), 1)


def budget_text(budget: float) -> str:
    """A delay budget given in s/bit."""
    return f"{1e9 * budget:g} ns/bit"


def because(agrees: Agrees, of: xr.Dataset, *evidence: str) -> str:
    """A reason: why nothing is decided, if so, and the evidence."""
    if of.sizes["seed"] == 1:
        start = ["one seed"]
    elif agrees == "undecided":
        start = [f"an interval over {of.sizes['seed']} seeds holds both answers"]
    else:
        start = []
    return "; ".join([*start, *filter(None, evidence)])


def fair_scores(of: xr.Dataset, policy: str, *references: str) -> str:
    """Final differences that do not depend on untrained heads."""
    texts = []
    for reference in references:
        parts, mean_head = (
            points(difference(final(of, name), policy, reference))
            for name in ("accuracy_participants", "accuracy_mean_head")
        )
        texts.append(
            f"{policy} minus {reference}: devices that took part {parts}, mean head {mean_head}"
        )
    return "; ".join(texts)


def schedules(of: xr.Dataset, *policies: str) -> str:
    """How policies schedule, means over seeds."""
    statistics = schedule_statistics(of).mean("seed")
    texts = []
    for policy in policies:
        at = statistics.sel(policy=policy)
        # All-in's delay has no mean under Rayleigh fading.
        delay = "" if policy == "all_in" else f", τ/τ̄ {float(at.mean_delay_ratio):.2f}"
        texts.append(
            f"{policy}: mean K {float(at.mean_scheduled):.2f}, mean 1/K "
            f"{float(at.mean_inverse_scheduled):.3f}{delay}, "
            f"{100 * float(at.part_participating):.0f} % of devices took part"
        )
    return "; ".join(texts)


def _curves(of: xr.Dataset) -> Iterator[xr.Dataset]:
    """Each data set's runs, at the figure's only budget."""
    for index in range(of.sizes["data"]):
        yield of.isel(data=index, delay_budget=0)


def _per_data(
    test: Callable[[xr.Dataset], Iterable[Finding]], *, over_budgets: bool = False
) -> Callable[[xr.Dataset, Siblings], list[Finding]]:
    """A test of a data set's runs as a test of all data sets; it takes all policies."""

    def test_all(result: xr.Dataset, siblings: Siblings) -> list[Finding]:
        missing = [policy for policy in COMPARED if policy not in result.policy]
        if missing:
            return [Finding("not run", "undecided", f"the runs lack {', '.join(missing)}")]
        findings = []
        for index in range(result.sizes["data"]):
            of = result.isel(data=index)
            of = of.sortby("delay_budget") if over_budgets else of.isel(delay_budget=0)
            name = str(of["data"].values)
            findings += [
                found._replace(of=f"{name}; {found.of}" if found.of else name) for found in test(of)
            ]
        return findings

    return test_all


# -- Figs. 3 and 4 ---------------------------------------------------------------------------------


def _all_in_is_best(of: xr.Dataset) -> Iterator[Finding]:
    compared = {policy: rounds_above(of, policy, "all_in") for policy in CONSTRAINED}
    ahead = {policy: rounds for policy, rounds in compared.items() if rounds}
    agrees: Agrees = "undecided" if of.sizes["seed"] == 1 else "no" if ahead else "yes"
    count = len(CONSTRAINED) * (of.sizes["eval_round"] - 1)
    listed = "; ".join(f"{policy} after rounds {rounds}" for policy, rounds in ahead.items())
    yield Finding(
        measured="final minus All-in: "
        + ", ".join(
            f"{policy} {points(difference(final(of), policy, 'all_in'))}" for policy in CONSTRAINED
        ),
        agrees=agrees,
        reason=because(
            agrees,
            of,
            f"of {count} paired intervals above All-in: {listed or 'none'} "
            f"({0.025 * count:.1f} expected by chance)",
            fair_scores(of, "lyapunov_count", "all_in"),
            fair_scores(of, "lyapunov_bound", "all_in"),
        ),
    )


def all_in_is_best(source: str) -> Claim:
    """No policy is above All-in at equal rounds."""
    text = "All-in is not below the proposed or any other policy at equal rounds"
    return Claim(source, text, _per_data(_all_in_is_best))


def _accuracy_above(of: xr.Dataset, policy: str, reference: str) -> Finding:
    at_end = difference(final(of), policy, reference)
    overall = difference(mean_over_evaluations(of), policy, reference)
    agrees = all_of(above(each, negligible=NEGLIGIBLE) for each in (at_end, overall))
    return Finding(
        measured=f"points of accuracy: final {points(at_end)}, mean of evaluations "
        f"{points(overall)}",
        agrees=agrees,
        reason=because(
            agrees, of, fair_scores(of, policy, reference), schedules(of, policy, reference)
        ),
    )


def _loss_below(of: xr.Dataset, policy: str, reference: str) -> Finding:
    gap = difference(final_training_loss(of), policy, reference)
    agrees = above(_negative(gap))
    return Finding(
        measured=f"training loss of the last tenth of the rounds, nat: {signed(gap, 3)}",
        agrees=agrees,
        reason=because(
            agrees,
            of,
            "a training loss is that of the scheduled devices only",
            f"test loss {signed(difference(final(of, 'test_loss'), policy, reference), 3)}",
            schedules(of, policy, reference),
        ),
    )


def _proposed_to_benchmarks(
    compare: Callable[[xr.Dataset, str, str], Finding], of: xr.Dataset
) -> Iterator[Finding]:
    for policy, meaning in PROPOSED.items():
        for reference, name in BENCHMARKS.items():
            yield compare(of, policy, reference)._replace(of=f"{meaning}, to {name}")


def proposed_above_benchmarks(source: str) -> Claim:
    """The proposed scheduler is more accurate than GS and AABA."""
    text = "the proposed is above GS and AABA in accuracy with a significant gap"
    return Claim(source, text, _per_data(partial(_proposed_to_benchmarks, _accuracy_above)))


def proposed_loss_below_benchmarks(source: str) -> Claim:
    """The proposed scheduler has a lower training loss than GS and AABA."""
    text = "the proposed has a lower training loss than GS and AABA"
    return Claim(source, text, _per_data(partial(_proposed_to_benchmarks, _loss_below)))


def greedy_above_aaba(source: str) -> Claim:
    """GS is more accurate than AABA."""
    return Claim(
        source,
        "GS is above AABA in accuracy",
        _per_data(lambda of: [_accuracy_above(of, "greedy", "aaba")]),
    )


def _slow_then_fast(of: xr.Dataset) -> Iterator[Finding]:
    for policy, meaning in PROPOSED.items():
        gained = gains(of, policy)
        speeding_up = mean_interval(gained[:, 1] - gained[:, 0])
        agrees = above(speeding_up)
        fifths = ", ".join(f"{100 * mean:+.1f}" for mean in gained.mean(axis=0))
        yield Finding(
            measured=f"points gained in the second fifth of the rounds minus the first: "
            f"{points(speeding_up)}",
            agrees=agrees,
            reason=because(agrees, of, f"points gained in the five fifths: {fifths}"),
            of=meaning,
        )


def slow_then_fast(source: str) -> Claim:
    """The accuracy speeds up."""
    text = "the accuracy of the proposed grows slowly first and faster later"
    return Claim(source, text, _per_data(_slow_then_fast))


def _rank_correlation(quantity: np.ndarray, score: np.ndarray) -> float:
    if np.ptp(quantity) == 0 or np.ptp(score) == 0:
        return 0.0
    return float(scipy.stats.spearmanr(quantity, score).statistic)


def _follows(quantity: xr.DataArray, score: xr.DataArray) -> Interval:
    """Rank correlation over policies, mean over seeds."""
    columns = zip(
        quantity.transpose("seed", "policy").values,
        score.transpose("seed", "policy").values,
        strict=True,
    )
    interval = mean_interval([_rank_correlation(*column) for column in columns])
    return Interval(*np.clip(interval, -1, 1).tolist())


def _highest(intervals: Mapping[str, Interval]) -> float:
    return max(interval.mean for interval in intervals.values())


def _ordered(quantity: xr.DataArray, form: str) -> str:
    means = quantity.mean("seed").sortby(-quantity.mean("seed"))
    return ", ".join(f"{mean.policy.item()} {form.format(float(mean))}" for mean in means)


def _more_devices_do_better(of: xr.Dataset) -> Iterator[Finding]:
    constrained = of.sel(policy=list(CONSTRAINED))
    statistics, score = schedule_statistics(constrained), final(constrained)
    quantities = {
        "mean K": statistics.mean_scheduled,
        "lower mean 1/K": -statistics.mean_inverse_scheduled,
        "devices that took part": statistics.part_participating,
    }
    follows = {name: _follows(quantity, score) for name, quantity in quantities.items()}
    agrees = above(follows["mean K"])
    best = [name for name, interval in follows.items() if interval.mean >= _highest(follows)]
    with_all_in = of.sel(policy=["all_in", *CONSTRAINED])
    with_all_in_scheduled = schedule_statistics(with_all_in).mean_scheduled
    yield Finding(
        measured="rank correlation with the final accuracy over the constrained policies: "
        + ", ".join(f"{name} {signed(interval)}" for name, interval in follows.items()),
        agrees=agrees,
        reason=because(
            agrees,
            of,
            f"the accuracy follows {' and '.join(best)} best",
            f"by mean K: {_ordered(quantities['mean K'], '{:.2f}')}",
            f"by accuracy in %: {_ordered(100 * final(with_all_in), '{:.1f}')}",
            f"with All-in, mean K {signed(_follows(with_all_in_scheduled, final(with_all_in)))}",
        ),
    )


def more_devices_do_better(source: str) -> Claim:
    """The order of mean K is that of the accuracy."""
    text = "policies that schedule more devices do better"
    return Claim(source, text, _per_data(_more_devices_do_better))


def _close_to_all_in(of: xr.Dataset) -> Iterator[Finding]:
    for policy, meaning in PROPOSED.items():
        gap = difference(final(of), policy, "all_in")
        agrees = above(gap, bar=-CLOSE)
        yield Finding(
            measured=f"final minus All-in, points: {points(gap)}",
            agrees=agrees,
            reason=because(
                agrees,
                of,
                f"close is less than {100 * CLOSE:g} points below",
                fair_scores(of, policy, "all_in"),
                schedules(of, policy, "all_in"),
            ),
            of=meaning,
        )


def close_to_all_in(source: str) -> Claim:
    """The proposed scheduler costs little accuracy."""
    text = "the proposed comes close to All-in"
    return Claim(source, text, _per_data(_close_to_all_in))


def _adapters_beat_heads(of: xr.Dataset) -> Iterator[Finding]:
    if "heads_only" not in of.policy:
        return
    gaps = {policy: difference(final(of), policy, "heads_only") for policy in COMPARED}
    for tested, meaning in (
        (("lyapunov_bound",), "lyapunov_bound, same schedule"),
        (tuple(gaps), "every policy"),
    ):
        agrees = all_of(above(gaps[policy], bar=ABOVE_HEADS) for policy in tested)
        yield Finding(
            measured="final minus heads_only, points: "
            + ", ".join(f"{policy} {points(gaps[policy])}" for policy in tested),
            agrees=agrees,
            reason=because(
                agrees,
                of,
                f"heads_only reaches {100 * float(final(of).sel(policy='heads_only').mean()):.1f} "
                "%",
                *(fair_scores(of, policy, "heads_only") for policy in tested[:1]),
            ),
            of=meaning,
        )


def adapters_beat_heads() -> Claim:
    """Fine-tuning is worth it: our own requirement."""
    text = f"adapters add at least {100 * ABOVE_HEADS:g} points to heads alone"
    return Claim(OURS, text, _per_data(_adapters_beat_heads))


def _few_are_trained(result: xr.Dataset, siblings: Siblings) -> list[Finding]:
    if not {"trainable_parameters", "total_parameters"} <= set(result.attrs):
        return []
    trained, total = (int(result.attrs[f"{of}_parameters"]) for of in ("trainable", "total"))
    share = trained / total
    return [
        Finding(
            measured=f"{100 * share:.2f} %: {trained:,} of {total:,}",
            agrees="yes" if share < 0.01 else "no",
            reason="counted; the share falls as the encoder grows in width",
        )
    ]


def few_are_trained(source: str) -> Claim:
    """Adapters are small."""
    return Claim(source, "less than 1 % of the parameters are trained", _few_are_trained)


def _roughness(of: xr.Dataset, relative: bool) -> xr.DataArray:
    """Of the training loss, the geometric mean over policies; relative to the loss's fall."""
    window = smoothing_window(of)
    loss = of.loss.sel(policy=["all_in", *CONSTRAINED])
    rough = roughness(loss, window)
    if relative:
        smooth = loss.rolling(round=window, min_periods=1, center=True).mean()
        rough = rough / (smooth.max("round") - smooth.min("round"))
    return rough.reduce(scipy.stats.gmean, "policy")


def _of_mean_curve(of: xr.Dataset) -> float:
    """Roughness of the mean over seeds under `lyapunov_count`, nat."""
    loss = of.loss.sel(policy="lyapunov_count").mean("seed")
    return float(roughness(loss, smoothing_window(of)))


def _smoother(name: str, result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
    if name not in siblings:
        yield Finding("", "undecided", f"needs the result of {name}")
        return
    if any("lyapunov_count" not in each.policy for each in (result, siblings[name])):
        yield Finding("not run", "undecided", "the runs lack lyapunov_count")
        return
    for of in _curves(result):
        for other in _curves(siblings[name]):
            common = np.intersect1d(of.seed.values, other.seed.values)
            pair = [each.sel(seed=common) for each in (other, of)]
            absolute, relative = (
                mean_interval(np.diff([np.log(_roughness(each, kind)) for each in pair], axis=0)[0])
                for kind in (False, True)
            )
            agrees = above(_negative(absolute))
            rough = [_of_mean_curve(each) for each in pair]
            yield Finding(
                measured=f"standard deviation around the rolling mean, lyapunov_count, mean of "
                f"seeds: {rough[1]:.4f} nat to {rough[0]:.4f} nat; of single runs, all policies, "
                f"ratio {_ratio(absolute)}",
                agrees=agrees,
                reason=because(
                    agrees, pair[0], f"relative to how far the loss falls {_ratio(relative)}"
                ),
                of=f"{of['data'].item()} to {other['data'].item()}",
            )


def _ratio(logarithm: Interval) -> str:
    mean, low, high = np.exp(logarithm)
    return f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def smoother_than(source: str, name: str) -> Claim:
    """The training loss is smoother than in another figure."""
    text = f"the curves are smoother than those of {name}"
    return Claim(source, text, partial(_smoother, name))


# -- Fig. 5 ----------------------------------------------------------------------------------------


def _best_of_constrained(of: xr.Dataset) -> Iterator[Finding]:
    for policy, meaning in PROPOSED.items():
        for budget in of.delay_budget.values:
            at = of.sel(delay_budget=budget)
            yield _above_benchmarks(at, policy, meaning)


def _above_benchmarks(of: xr.Dataset, policy: str, meaning: str) -> Finding:
    gaps = {reference: difference(final(of), policy, reference) for reference in BENCHMARKS}
    agrees = all_of(above(gap) for gap in gaps.values())
    return Finding(
        measured="final accuracy, points: "
        + ", ".join(f"{points(gap)} to {BENCHMARKS[reference]}" for reference, gap in gaps.items()),
        agrees=agrees,
        reason=because(
            agrees,
            of,
            fair_scores(of, policy, *BENCHMARKS),
            schedules(of, policy, *BENCHMARKS),
        ),
        of=f"{meaning}; {budget_text(of.delay_budget.item())}",
    )


def best_of_constrained(source: str) -> Claim:
    """The proposed scheduler is the most accurate at each budget."""
    text = "the proposed is the best of the policies that keep the budget"
    return Claim(source, text, _per_data(_best_of_constrained, over_budgets=True))


def _superior_when_tight(of: xr.Dataset) -> Iterator[Finding]:
    tightest = of.isel(delay_budget=0)
    for found in _proposed_to_benchmarks(_accuracy_above, tightest):
        yield found._replace(of=f"{found.of}; {budget_text(tightest.delay_budget.item())}")


def superior_when_tight(source: str) -> Claim:
    """The proposed scheduler is ahead at the tightest budget."""
    text = "the proposed is superior to GS and AABA at a tight budget"
    return Claim(source, text, _per_data(_superior_when_tight, over_budgets=True))


def _slope(values: xr.DataArray, policy: str) -> Interval:
    """Least-squares slope per doubling of the budget, mean over seeds."""
    doublings = np.log2(values.delay_budget.values)
    curves = values.sel(policy=policy).transpose("delay_budget", "seed").values
    return mean_interval(np.polyfit(doublings, curves, 1)[0])


def _grows_with_budget(of: xr.Dataset) -> Iterator[Finding]:
    if of.sizes["delay_budget"] < 2:
        return
    for policy in CONSTRAINED:
        slopes = {
            name: _slope(final(of, name), policy)
            for name in ("accuracy", "accuracy_participants", "accuracy_mean_head")
        }
        agrees = above(slopes["accuracy"])
        values = 100 * final(of).sel(policy=policy).mean("seed")
        yield Finding(
            measured=f"final accuracy, points per doubling of τ̄: {points(slopes['accuracy'])}",
            agrees=agrees,
            reason=because(
                agrees,
                of,
                f"% at each budget: {', '.join(f'{float(value):.1f}' for value in values)}",
                f"devices that took part {points(slopes['accuracy_participants'])}",
                f"mean head {points(slopes['accuracy_mean_head'])}",
            ),
            of=policy,
        )


def accuracy_grows_with_budget(source: str) -> Claim:
    """A looser budget gives a higher accuracy."""
    text = "the test accuracy grows with the budget"
    return Claim(source, text, _per_data(_grows_with_budget, over_budgets=True))


def _loss_falls_with_budget(of: xr.Dataset) -> Iterator[Finding]:
    if of.sizes["delay_budget"] < 2:
        return
    for policy in CONSTRAINED:
        slope = _slope(final_training_loss(of), policy)
        agrees = above(_negative(slope))
        values = final_training_loss(of).sel(policy=policy).mean("seed")
        test_slope = _slope(final(of, "test_loss"), policy)
        yield Finding(
            measured=f"final training loss, nat per doubling of τ̄: {signed(slope, 3)}",
            agrees=agrees,
            reason=because(
                agrees,
                of,
                f"nat at each budget: {', '.join(f'{float(value):.3f}' for value in values)}",
                "a training loss is that of the scheduled devices only",
                f"test loss {signed(test_slope, 3)}",
            ),
            of=policy,
        )


def loss_falls_with_budget(source: str) -> Claim:
    """A looser budget gives a lower training loss."""
    text = "the training loss falls as the budget grows"
    return Claim(source, text, _per_data(_loss_falls_with_budget, over_budgets=True))


def _gain_lost(values: xr.DataArray, policy: str, reference: str) -> np.ndarray:
    """A policy's gain over a reference at the tightest budget minus that at the loosest, [seed]."""
    gain = values.sel(policy=policy) - values.sel(policy=reference)
    return (gain.isel(delay_budget=0) - gain.isel(delay_budget=-1)).values


def _gain_shrinks(of: xr.Dataset, loss: bool) -> Iterator[Finding]:
    if of.sizes["delay_budget"] < 2:
        return
    tightest, loosest = (of.isel(delay_budget=index) for index in (0, -1))
    for policy, meaning in PROPOSED.items():
        for reference, name in BENCHMARKS.items():
            if loss:
                lost = mean_interval(-_gain_lost(final_training_loss(of), policy, reference))
                measured = f"nat: {signed(lost, 3)}"
                ends = [
                    signed(_negative(difference(final_training_loss(at), policy, reference)), 3)
                    for at in (tightest, loosest)
                ]
                fair = "a training loss is that of the scheduled devices only"
            else:
                lost = mean_interval(_gain_lost(final(of), policy, reference))
                measured = f"points: {points(lost)}"
                ends = [
                    points(difference(final(at), policy, reference)) for at in (tightest, loosest)
                ]
                fair = "; ".join(
                    f"{text} "
                    f"{points(mean_interval(_gain_lost(final(of, score), policy, reference)))}"
                    for text, score in (
                        ("devices that took part", "accuracy_participants"),
                        ("mean head", "accuracy_mean_head"),
                    )
                )
            agrees = above(lost)
            yield Finding(
                measured=f"gain at the tightest minus the loosest budget, {measured}",
                agrees=agrees,
                reason=because(
                    agrees,
                    of,
                    f"gain at {budget_text(tightest.delay_budget.item())} {ends[0]}, at "
                    f"{budget_text(loosest.delay_budget.item())} {ends[1]}",
                    fair,
                    f"at the tightest {schedules(tightest, policy, reference)}",
                ),
                of=f"{meaning}, over {name}",
            )


def accuracy_gain_shrinks(source: str) -> Claim:
    """The gain in accuracy over the benchmarks shrinks as the budget loosens."""
    text = "the gain in accuracy over GS and AABA shrinks as the budget loosens"
    return Claim(source, text, _per_data(partial(_gain_shrinks, loss=False), over_budgets=True))


def loss_gain_shrinks(source: str) -> Claim:
    """The training loss gains less from a looser budget than the benchmarks'."""
    text = "a looser budget lowers the training loss of the proposed less than of GS and AABA"
    return Claim(source, text, _per_data(partial(_gain_shrinks, loss=True), over_budgets=True))
