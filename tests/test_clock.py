"""Clocks on whole runs: what was sent, and how long it took."""

import dataclasses

import numpy as np
import pytest

import jaxsplit
from jaxsplit import compression
from jaxsplit.clock import PhaseParams, phase_clock, transmission_clock
from jaxsplit.costs import Phases, Processor
from jaxsplit.data import Dataset
from jaxsplit.federated import fl_lora, sft, sl, work
from jaxsplit.models import LoraConfig
from jaxsplit.network import Network, NetworkParams
from jaxsplit.scheduling import all_in, lyapunov
from jaxsplit.wireless import fixed_snr, rayleigh
from jaxsplit.wireless.fixed import FixedSnrParams

DEVICES, STEPS, BATCH = 6, 2, 4
OPTIONS = {
    "lora": LoraConfig(rank=2, targets=("query", "mlp_in")),
    "batch_size": BATCH,
    "local_steps": STEPS,
    "schedule": None,
}
CLOCKS = np.linspace(1e6, 2e6, DEVICES, dtype=np.float32)
PARAMS = PhaseParams(
    devices=Processor(CLOCKS, 1.0, 1.0), server=Processor(1e8, 1.0, 1.0), cap_hz=np.inf
)


@pytest.fixture
def model(model):
    """With a large ε: of a token without any kept entry LayerNorm's slope is 1/√ε."""
    return model.clone(layer_norm_eps=0.1)


@pytest.fixture
def dataset(world):
    return Dataset(
        np.asarray(world.inputs),
        np.asarray(world.labels),
        np.asarray(world.test_inputs),
        np.asarray(world.test_labels),
        3,
    )


def run(scheme, dataset, world, *, clock=None, params=None, scheduler=None, seeds=(0,)):
    network = Network(DEVICES, fixed_snr(), scheduler or all_in())
    numbers = NetworkParams(
        channel=FixedSnrParams(bandwidth_hz=1e6), scheduler=(), bandwidth_hz=1e6
    )
    return jaxsplit.run(
        seeds,
        network,
        scheme,
        world.backbone,
        dataset,
        num_rounds=4,
        network_params=numbers,
        evaluate_every=2,
        clock=clock or phase_clock(),
        clock_params=PARAMS if params is None else params,
    ).isel(seed=0)


def test_phases_of_a_compressed_round(model, dataset, world):
    """Every phase by hand, from the counted bits."""
    scheme = sft(model, 3, cut=1, **OPTIONS)
    result = run(scheme, dataset, world, clock=phase_clock("equal"))
    phase = dict(zip(result.phase.values, result.phase_s.values, strict=True))
    flop, rate = work(scheme, world), 1e6 / DEVICES * np.log2(1 + 10**1.7)
    ones = np.ones((4, DEVICES))
    np.testing.assert_allclose(
        phase["device_forward"], STEPS * flop.device_forward_flop / CLOCKS * ones, rtol=1e-5
    )
    np.testing.assert_allclose(
        phase["device_backward"], STEPS * flop.device_backward_flop / CLOCKS * ones, rtol=1e-5
    )
    jobs = phase["server"] + phase["server_wait"]
    np.testing.assert_allclose(jobs, STEPS * DEVICES * flop.server_flop / 1e8 * ones, rtol=1e-5)
    adapters = 32 * 2 * ((8 + 8) + (8 + 16))
    np.testing.assert_allclose(phase["adapter"], adapters / rate * ones, rtol=1e-5)
    np.testing.assert_allclose(phase["activation"], (result.sent_up_bits - adapters) / rate, 1e-5)
    np.testing.assert_allclose(phase["gradient"], (result.sent_down_bits - adapters) / rate, 1e-5)
    whole = 1e6 * np.log2(1 + 10**1.7)
    first = np.where(np.arange(4)[:, None] == 0, flop.backbone_bits, 0)
    np.testing.assert_allclose(phase["distribution"], (adapters + first) / whole * ones, rtol=1e-5)
    np.testing.assert_allclose(result.delay_s, sum(phase.values()).max(axis=-1), rtol=1e-5)
    assert list(result.phase.values) == [name.removesuffix("_s") for name in Phases._fields]
    assert result.sent_up_bits.dtype == np.int64


def test_the_best_split_is_faster_than_the_others(model, dataset, world):
    scheme = sft(model, 3, cut=1, **OPTIONS)
    delay = {
        name: run(scheme, dataset, world, clock=phase_clock(name)).delay_s.values
        for name in ("min_max", "sqp", "equal", "random", "scheduled")
    }
    np.testing.assert_allclose(delay["sqp"], delay["min_max"], rtol=1e-4)
    for name in ("equal", "random", "scheduled"):
        assert (delay["min_max"] <= delay[name] * (1 + 1e-5)).all()
    assert (delay["min_max"] < 0.999 * delay["random"]).all()


def test_devices_in_turn_take_the_sum(model, dataset, world):
    result = run(sl(model, 3, cut=1, **OPTIONS), dataset, world)
    of_devices = result.phase_s.sum("phase")
    np.testing.assert_allclose(result.delay_s, of_devices.sum("device"), rtol=1e-5)
    assert (result.phase_s.sel(phase="server_wait") == 0).all()


def test_federated_learning_sends_only_weights(model, dataset, world):
    result = run(fl_lora(model, 3, **OPTIONS), dataset, world)
    for name in ("activation", "gradient", "server", "server_wait"):
        assert (result.phase_s.sel(phase=name) == 0).all()
    assert (result.sent_up_bits == 32 * (2 * 2 * ((8 + 8) + (8 + 16)) + 27)).all()


def test_compression_shortens_the_round(model, dataset, world):
    compressed = run(sft(model, 3, cut=1, **OPTIONS), dataset, world)
    plain = run(sft(model, 3, cut=1, codec=compression.identity(), **OPTIONS), dataset, world)
    assert (compressed.delay_s < plain.delay_s).all()
    assert (compressed.sent_up_bits < plain.sent_up_bits).all()


def test_caps_that_do_not_suffice_are_told(model, dataset, world):
    with pytest.raises(jaxsplit.NonFiniteError, match="caps do not suffice"):
        run(
            sft(model, 3, cut=1, **OPTIONS),
            dataset,
            world,
            params=PARAMS._replace(cap_hz=1e6 / DEVICES / 2),
        )


def test_lyapunov_with_sfts_compression(model, dataset, world):
    """The first paper's scheduler on the second one's link, by FedFT's clock."""
    network = Network(DEVICES, rayleigh(), lyapunov(objective="bound"))
    scheme = sft(model, 3, cut=1, **OPTIONS)
    params = network.default_params()._replace(delay_budget=3e-9)
    result = jaxsplit.run(
        [0], network, scheme, world.backbone, dataset, num_rounds=20, network_params=params,
        evaluate_every=10, clock=transmission_clock(),
    ).isel(seed=0)  # fmt: skip
    assert 0 < result.num_scheduled.mean() < DEVICES
    assert ((result.sent_up_bits > 0) == result.scheduled).all()
    np.testing.assert_allclose(result.delay_s, (result.uplink_s + result.downlink_s).max("device"))


def test_a_wrong_count_of_bits_is_found(model, dataset, world):
    """A codec that charges one bit less than its stream has does not get through a run."""
    honest = compression.compressed()

    def transmit(key, x, params):
        x_hat, bits = honest.transmit(key, x, params)
        return x_hat, bits - 1

    scheme = dataclasses.replace(
        sft(model, 3, cut=1, **OPTIONS), codec=honest._replace(transmit=transmit)
    )
    with pytest.raises(RuntimeError, match="counted"):
        run(scheme, dataset, world)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: phase_clock("best"), "allocation='best'"),
        (lambda: transmission_clock("both"), "duplex='both'"),
    ],
)
def test_wrong_choices_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
