"""Partitioners: what all of them keep, and what each of them promises."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsplit.data import (
    PARTITIONERS,
    dirichlet,
    from_file,
    from_indices,
    iid,
    partitioner_named,
    power_law,
    shards,
)
from jaxsplit.data.partition.counts import largest_remainder, raised_to
from jaxsplit.data.partition.label_shares import dirichlet_shares

ALL = {
    "iid": iid,
    "dirichlet": dirichlet(),
    "dirichlet, all on one": dirichlet(1e-8),
    "dirichlet, least": dirichlet(5e-324),
    "dirichlet, even": dirichlet(1.7e308),
    "shards": shards(2),
    "power_law": power_law(1.2),
    "power_law, none": power_law(0.0),
    "power_law, all on one": power_law(1e308),
}
LABELS = np.arange(1000) % 10


def rows(partition):
    return [row[:size] for row, size in zip(partition.indices, partition.sizes, strict=True)]


def label_counts(partition, labels, num_labels=10):
    """Samples of each label on each device, shape [K, N]."""
    return np.array([np.bincount(labels[row], minlength=num_labels) for row in rows(partition)]).T


def same(one, other):
    return np.array_equal(one.indices, other.indices) and np.array_equal(one.sizes, other.sizes)


@pytest.mark.parametrize("partitioner", ALL.values(), ids=ALL)
def test_each_sample_is_on_one_device(partitioner):
    partition = partitioner(3, LABELS, 20)
    assert sorted(np.concatenate(rows(partition))) == list(range(1000))
    assert partition.indices.dtype == partition.sizes.dtype == np.int32
    assert partition.indices.shape == (20, partition.sizes.max())
    assert partition.sizes.min() >= 1


@pytest.mark.parametrize("partitioner", ALL.values(), ids=ALL)
def test_a_seed_decides_the_partition(partitioner):
    assert same(partitioner(3, LABELS, 20), partitioner(3, LABELS, 20))
    assert not same(partitioner(3, LABELS, 20), partitioner(4, LABELS, 20))


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    log_alpha=st.floats(-300, 300),
    exponent=st.floats(0, 1e3),
    data=st.data(),
)
def test_any_choice_gives_a_valid_partition(seed, labels, log_alpha, exponent, data):
    num_devices = data.draw(st.integers(1, len(labels)))
    min_size = data.draw(st.integers(1, len(labels) // num_devices))
    for partitioner in (dirichlet(10**log_alpha, min_size), power_law(exponent, min_size)):
        partition = partitioner(seed, np.array(labels), num_devices)
        assert sorted(np.concatenate(rows(partition))) == list(range(len(labels)))
        assert partition.sizes.min() >= min_size


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array),
    num_devices=st.integers(1, 12),
    labels_per_device=st.integers(1, 4),
)
def test_shards_give_exactly_s_labels_or_say_why_not(seed, labels, num_devices, labels_per_device):
    classes, counts = np.unique(labels, return_counts=True)
    num_shards = num_devices * labels_per_device
    fits = len(classes) <= num_shards <= np.minimum(counts, num_devices).sum()
    if not fits:
        with pytest.raises(ValueError, match="choose"):
            shards(labels_per_device)(seed, labels, num_devices)
        return
    partition = shards(labels_per_device)(seed, labels, num_devices)
    assert sorted(np.concatenate(rows(partition))) == list(range(len(labels)))
    assert all(len(set(labels[row])) == labels_per_device for row in rows(partition))


def test_iid_draws_what_it_always_drew():
    shuffled = np.random.default_rng(7).permutation(1000)
    for row, part in zip(rows(iid(7, LABELS, 7)), np.array_split(shuffled, 7), strict=True):
        np.testing.assert_array_equal(row, part)


# The Dirichlet distribution


@pytest.mark.parametrize("alpha", [0.03, 0.5, 1.0, 7.0])
def test_shares_have_the_moments_of_the_dirichlet_distribution(alpha):
    """Mean 1/N and variance (1/N)(1 − 1/N)/(Nα + 1), through the whole partitioner."""
    num_devices, num_seeds = 5, 400
    labels = np.arange(4000) % 2
    shares = np.array(
        [
            label_counts(dirichlet(alpha)(seed, labels, num_devices), labels, 2) / 2000
            for seed in range(num_seeds)
        ]
    )
    variance = (1 / num_devices) * (1 - 1 / num_devices) / (num_devices * alpha + 1)
    error = 5 * np.sqrt(variance / (2 * num_seeds))  # two labels for each seed
    assert np.all(np.abs(shares.mean((0, 1)) - 1 / num_devices) < error)
    assert shares.var() == pytest.approx(variance, rel=0.12)


def test_shares_follow_the_reference_in_distribution():
    """Beside NumPy's sampler, where that one works: equal quantiles."""
    ours = dirichlet_shares(np.random.default_rng(0), 0.5, 40_000, 4)[:, 0]
    numpys = np.random.default_rng(1).dirichlet(np.full(4, 0.5), 40_000)[:, 0]
    at = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(ours, at), np.quantile(numpys, at), atol=0.012)


@pytest.mark.parametrize("alpha", [1e-3, 1e-8, 1e-300, 5e-324])
def test_at_small_alpha_one_device_has_all_of_a_label(alpha):
    """Each device equally often. The quotient of Gamma variates would be 0/0 here."""
    shares = dirichlet_shares(np.random.default_rng(0), alpha, 4000, 4)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert np.mean(shares.max(1) > 0.99) > 0.95
    assert np.all(np.abs(shares.mean(0) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000))


def test_a_small_alpha_ends_with_the_least_size():
    """Ten labels cannot fill a hundred devices by themselves, however often they are drawn."""
    partition = dirichlet(1e-8, min_size=3)(0, LABELS, 100)
    assert partition.sizes.min() == 3
    # What was moved is what lacked: all other samples are where the draw had put them.
    assert (partition.sizes == 3).sum() >= 90


@pytest.mark.parametrize("alpha", [1e8, 1e300, 1.7e308])
def test_a_large_alpha_is_iid(alpha):
    counts = label_counts(dirichlet(alpha)(0, LABELS, 20), LABELS)
    assert set(np.unique(counts)) == {5}
    uneven = label_counts(dirichlet(alpha)(0, LABELS, 30), LABELS)
    assert set(np.unique(uneven)) == {3, 4}
    # What is left over goes to random devices, not to the first ones for every label.
    assert uneven.sum(0).std() < 2


# The least size


@settings(max_examples=300, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30), data=st.data())
def test_filling_up_takes_from_the_largest_one_by_one(sizes, data):
    min_size = data.draw(st.integers(0, sum(sizes) // len(sizes)))
    slow = sorted(sizes)
    while slow[0] < min_size:
        slow[0] += 1
        slow[-1] -= 1
        slow.sort()
    fast = raised_to(min_size, np.array(sizes))
    assert sorted(fast.tolist()) == slow
    lack = np.maximum(min_size - np.array(sizes), 0)
    assert np.abs(fast - sizes).sum() == 2 * lack.sum()  # nothing else moved


def test_few_samples_move():
    """A least size changes the places of as many samples as lacked, and of no others."""
    free, full = (dirichlet(0.1, min_size)(5, LABELS, 10) for min_size in (1, 40))
    assert free.sizes.min() >= 1
    lack = np.maximum(40 - free.sizes, 0).sum()
    stayed = sum(len(np.intersect1d(a, b)) for a, b in zip(rows(free), rows(full), strict=True))
    assert 0 < lack == 1000 - stayed


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 10**6))
def test_rounded_shares_add_up(weights, total):
    share = np.array(weights) + 1e-3
    share /= share.sum()
    counts = largest_remainder(np.random.default_rng(0), np.array([total]), share[None])
    assert counts.sum() == total
    assert np.all(np.abs(counts - share * total) < 1 + 1e-6)


# Shards and power law


def test_shards_share_balanced_labels_out_evenly():
    partition = shards(2)(0, LABELS, 20)
    counts = label_counts(partition, LABELS)
    assert set(np.unique(counts)) == {0, 25}
    assert np.all(partition.sizes == 50)
    pairs = {tuple(np.flatnonzero(column)) for column in counts.T}
    assert len(pairs) > 10  # random, not one fixed pairing


def test_a_label_of_most_samples_is_on_every_device_at_most_once():
    labels = np.repeat([0, 1, 2], [900, 60, 40])
    counts = label_counts(shards(2)(0, labels, 10), labels, 3)
    np.testing.assert_array_equal((counts > 0).sum(0), 2)
    np.testing.assert_array_equal(counts[0], 90)


def test_power_law_sizes_fall_with_the_rank():
    partition = power_law(1.2)(0, np.zeros(100_000), 50)
    sizes = np.sort(partition.sizes)[::-1]
    slope = np.polyfit(np.log(np.arange(1, 51)), np.log(sizes), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.01)
    assert np.argmax(power_law(1.2)(1, np.zeros(100_000), 50).sizes) != np.argmax(partition.sizes)


def test_a_power_law_leaves_labels_iid():
    labels = np.arange(100_000) % 4
    counts = label_counts(power_law(1.0)(0, labels, 10), labels, 4)
    np.testing.assert_allclose(counts / counts.sum(0), 0.25, atol=0.03)


# Real labels


@pytest.mark.parametrize("partitioner", [dirichlet(), shards(2)])
def test_real_labels_have_no_classes(partitioner):
    with pytest.raises(ValueError, match="choose iid or power_law, or give bins=10") as caught:
        partitioner(0, np.linspace(0, 5, 100), 10)
    assert "\n" not in str(caught.value)


def test_real_labels_are_cut_at_quantiles():
    similarity = np.random.default_rng(0).exponential(size=1000)
    partition = shards(1, bins=5)(0, similarity, 5)
    assert sorted(partition.sizes) == [200] * 5
    spans = sorted((similarity[row].min(), similarity[row].max()) for row in rows(partition))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert dirichlet(0.3, bins=10)(0, similarity, 10).sizes.sum() == 1000


# What is given


def test_given_indices_are_taken_as_they_are():
    given_rows = [[5, 1, 2], np.array([0], np.uint8), (9,)]
    partition = from_indices(given_rows)(123, np.zeros(10), 3)
    assert [row.tolist() for row in rows(partition)] == [[5, 1, 2], [0], [9]]
    overlap = from_indices([[1, 1], [1]], allow_overlap=True)(0, np.zeros(2), 2)
    assert overlap.sizes.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "give the sample indices of at least one device"),
        ([[0], []], "device 1 has no samples"),
        ([[0], [1.5]], "device 1 has indices of type float64"),
        ([[0], [True]], "device 1 has indices of type bool"),
        ([[0], [[1]]], "device 1 has shape (1, 1)"),
        ([[0], [3, -2]], "device 1 holds sample -2; count from 0 on"),
        ([[0, 4], [3, 4]], "sample 4 is on device 0 and again on device 1"),
        ([[0, 0], [3, 4]], "sample 0 is on device 0 and again on device 0"),
    ],
)
def test_wrong_indices_are_named(indices, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_indices(indices)


def test_given_indices_must_fit_the_run():
    with pytest.raises(
        ValueError, match="device 1 holds sample 7; the data set has samples 0 to 5"
    ):
        from_indices([[0], [7]])(0, np.zeros(6), 2)
    with pytest.raises(ValueError, match="num_devices=3: the given partition has 2 devices"):
        from_indices([[0], [7]])(0, np.zeros(10), 3)


def test_a_file_gives_a_partition_back(tmp_path):
    path = tmp_path / "partition.npz"
    partition = dirichlet(0.3)(0, LABELS, 20)
    np.savez(path, **partition._asdict())
    assert same(from_file(path)(1, LABELS, 20), partition)
    assert same(partitioner_named(f"file:{path}")(1, LABELS, 20), partition)
    for content in (b"", b"not a partition", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"give an \.npz file that holds indices and sizes"):
            from_file(path)


def test_a_partition_of_flwr_datasets_fits():
    pytest.importorskip("flwr_datasets", reason="flwr-datasets is not installed")
    from datasets import Dataset as Table
    from flwr_datasets.partitioner import DirichletPartitioner

    table = Table.from_dict({"index": np.arange(1000), "label": LABELS})
    theirs = DirichletPartitioner(num_partitions=8, partition_by="label", alpha=0.5)
    theirs.dataset = table
    indices = [theirs.load_partition(device)["index"] for device in range(8)]
    partition = from_indices([list(row) for row in indices])(0, LABELS, 8)
    assert sorted(np.concatenate(rows(partition))) == list(range(1000))
    for row, other in zip(rows(partition), indices, strict=True):
        np.testing.assert_array_equal(row, list(other))


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dirichlet(0.0), "alpha=0.0: choose a finite number above 0, say 0.5"),
        (lambda: dirichlet(float("nan")), "alpha=nan: choose a finite number above 0"),
        (lambda: dirichlet(float("inf")), "alpha=inf: choose a finite number above 0"),
        (lambda: dirichlet(0.5, min_size=0), "min_size=0: choose a whole number, 1 or more"),
        (lambda: dirichlet(0.5, min_size=1.5), "min_size=1.5: choose a whole number"),
        (lambda: dirichlet(0.5, bins=1), "bins=1: choose a whole number, 2 or more"),
        (lambda: shards(0), "labels_per_device=0: choose a whole number, 1 or more"),
        (lambda: power_law(-1.0), "exponent=-1.0: choose a finite number, 0 or more"),
        (lambda: power_law(float("inf")), "exponent=inf: choose a finite number, 0 or more"),
        (
            lambda: dirichlet(0.5, min_size=51)(0, LABELS, 20),
            "min_size=51: 20 devices would need 1020 of 1000 samples; choose 1 to 50, or at most "
            "19 devices",
        ),
        (lambda: power_law(1.0)(0, LABELS, 1001), "num_devices=1001: choose 1 to 1000"),
        (lambda: shards(11)(0, LABELS, 20), "choose 1 to 10, the number of labels"),
        (
            lambda: shards(2)(0, LABELS, 4),
            "4 devices hold 8 of 10 labels; choose 3 or more, or at least 5 devices",
        ),
        (lambda: shards(2)(0, LABELS, 501), "501 devices need 1002 shards"),
        (
            lambda: shards(1, min_size=9)(0, np.repeat([0, 1], [40, 8]), 5),
            "min_size=9: the smallest device has 8 samples of its 1 labels; choose 1 to 8",
        ),
    ],
)
def test_wrong_values_are_named_with_a_way_out(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


# Names


@pytest.mark.parametrize(
    ("text", "partitioner"),
    [
        ("iid", iid),
        ("dirichlet", dirichlet()),
        ("dirichlet:0.1", dirichlet(0.1)),
        ("dirichlet:0.1:min_size=5", dirichlet(0.1, min_size=5)),
        ("dirichlet:min_size=5:alpha=0.1", dirichlet(0.1, min_size=5)),
        ("shards:3", shards(3)),
        ("power_law:1.2", power_law(1.2)),
        ("power-law:1", power_law(1.0)),
    ],
)
def test_partitioners_have_names(text, partitioner):
    assert same(partitioner_named(text)(2, LABELS, 10), partitioner(2, LABELS, 10))


def test_every_name_works_alone():
    for name in PARTITIONERS:
        assert partitioner_named(name)(0, LABELS, 10).sizes.sum() == 1000


@pytest.mark.parametrize(
    "text",
    ["", "dirichlet:", "dirichlet:many", "dirichlet:0.5:0.6", "dirichlet:0.5:alpha=1", "iid:3",
     "shards:2.5", "zipf", "dirichlet:0.5:max_size=3", "file"],
)  # fmt: skip
def test_unknown_names_say_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"^give one of iid, dirichlet:ALPHA, shards:") as caught:
        partitioner_named(text)
    assert "\n" not in str(caught.value)


def test_wrong_numbers_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=re.escape("give dirichlet another value (alpha=-1.0: ")):
        partitioner_named("dirichlet:-1")
    with pytest.raises(ValueError, match="give a file that can be read"):
        partitioner_named(f"file:{tmp_path / 'none.npz'}")
