import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxsplit_experiments import (
    FIGURES,
    runner,
    sft_fig6,
    sft_fig8,
    sft_fig9,
    sft_setting,
    sft_table3,
)
from jaxsplit_experiments.figure import judge
from jaxsplit_experiments.printed import counted, near, with_ends
from rich.console import Console

from jaxsplit.commands.reproduce import ReproduceConfig
from jaxsplit.costs import RadioLink, min_max_terms, round_delay, round_phases, round_traffic
from jaxsplit.results import Interval
from jaxsplit.scheduling import min_max_bandwidth

MODULES = (sft_fig6, sft_table3, sft_fig8, sft_fig9)
PANELS = {"sft-fig6": 1, "sft-table3": 1, "sft-fig8": 2, "sft-fig9": 3}
VERDICTS = {
    "sft-fig6": 2 + 2 * 2 + 2,
    "sft-table3": 2 + 2 + 2 + 4,
    "sft-fig8": 1 + 2 + 2 + 2 + 3 + 3 + 3,
    "sft-fig9": 2 * 2 + 2 * 3,
}


@pytest.fixture(scope="module")
def results():
    """Each figure of two seeds."""
    made = {}
    for module in MODULES:
        figure, reports = module.FIGURE, []
        scale = figure.scales["laptop"]
        if module is sft_fig8:
            scale = sft_fig8.CompressionScale(default_seeds=2, samples=2)
        result = figure.run(scale, 2, lambda *report, to=reports: to.append(report))
        stage, done, total = reports[-1]
        assert stage in ("measuring", "simulating")
        assert done == total
        made[figure.name] = result.assign_attrs(title=figure.title)
    return made


def verdicts_of(results, name, words, change=None):
    """Agreements by part of the claim that has the words."""
    result = results[name] if change is None else change(results[name].copy(deep=True))
    found = [verdict for verdict in judge(FIGURES[name], result) if words in verdict.claim]
    assert found
    return {verdict.claim: verdict.agrees for verdict in found}


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PANELS)
def test_every_part_of_every_claim_is_judged(results, name):
    verdicts = judge(FIGURES[name], results[name])
    assert len(verdicts) == VERDICTS[name]
    assert len({(verdict.claim, verdict.source) for verdict in verdicts}) == VERDICTS[name]
    for verdict in verdicts:
        assert verdict.measured
        assert verdict.reason
        assert "nan" not in verdict.measured + verdict.reason


@pytest.mark.parametrize("name", PANELS)
def test_every_figure_is_drawn(results, name):
    figure = FIGURES[name].draw(results[name])
    figure.canvas.draw()
    assert len(figure.axes) == PANELS[name]
    for panel in figure.axes:
        assert panel.get_ylabel()


def test_reproduce_writes_result_picture_and_verdicts(tmp_path, capsys):
    out = tmp_path / "out"
    config = ReproduceConfig(figure="sft-table3", out=out)
    runner.reproduce(config, Console(width=140))
    assert "wrote" in capsys.readouterr().out
    assert {path.suffix for path in out.glob("sft-table3.*")} >= {".nc", ".png", ".md"}
    assert "141.19" in (out / "sft-table3.md").read_text(encoding="utf-8")
    assert "seeds 1" in (out / "sft-table3.md").read_text(encoding="utf-8")


def test_a_number_is_near_a_printed_one_or_not():
    assert near(counted(10.9), 10) == "yes"
    assert near(counted(11.1), 10) == "no"
    assert near(counted(11.1), 10, 2) == "yes"
    assert near(Interval(11.0, 10.9, 11.1), 10) == "undecided"
    assert near(Interval(10.0, np.nan, np.nan), 10) == "undecided"
    assert with_ends(counted(1234.56)) == "1,234.6"
    assert with_ends(Interval(2.0, 1.5, 2.5), 2) == "2.00 [1.50, 2.50]"
    assert with_ends(Interval(2.0, np.nan, np.nan)) == "2.0"


# -- the setting -----------------------------------------------------------------------------------


MINUTES = {30e6: (23.2, 20.8, 90.4, 58.3, 14.0), 5e6: (35.6, 21.1, 329.0, 296.0, 30.2)}  # SPEC 2.6


@pytest.mark.parametrize("bandwidth_hz", MINUTES)
def test_rounds_of_the_schemes_take_the_minutes_by_hand(bandwidth_hz):
    clocks = jnp.asarray(np.random.default_rng(0).uniform(0.5e9, 1.5e9, 8), jnp.float32)
    devices, server = sft_setting.devices_with(clocks), sft_setting.SERVER
    efficiency = sft_setting.spectral_efficiency(17.0)
    link = RadioLink(bandwidth_hz, efficiency, efficiency)
    minutes = []
    for scheme, load in sft_setting.scheme_loads(sft_setting.PAPER_BETA).items():
        order = sft_setting.order_of(scheme)
        phases = round_phases(load, devices, server, link, bandwidth_hz / 8, order=order)
        minutes.append(float(round_delay(phases, order)) / 60)
    # By hand with 98 whole mini-batches, and adapters also where all weights are trained.
    np.testing.assert_allclose(minutes, MINUTES[bandwidth_hz], rtol=0.015)


def test_rounds_of_the_schemes_send_the_bytes_by_hand():
    loads = sft_setting.scheme_loads(sft_setting.PAPER_BETA)
    gib = {
        scheme: float(round_traffic(load, num_devices=8).total_bits) / 8 / 2**30
        for scheme, load in loads.items()
    }
    adapters_gib = 16 * 12 * 18 * 768 * 16 * 4 / 2**30
    assert gib["FL full"] + adapters_gib == pytest.approx(5.27, abs=0.01)
    assert gib["FL-LoRA"] == pytest.approx(0.16, abs=0.005)
    assert gib["SL"] == gib["SFT uncompressed"] == pytest.approx(56.5, abs=0.1)
    assert gib["SFT"] - adapters_gib * 5 / 12 == pytest.approx(3.83, abs=0.015)


def test_only_the_first_round_brings_frozen_weights():
    first, later = (
        sft_setting.scheme_loads(1.0, first_round=is_first) for is_first in (True, False)
    )
    more = {
        scheme: first[scheme].distribution_bits - later[scheme].distribution_bits
        for scheme in first
    }
    assert more["FL full"] == 0
    assert more["SFT"] == more["SL"] == 32 * int(sft_setting.VIT.device_parameters(5))
    assert more["FL-LoRA"] == 32 * (sft_setting.VIT.parameters - 769 * 100)


# -- memory ----------------------------------------------------------------------------------------


def test_memory_grows_like_the_formula(results):
    of = results["sft-fig6"].split_mib
    block = 3 * 4 * (12 * 768**2 + 18 * 768 * 16) + 34 * 64 * 197 * 768 + 5 * 64 * 197**2 * 12
    np.testing.assert_allclose(np.diff(of.sel(mode="paper")), block / 2**20, rtol=1e-12)
    assert set(verdicts_of(results, "sft-fig6", "in proportion").values()) == {"yes"}


def test_memory_that_bends_is_not_in_proportion(results):
    def bent(result):
        result["split_mib"] = result.split_mib * (1 + result.blocks / 12)
        return result

    def shifted(result):
        result["split_mib"] = result.split_mib + 1000
        return result

    for change in (bent, shifted):
        agrees = verdicts_of(results, "sft-fig6", "in proportion", change)
        assert set(agrees.values()) == {"no"}


@pytest.mark.parametrize(
    ("factor", "paper", "exact"), [(1, "no", "yes"), (0.5, "yes", "yes"), (2, "no", "no")]
)
def test_whether_federated_learning_fits_depends_on_the_capacity(results, factor, paper, exact):
    def scaled(result):
        result["capacity_mib"] = factor * result.capacity_mib
        return result

    agrees = verdicts_of(results, "sft-fig6", "exceeds", scaled)
    for claim, agreed in agrees.items():
        assert agreed == (paper if "formula" in claim else exact)


def test_rows_of_table_iii(results):
    of = results["sft-table3"]
    exact = of.memory_mib.sel(source="exact")
    assert float(exact.sel(scheme="SFT", row="input")) == pytest.approx(36.75, abs=0.005)
    for scheme, printed in (("FL full", 327.88), ("FL-LoRA", 337.03), ("SFT", 141.19)):
        ours = float(of.weights_as_printed_mib.sel(scheme=scheme))
        assert ours == pytest.approx(printed, abs=0.01)
    assert float(exact.sel(scheme="FL full", row="model + LoRA")) == pytest.approx(
        327.88, abs=0.005
    )
    total = sft_table3.total_mib(of).sel(source="printed")
    for scheme, printed in sft_table3.PRINTED_TOTAL_MIB.items():
        assert float(total.sel(scheme=scheme)) == pytest.approx(printed, abs=0.011)
    assert set(verdicts_of(results, "sft-table3", "follow by counting").values()) == {"yes"}


def test_table_iii_can_disagree(results):
    def without_activations(result):
        result.memory_mib.loc[{"row": "activation", "source": ["paper", "exact"]}] = 0
        return result

    def other_weights(result):
        result["weights_as_printed_mib"] = result.weights_as_printed_mib + 0.02
        return result

    name = "sft-table3"
    assert set(verdicts_of(results, name, "58.2 %").values()) == {"yes"}
    assert "no" in verdicts_of(results, name, "58.2 %", without_activations).values()
    little = verdicts_of(results, name, "LoRA does not")
    assert set(little.values()) == {"yes"}
    assert "no" in verdicts_of(results, name, "LoRA does not", without_activations).values()
    shares = verdicts_of(results, name, "significant portion", without_activations)
    assert set(shares.values()) == {"no"}
    rows = verdicts_of(results, name, "model + LoRA", other_weights)
    assert set(rows.values()) == {"no"}


# -- traffic ---------------------------------------------------------------------------------------


def test_traffic_is_that_by_hand(results):
    of = results["sft-fig8"]
    epoch_gb = 2 * 50_000 * 197 * 768 * 4 / 1e9
    assert float(of.epoch_gb) == pytest.approx(epoch_gb)
    half = 4 * int(sft_setting.VIT.device_parameters(5)) / 1e9
    adapters = 4 * 5 * 18 * 768 * 16 / 1e9
    total = 20 * epoch_gb + 8 * (half + 40 * adapters)
    for scheme in ("SL", "SFT uncompressed"):
        np.testing.assert_allclose(of.traffic_gb.sel(scheme=scheme), total, rtol=1e-5)
    printed = of.traffic_gb.sel(scheme=sft_fig8.SFT_PAPER).values
    np.testing.assert_allclose(printed, total - 20 * epoch_gb * (1 - 1 / 14.75), rtol=1e-5)
    beta = 1 / of.factor.sel(stage=sft_fig8.LOSSLESS, law="Gaussian").values
    ours = of.traffic_gb.sel(scheme="SFT").values
    np.testing.assert_allclose(ours, total - 20 * epoch_gb * (1 - beta), rtol=1e-4)


def test_stages_are_those_of_the_accounting(results):
    """SPEC 2.2: 4.3, 17.8, then 25, 21 and 30."""
    factor = results["sft-fig8"].factor.mean("seed")
    n, kept = 197 * 768, 30259
    np.testing.assert_allclose(
        factor.sel(stage=sft_fig8.TOP_K), 32 * n / (n + 32 * kept), rtol=1e-6
    )
    np.testing.assert_allclose(
        factor.sel(stage=sft_fig8.QUANTIZED), 32 * n / (n + 4 * kept + 64), rtol=1e-6
    )
    lossless = factor.sel(stage=sft_fig8.LOSSLESS)
    for law, printed in (("Gaussian", 25), ("uniform", 21), ("heavy-tailed", 31)):
        assert float(lossless.sel(law=law)) == pytest.approx(printed, rel=0.06)


def test_compression_can_agree_and_disagree(results):
    def printed(result):
        result["factor"] = 0 * result.factor + 14.75
        result.factor.loc[{"stage": sft_fig8.QUANTIZED}] = 12
        return result

    name = "sft-fig8"
    for words, ours, changed in (
        ("top-K and 3 bits", {"no"}, {"yes"}),
        ("are left", {"no"}, {"yes"}),
        ("lossless code 20", {"yes", "no", "undecided"}, {"no"}),
    ):
        assert set(verdicts_of(results, name, words).values()) <= ours
        assert set(verdicts_of(results, name, words, printed).values()) == changed
    [uniform] = verdicts_of(results, name, "lossless code 20 times (uniform)").values()
    assert uniform == "yes"


def test_traffic_can_agree_and_disagree(results):
    def fewer_rounds_of_sl(result):
        result.traffic_gb.loc[{"scheme": "SL"}] = 144.76
        result.traffic_gb.loc[{"scheme": ["SFT", sft_fig8.SFT_PAPER]}] = 144.76 / 6.7
        result.traffic_gb.loc[{"scheme": "SFT uncompressed"}] = 144.76 / 6.7 * 14.75
        return result

    for words, paper_beta in (
        ("144.76 GB", "no"),
        ("SL sends 6.7", "no"),
        ("14.75 times as much", "yes"),
        ("93.6 % less", "yes"),
    ):
        ours = verdicts_of(results, "sft-fig8", words)
        assert [ours[claim] for claim in ours if "β of Gaussian" not in claim] == [paper_beta]
        changed = verdicts_of(results, "sft-fig8", words, fewer_rounds_of_sl)
        assert set(changed.values()) == {"yes"}


# -- delay -----------------------------------------------------------------------------------------


def test_a_draw_is_the_costs_of_that_draw(results):
    hz, spread = 5e6, 6.0
    drawn = results["sft-fig9"].sel(bandwidth=hz, spread=spread, seed=1)
    clock_key, snr_key, _ = jax.random.split(jax.random.split(jax.random.key(0), 2)[1], 3)
    snr_db = 17 + spread * np.asarray(jax.random.uniform(snr_key, (8,), minval=-1.0), float)
    link = RadioLink(hz, np.log2(1 + 10 ** (snr_db / 10)), np.log2(1 + 10**1.7))
    devices = sft_setting.devices_with(sft_setting.draw_clocks(clock_key))
    loads = sft_setting.scheme_loads(1 / 14.75)
    whole_s = drawn.delay_s
    for split, scheme in (("equal split", "SFT"), (sft_fig9.PLAIN_EQUAL, "SFT uncompressed")):
        phases = round_phases(loads[scheme], devices, sft_setting.SERVER, link, hz / 8)
        delay_s = float(round_delay(phases))
        assert float(whole_s.sel(split=split)) == pytest.approx(delay_s, rel=1e-5)
    assert float(drawn.fixed_s) < float(whole_s.sel(split="proposed"))
    assert whole_s.idxmin("split") == "proposed"


def test_the_best_split_saves_little_with_equal_snrs():
    """SPEC 2.6's draw: 11 to 14 % of the round."""
    clocks = jnp.asarray(np.random.default_rng(0).uniform(0.5e9, 1.5e9, 8), jnp.float32)
    efficiency = sft_setting.spectral_efficiency(17.0)
    load = sft_setting.scheme_loads(sft_setting.PAPER_BETA)["SFT"]
    for hz in (5e6, 30e6):
        link = RadioLink(hz, efficiency, efficiency)
        terms = min_max_terms(load, sft_setting.devices_with(clocks), sft_setting.SERVER, link)
        equal_s = float(jnp.max(terms.fixed_s + terms.work_hz_s * 8 / hz))
        best_s = float(min_max_bandwidth(*terms, hz).delay_s)
        assert 0.10 < 1 - best_s / equal_s < 0.15


@pytest.fixture(scope="module")
def many_draws():
    """Fig. 9 of as many draws as its decisions need."""
    figure = sft_fig9.FIGURE
    return {figure.name: figure.run(figure.scales["laptop"], 200, lambda *report: None)}


def test_delays_are_decided(many_draws):
    shortest = verdicts_of(many_draws, "sft-fig9", "shortest")
    assert list(shortest.values()) == ["yes"] * 4
    for claim, agreed in verdicts_of(many_draws, "sft-fig9", "53.1 %").items():
        assert agreed == ("no" if "equal split, SNR" in claim else "yes")


def test_delays_can_disagree(many_draws):
    def slower_at_one_bandwidth(result):
        result.delay_s.loc[{"split": "proposed", "bandwidth": 30e6}] *= 100
        return result

    def less_communication(result):
        equal_s = result.delay_s.sel(split="equal split") - result.fixed_s
        result.delay_s.loc[{"split": "proposed"}] = result.fixed_s + 0.4 * equal_s
        return result

    name = "sft-fig9"
    slower = verdicts_of(many_draws, name, "bandwidth (equal", slower_at_one_bandwidth)
    assert set(slower.values()) == {"no"}
    saves = verdicts_of(many_draws, name, "over equal split, SNR", less_communication)
    assert set(saves.values()) == {"yes"}


def test_scales_that_do_not_differ_are_one():
    for module in MODULES:
        laptop, paper = (module.FIGURE.scales[name] for name in ("laptop", "paper"))
        assert (laptop is paper) == (module is not sft_fig8)
