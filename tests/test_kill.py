"""SIGKILL at random moments: what is resumed ends with the bits of what was left alone."""

import multiprocessing
import random
import signal
import time

import pytest
import xarray as xr
from killed_run import ROUNDS, fine_tune

KILLS = 10


@pytest.fixture(scope="module")
def processes():
    """A server that has imported everything once, and JAX has not yet started a thread there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run"])
    return context


def begin(processes, out, cache):
    watcher, told = processes.Pipe(duplex=False)
    process = processes.Process(target=fine_tune, args=(out, cache, told))
    process.start()
    told.close()
    return process, watcher


def rounds_until_the_end(watcher):
    rounds = []
    while True:
        try:
            rounds.append(watcher.recv())
        except EOFError:
            return rounds


@pytest.mark.slow
def test_ten_kills_do_not_change_a_bit(processes, tmp_path):
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    whole.mkdir()
    killed.mkdir()
    process, watcher = begin(processes, whole, cache)
    assert rounds_until_the_end(watcher) == list(range(0, ROUNDS + 1, 2))
    process.join()
    assert process.exitcode == 0

    rng, first_rounds = random.Random(0), []
    for _ in range(KILLS):
        process, watcher = begin(processes, killed, cache)
        first_rounds.append(watcher.recv())
        time.sleep(rng.uniform(0, 0.4))  # seconds, in which it trains, evaluates and writes
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert first_rounds == sorted(first_rounds)
    assert 0 < first_rounds[-1] < ROUNDS  # there was something to go on from, and something left
    process, watcher = begin(processes, killed, cache)
    rounds = rounds_until_the_end(watcher)
    process.join()
    assert process.exitcode == 0
    assert rounds[0] >= first_rounds[-1]
    assert rounds[-1] == ROUNDS

    xr.testing.assert_identical(*(xr.load_dataset(p / "result.nc") for p in (whole, killed)))
    left, right = ((p / "weights.safetensors").read_bytes() for p in (whole, killed))
    assert left == right
