"""Statistics and files."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from jaxsplit.commands.report import paired_difference, rounds_above
from jaxsplit.files import atomic_path
from jaxsplit.results import mean_interval, save


def test_interval_is_student_t():
    samples = [0.3, 0.7, 0.4, 0.9, 0.55]
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(samples), scipy.stats.sem(samples))
    np.testing.assert_allclose(mean_interval(samples), (np.mean(samples), low, high))
    single = mean_interval([0.5])
    assert single.mean == 0.5
    assert np.isnan(single.low)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        interval = mean_interval(rng.normal(1.0, 2.0, 5))
        hits += interval.low <= 1.0 <= interval.high
    assert abs(hits / 2000 - 0.95) < 0.02


def comparison(difference):
    """Two policies over three seeds whose accuracies differ by a constant plus noise."""
    base = np.array([[0.2, 0.5], [0.3, 0.6], [0.1, 0.7]])
    noise = np.array([[0.0, 0.01], [0.01, 0.0], [-0.01, -0.01]])
    accuracy = np.stack([base, base + difference + noise])
    return xr.Dataset(
        {"accuracy": (("policy", "seed", "eval_round"), accuracy)},
        coords={"policy": ["a", "b"], "eval_round": [0, 10]},
        attrs={"metric": "accuracy"},
    )


def test_differences_are_paired_by_seed():
    difference = paired_difference(comparison(0.1), "b", "a")
    np.testing.assert_allclose(difference.mean, 0.1, atol=1e-12)
    assert difference.low > 0.05  # far tighter than the spread between seeds
    assert rounds_above(comparison(0.1), "b", "a") == [0, 10]
    assert rounds_above(comparison(-0.1), "b", "a") == []
    assert rounds_above(comparison(0.0), "b", "a") == []


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.nc"
    data = xr.Dataset({"x": ("round", np.arange(3.0), {"units": "s"})})
    save(data, path)
    with xr.open_dataset(path) as loaded:
        xr.testing.assert_identical(loaded.drop_attrs(), data.drop_attrs())
        assert loaded.x.units == "s"
    before = path.read_bytes()

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.nc"]
