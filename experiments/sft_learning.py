"""What SFT's learning figures share: the options of their runs, and what they read off results."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import xarray as xr

from jaxsplit.commands.fine_tune import FineTuneConfig
from jaxsplit.results import Interval, mean_interval

from .figure import Finding, Siblings

#: SFT's final accuracy may be this much below the uncompressed one's (SFT §VIII-B3).
ALLOWED_LOSS = 0.02

LAPTOP = FineTuneConfig(
    model="vit-small-tin32",
    data="cifar10",
    scheme="sft",
    cut=3,
    policies=("all_in",),
    channel="fixed_snr",
    bandwidth_hz=30e6,
    devices=8,
    devices_per_step=8,
    batch_size=8,
    local_steps=16,  # with fewer, adapters would be most of the compressed traffic
    rounds=8,
    evaluate_every=2,
    max_test=1000,
    optimizer="momentum",
    adapter_learning_rate=0.1,
    head_learning_rate=0.1,
    learning_rate_schedule="exponential",
)
#: Table II; an epoch of CIFAR-100 per round is ceil(6250 / 64) local steps.
PAPER = dataclasses.replace(
    LAPTOP,
    model="google/vit-base-patch16-224",
    image_size=224,
    cut=5,
    max_test=None,
    batch_size=64,
    local_steps=98,
    rounds=20,
    evaluate_every=1,
    adapter_learning_rate=1e-4,
    head_learning_rate=1e-4,
    lora_rank=16,
    lora_alpha=32.0,
)


def traffic_bits(of: xr.Dataset) -> xr.DataArray:
    """Bits of all rounds and devices, both ways; what is broadcast counts for every device."""
    return (of.sent_up_bits + of.sent_down_bits).sum(("round", "device"))


def paired(first: xr.DataArray, second: xr.DataArray) -> Interval:
    """First minus second, paired by seed."""
    return mean_interval((first - second).values)


def paired_ratio(first: xr.DataArray, second: xr.DataArray) -> Interval:
    """First over second, paired by seed: the geometric mean with its interval."""
    logarithms = mean_interval(np.log(first.values) - np.log(second.values))
    return Interval(*np.exp(logarithms).tolist())


def ratio_text(interval: Interval) -> str:
    """A ratio with its interval, if there is more than one seed."""
    mean, low, high = (f"{value:.3g}" for value in interval)
    return f"{mean}×" if np.isnan(interval.low) else f"{mean}× [{low}, {high}]"


def per_data(
    test: Callable[[xr.Dataset], Iterable[Finding]],
) -> Callable[[xr.Dataset, Siblings], Iterator[Finding]]:
    """A test of one data set's runs as a test of all data sets."""

    def test_all(result: xr.Dataset, siblings: Siblings) -> Iterator[Finding]:
        for index in range(result.sizes["data"]):
            of = result.isel(data=index)
            name = str(of["data"].values)
            for found in test(of):
                yield found._replace(of=f"{name}; {found.of}" if found.of else name)

    return test_all


def missing(of: xr.Dataset, **labels: object) -> Finding:
    """What to say where a run that a claim is about was not made."""
    wanted = ", ".join(f"{name} {value}" for name, value in labels.items())
    there = {name: sorted(set(of[name].values.tolist())) for name in labels}
    return Finding("not run", "undecided", f"the runs lack {wanted}; there are {there}")
