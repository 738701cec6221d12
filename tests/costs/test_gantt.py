"""The chart shows what the phases say."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplit.costs import Phases, Processor, RadioLink, RoundLoad, round_delay, round_phases
from jaxsplit.gantt import gantt_figure


def make_phases(order="parallel", participants=None, seconds=1.0):
    load = RoundLoad(
        local_steps=np.array([2.0, 2.0, 1.0], np.float32),
        activation_bits=4e6 * seconds,
        gradient_bits=3e6 * seconds,
        distribution_bits=1e6,
        adapter_bits=2e6,
        device_forward_flop=1e9,
        device_backward_flop=2e9,
        server_flop=1e9,
    )
    devices = Processor(np.array([1e9, 0.5e9, 1e9], np.float32), 1, 1)
    link = RadioLink(3e6, 4.0, 4.0)
    return round_phases(load, devices, Processor(2e9, 1, 1), link, 1e6, participants, order)


def bars_of(figure, row):
    """(start, end) of a row's bars, in the order of time."""
    boxes = [patch.get_bbox() for patch in figure.axes[0].patches]
    inside = [box for box in boxes if box.y0 < row < box.y1]
    return np.array(sorted((box.x0, box.x1) for box in inside))


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_bars_are_the_phases(order):
    phases = make_phases(order)
    figure = gantt_figure(phases, order)
    start = 0.0
    for row in range(3):
        bars = bars_of(figure, row)
        np.testing.assert_allclose(bars[1:, 0], bars[:-1, 1], rtol=1e-6)  # without gap
        total = float(phases.total_s[row])
        np.testing.assert_allclose(bars[0, 0], start, atol=1e-6)
        np.testing.assert_allclose(bars[-1, 1] - bars[0, 0], total, rtol=1e-6)
        start += total if order == "sequential" else 0
    round_s = float(round_delay(phases, order))
    assert f"round: {round_s:.3g} s" in [text.get_text() for text in figure.axes[0].texts]
    assert figure.axes[0].get_xlabel() == "time, s"


def test_the_slowest_is_marked_and_absent_devices_are_left_out():
    phases = make_phases(participants=jnp.array([False, True, True]))
    figure = gantt_figure(phases, device_labels=["a", "b", "c"], title="round 3")
    ticks = figure.axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["b", "c"]
    assert [tick.get_fontweight() for tick in ticks] == ["bold", "normal"]


def test_long_rounds_are_in_minutes():
    figure = gantt_figure(make_phases(seconds=1000.0))
    assert figure.axes[0].get_xlabel() == "time, min"


def test_legend_names_what_is_there():
    zero, one = np.zeros(2), np.ones(2)
    figure = gantt_figure(Phases(one, one, zero, zero, zero, zero, one, one))
    (legend,) = figure.legends
    shown = [text.get_text()[:2] for text in legend.get_texts()]
    assert shown == ["ED", "CC", "DU", "LT"]


def test_errors():
    phases = make_phases()
    with pytest.raises(ValueError, match="2 device_labels for 3 devices"):
        gantt_figure(phases, device_labels=["a", "b"])
    with pytest.raises(ValueError, match="no device with anything to do"):
        gantt_figure(Phases(*[np.zeros(2)] * 8))
    with pytest.raises(ValueError, match="order='random' is unknown"):
        gantt_figure(phases, "random")
