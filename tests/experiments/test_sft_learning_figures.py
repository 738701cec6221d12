"""SFT's learning figures on made-up results: each verdict follows the numbers."""

import numpy as np
import pytest
import xarray as xr
from jaxsplit_experiments import FIGURES
from jaxsplit_experiments.figure import judge
from jaxsplit_experiments.scales import Variant, product, variant_of
from jaxsplit_experiments.sft_fig5 import SCHEMES
from jaxsplit_experiments.sft_fig10 import reached_s

from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.options import OptionError

EVALUATIONS = np.arange(0, 17, 4)
NUM_DEVICES = 8
#: Scheme: (final accuracy, seconds of a round, bits of a device and round).
PAPER = {
    "sft": (0.80, 1.0, 1e6),
    "sft_uncompressed": (0.80, 5.5, 14.75e6),
    "sl": (0.81, 7.0, 14.75e6),
    "fl_lora": (0.80, 3.0, 1e6),
    "fl_full": (0.80, 3.0, 2e6),
}


def run_of(accuracy, round_s=1.0, bits=1e6, *, seeds=3, noise=0.001, seed=0):
    """Curves that grow to an accuracy."""
    rng = np.random.default_rng(seed)
    growth = np.sqrt(EVALUATIONS / EVALUATIONS[-1])
    curve = 0.1 + (accuracy - 0.1) * growth + noise * rng.normal(size=(seeds, 1)) * growth
    rounds = EVALUATIONS[-1]
    sent = np.full((seeds, rounds, NUM_DEVICES), bits / 2)
    return xr.Dataset(
        {
            "accuracy": (("seed", "eval_round"), curve),
            "test_loss": (("seed", "eval_round"), 2 - curve),
            "eval_time_s": (("seed", "eval_round"), np.tile(round_s * EVALUATIONS, (seeds, 1))),
            "delay_s": (("seed", "round"), np.full((seeds, rounds), round_s)),
            "sent_up_bits": (("seed", "round", "device"), sent),
            "sent_down_bits": (("seed", "round", "device"), sent),
            "up_bits": ((), 1e5),
            "down_bits": ((), 1e5),
        },
        coords={"seed": np.arange(seeds), "eval_round": EVALUATIONS},
    )


def schemes(changed=(), *, partitions=("iid", "dirichlet:0.5"), seeds=3):
    numbers = PAPER | dict(changed)
    rows, labels = [], []
    for partition in partitions:
        for k, (scheme, of) in enumerate(numbers.items()):
            rows.append(run_of(*of, seeds=seeds, seed=k))
            labels.append((partition, scheme))
    return together(
        rows, dict(zip(("partition", "scheme"), zip(*labels, strict=True), strict=True))
    )


def grid(accuracy_of, *, seeds=3, noise=0.0005):
    points = [("identity", 1.0, 255)]
    points += [("compressed", r, 2**b - 1) for r in (0.05, 0.1, 0.2, 0.5) for b in (1, 2, 3, 5)]
    rows = [
        run_of(accuracy_of(*at), seeds=seeds, noise=noise, seed=k) for k, at in enumerate(points)
    ]
    names = ("codec", "codec_ratio", "codec_levels")
    return together(rows, dict(zip(names, zip(*points, strict=True), strict=True)))


def together(rows, labels):
    result = xr.concat(rows, "variant")
    coords = {name: ("variant", list(values)) for name, values in labels.items()}
    return result.assign_coords(coords).expand_dims(data=["cifar10"]).assign_attrs(title="made up")


def as_claimed(codec, ratio, levels):
    """Little is lost down to a ratio of 0.2, much below; few levels cost a little."""
    sparse = max(0.0, np.log2(0.2 / ratio))
    return 0.8 - 0.06 * sparse**1.5 - (0.01 + 0.02 / levels if codec == "compressed" else 0)


def verdicts(name, result):
    return {verdict.claim: verdict for verdict in judge(FIGURES[name], result)}


def test_the_papers_numbers_agree():
    fig5, fig10 = verdicts("sft-fig5", schemes()), verdicts("sft-fig10", schemes())
    for partition in ("iid", "dirichlet:0.5"):
        converges = fig5[f"SFT converges, IID and not (cifar10; {partition})"]
        assert converges.agrees == "yes"
        comparable = [v for claim, v in fig5.items() if "as accurate" in claim]
        assert len(comparable) == 8
        assert {verdict.agrees for verdict in comparable} == {"yes"}
        traffic = fig5[
            f"SFT's traffic is at most 6.8 % of that without compression (cifar10; {partition})"
        ]
        assert traffic.agrees == "yes"
        assert traffic.measured.startswith("6.78 %")
        assert "20 % of what is left are adapters" in traffic.reason
    assert {verdict.agrees for claim, verdict in fig10.items() if "fastest" in claim} == {"yes"}
    factor = next(v for claim, v in fig10.items() if "printed factor" in claim and "5.07" in claim)
    assert factor.agrees == "yes"
    assert "5.5× [" in factor.measured


def test_other_numbers_do_not():
    slow = schemes({"sft": (0.70, 6.0, 2e6)})
    fig5, fig10 = verdicts("sft-fig5", slow), verdicts("sft-fig10", slow)
    comparable = [v for claim, v in fig5.items() if "as accurate" in claim]
    assert {verdict.agrees for verdict in comparable} == {"no"}
    traffic = [v.agrees for claim, v in fig5.items() if "traffic" in claim]
    assert traffic == ["no", "no"]
    fastest = {claim: v.agrees for claim, v in fig10.items() if "fastest" in claim}
    assert set(fastest.values()) == {"no"}


def test_one_seed_decides_nothing_that_has_an_interval():
    fig10 = verdicts("sft-fig10", schemes(seeds=1))
    assert {verdict.agrees for verdict in fig10.values()} == {"undecided"}


def test_what_was_not_run_is_said():
    alone = schemes(partitions=["iid"])
    fig5 = verdicts("sft-fig5", alone.isel(variant=alone.scheme.values == "sft"))
    assert fig5["SFT converges, IID and not (cifar10; iid)"].agrees == "yes"
    rest = [verdict for claim, verdict in fig5.items() if "converges" not in claim]
    assert {verdict.measured for verdict in rest} == {"not run"}


def test_time_to_the_common_accuracy_by_hand():
    """Curves 0.1 + (a − 0.1)·sqrt(t/T): the best of the worst is reached at a known time."""
    changed = {"sft": (0.9, 1.0, 1e6), "fl_lora": (0.5, 2.0, 1e6)}
    of = schemes(changed, partitions=["iid"], seeds=1).isel(data=0)
    reached = reached_s(of, "iid")
    np.testing.assert_allclose(reached["fl_lora"], 32.0)  # at its very end
    curve = variant_of(of, scheme="sft").accuracy.values[0]
    target = variant_of(of, scheme="fl_lora").accuracy.values[0, -1]
    np.testing.assert_allclose(reached["sft"], np.interp(target, curve, 1.0 * EVALUATIONS))
    assert 0 < float(reached["sft"][0]) < 8


def test_a_scheme_that_falls_after_its_best_is_charged_until_its_best():
    of = schemes({"sl": (0.5, 1.0, 1e6)}, partitions=["iid"], seeds=1).isel(data=0)
    best = int(EVALUATIONS[-2])
    falls = (of.scheme == "sl") & (of.eval_round > best)
    of["accuracy"] = of.accuracy.where(~falls, 0.2)
    np.testing.assert_allclose(
        reached_s(of, "iid")["sl"], variant_of(of, scheme="sl").eval_time_s.sel(eval_round=best)
    )


def test_compression_as_claimed():
    fig7 = verdicts("sft-fig7", grid(as_claimed))
    small, collapse, helps = fig7.values()
    assert (small.agrees, collapse.agrees, helps.agrees) == ("yes", "yes", "no")
    fits, swings = verdicts("sft-fig3", grid(as_claimed)).values()
    assert fits.agrees == "yes"
    assert swings.agrees == "yes"


def test_compression_otherwise():
    fig7 = verdicts("sft-fig7", grid(lambda codec, r, e: 0.8 - (codec == "compressed") * 0.1))
    small, collapse, _ = fig7.values()
    assert (small.agrees, collapse.agrees) == ("no", "no")  # it costs, but does not collapse
    rough = grid(lambda codec, r, e: 0.5 + 0.3 * ((7 * r * 20 + e) % 2 > 1))
    fits, _ = verdicts("sft-fig3", rough).values()
    assert fits.agrees == "no"
    better = grid(lambda codec, r, e: 0.8 + 0.02 * (codec == "compressed"))
    assert list(verdicts("sft-fig7", better).values())[2].agrees == "yes"


@pytest.mark.parametrize("name", ["sft-fig3", "sft-fig5", "sft-fig7", "sft-fig10"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_drawings(name, seeds):
    result = grid(as_claimed, seeds=seeds) if name in ("sft-fig3", "sft-fig7") else schemes()
    figure = FIGURES[name].draw(result)
    figure.canvas.draw()
    assert len(figure.axes) == {"sft-fig3": 3, "sft-fig5": 2, "sft-fig7": 1, "sft-fig10": 2}[name]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    if name in ("sft-fig5", "sft-fig10"):
        assert texts == [label for label, _ in SCHEMES.values()]


def test_variants_are_told_apart_and_chosen():
    scale = FIGURES["sft-fig5"].scales["laptop"]
    assert len(scale.variants) == 10
    config = FineTuneConfig(model="m", data="d", partition="dirichlet:0.5", scheme="sft", cut=1)
    chosen = scale.with_options(config, {"partition", "rounds"}, ())
    assert {variant.labels["partition"] for variant in chosen.variants} == {"dirichlet:0.5"}
    assert len(chosen.variants) == 5
    with pytest.raises(OptionError, match=r"one of iid, dirichlet:0\.5"):
        scale.with_options(FineTuneConfig(model="m", data="d", partition="shards:2"),
                           {"partition"}, ())  # fmt: skip
    axes = [[Variant(labels={"a": k})] * 2 for k in range(2)]
    assert len(product(*axes)) == 4


def test_all_weights_have_a_rate_of_their_own():
    parts = {part.labels: part.config for part in FIGURES["sft-fig5"].scales["laptop"].parts(["d"])}
    rates = {dict(labels)["scheme"]: of.adapter_learning_rate for labels, of in parts.items()}
    assert rates["fl_full"] < rates["fl_lora"] == rates["sft"]
