"""The rounds of several seeds: at once or in turn, watched, kept, stopped where they diverge."""

import re

import jax
import numpy as np
import pytest
import xarray as xr

import jaxsplit
from jaxsplit import simulate
from jaxsplit.checkpoint import Checkpointing
from jaxsplit.data import Dataset, iid
from jaxsplit.data.partition import Partition
from jaxsplit.federated import LearningParams
from jaxsplit.federated.chunk import run_chunk
from jaxsplit.observer import Observer, Observers
from jaxsplit.options import OptionError
from jaxsplit.scheduling import lyapunov
from jaxsplit.wireless import rayleigh

NETWORK = jaxsplit.Network(6, rayleigh(), lyapunov())
WALL_TIMES = ["compile_s", "run_s"]


class Notebook(Observer):
    """Writes everything down."""

    def __init__(self):
        self.events, self.samples, self.notes, self.states = [], 0, [], {}

    def noted(self, message):
        self.notes.append(message)

    def resumed(self, seed, rounds, samples):
        self.events.append(("resumed", seed, rounds, samples))

    def encoded(self, samples):
        self.samples += samples

    def trained(self, seed, first_round, metrics):
        (length,) = {len(values) for values in metrics.values()}
        self.events.append(("trained", seed, first_round, length))

    def evaluated(self, seed, rounds, metrics):
        self.events.append(("evaluated", seed, rounds, metrics["accuracy"]))

    def finished(self, seed, state):
        self.states[seed] = state


@pytest.fixture
def dataset(world):
    return Dataset(*(np.asarray(a) for a in (world.inputs, world.labels) * 2))


@pytest.fixture
def run(scheme, world, dataset):
    def run(seeds=(0, 1, 2), **options):
        options = {"num_rounds": 7, "evaluate_every": 3, "network": NETWORK} | options
        network = options.pop("network")
        return jaxsplit.run(seeds, network, scheme, world.backbone, dataset, **options)

    return run


def test_seeds_at_once_equal_seeds_in_turn(run):
    """Two programs, one with an axis of seeds; the last group is smaller."""
    before = run_chunk._cache_size()
    in_turn, at_once = run(), run(seeds_at_once=2)
    assert run_chunk._cache_size() <= before + 1
    for name in set(in_turn.data_vars) - set(WALL_TIMES):
        np.testing.assert_allclose(in_turn[name], at_once[name], rtol=2e-4, atol=1e-6, err_msg=name)
    assert at_once.seed.values.tolist() == [0, 1, 2]
    assert (at_once.run_s > 0).all()


def test_each_seed_has_its_own_numbers(run):
    """A grid of learning rates is one call, in one program if wished."""
    grid = [LearningParams(rate, 0.1) for rate in (0.0, 0.3, 0.0, 0.3)]
    seeds = (0, 0, 1, 1)
    before = run_chunk._cache_size()
    in_turn = run(seeds, learning_params=grid, seeds_at_once=1)
    assert run_chunk._cache_size() <= before + 1
    at_once = run(seeds, learning_params=grid, seeds_at_once=4)
    for k, numbers in enumerate(grid):
        alone = run(seeds[k : k + 1], learning_params=numbers)
        for name in set(alone.data_vars) - set(WALL_TIMES):
            of_k = in_turn.isel(seed=[k])
            np.testing.assert_array_equal(of_k[name], alone[name], err_msg=name)
            np.testing.assert_allclose(
                at_once[name].isel(seed=k), of_k[name][0], rtol=2e-4, atol=1e-6, err_msg=name
            )
    assert not np.array_equal(in_turn.loss[0], in_turn.loss[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_params": [LearningParams()] * 2}, "2 learning_params for 3 seeds: give one"),
        (
            {"learning_params": [LearningParams(), LearningParams(codec=()), LearningParams()]},
            "differ in what they hold: give all the same codec params",
        ),
    ],
)
def test_numbers_that_are_not_of_the_seeds_are_refused(run, options, words):
    with pytest.raises(ValueError, match=words):
        run(**options)


def test_a_seed_is_kept_once(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"seeds=\[0, 0\]: with checkpointing, give each seed once"
    ):
        run((0, 0), checkpointing=Checkpointing(tmp_path))
    assert not list(tmp_path.iterdir())


def test_partitions_of_other_lengths_do_not_retrace_or_change_a_seed(run):
    """Rows are padded to the longest of all seeds: same draws, one program."""

    def longer_with_the_seed(seed, labels, num_devices):
        indices, sizes = iid(seed, labels, num_devices)
        return Partition(indices[:, : 2 + seed], np.minimum(sizes, 2 + seed).astype(np.int32))

    run_chunk.clear_cache()
    together = run((0, 1, 2), partitioner=longer_with_the_seed)
    assert run_chunk._cache_size() == 1
    alone = run((0,), partitioner=longer_with_the_seed).isel(seed=0)
    np.testing.assert_array_equal(alone.loss, together.sel(seed=0).loss)


def test_an_observer_is_told_everything_in_order(run, scheme, world):
    notebook, mute = Notebook(), Observer()
    result = run((4,), observer=Observers([mute, notebook]), num_rounds=7)
    score = result.accuracy.isel(seed=0).values
    assert notebook.events == [
        ("trained", 4, 0, 0), ("evaluated", 4, 0, pytest.approx(score[0])),
        ("trained", 4, 0, 3), ("evaluated", 4, 3, pytest.approx(score[1])),
        ("trained", 4, 3, 3), ("evaluated", 4, 6, pytest.approx(score[2])),
        ("trained", 4, 6, 1), ("evaluated", 4, 7, pytest.approx(score[3])),
    ]  # fmt: skip
    (note,) = notebook.notes
    assert re.search(r"one seed after the other: rounds take .* of memory, .* are free", note)
    assert notebook.states[4].participation.sum() == result.num_scheduled.sum()
    # Groups of 4 devices, batches of 4, forward and backward; 4 evaluations of all test samples.
    groups = -(-result.num_scheduled.values // 4).sum()
    tests = 4 * len(world.labels)
    assert notebook.samples == 2 * groups * 4 * 4 + tests
    planned = simulate.planned_samples(
        (4,), NETWORK, scheme, len(world.labels), num_rounds=7, evaluate_every=3,
        network_params=NETWORK.default_params(),
    )  # fmt: skip
    assert planned == notebook.samples


def test_the_loss_of_each_device_is_kept(run):
    result = run()
    scheduled = result.scheduled.values
    assert np.isnan(result.device_loss.values[~scheduled]).all()
    assert np.isfinite(result.device_loss.values[scheduled]).all()
    np.testing.assert_allclose(result.device_loss.mean("device"), result.loss, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(run, at_once, tmp_path):
    """Stopped by an observer after each evaluation in turn."""

    class Stop(Notebook):
        def evaluated(self, seed, rounds, metrics):
            if seed == 1 or at_once == 1:
                raise KeyboardInterrupt

    options = {"seeds": (0, 1), "seeds_at_once": at_once}
    notebook = Notebook()
    whole = run(**options, observer=notebook).drop_vars(WALL_TIMES)
    checkpointing = Checkpointing(tmp_path, every_s=0, keep=1)
    for _ in range(8 // at_once):  # four evaluations of each seed
        with pytest.raises(KeyboardInterrupt):
            run(**options, observer=Stop(), checkpointing=checkpointing)
    last = Notebook()
    resumed = run(**options, observer=last, checkpointing=checkpointing)
    xr.testing.assert_identical(whole, resumed.drop_vars(WALL_TIMES))
    assert {event[:3] for event in last.events} == {("resumed", 0, 7), ("resumed", 1, 7)}
    assert sum(event[3] for event in last.events) == notebook.samples
    assert last.samples == 0
    for seed in (0, 1):
        jax.tree.map(np.testing.assert_array_equal, last.states[seed], notebook.states[seed])
    assert (resumed.run_s > 0).all()


def test_checkpoints_are_not_taken_more_often_than_asked_for(run, tmp_path):
    run((0,), checkpointing=Checkpointing(tmp_path, every_s=3600))
    assert [path.name for path in (tmp_path / "seed0").iterdir()] == ["3"]  # the last chunk


def test_divergence_names_round_device_and_checkpoint(
    dataset, scheme, world, tmp_path, monkeypatch
):
    """Device 2 meets a sample that is not a number; it is scheduled in round 4 only."""
    poisoned = dataset.train_inputs.copy()
    poisoned[np.asarray(world.indices[2])] = np.nan
    masks = np.zeros((8, 6), bool)
    masks[:, 0], masks[4, 2] = True, True

    def given(seed, labels, num_devices):
        return Partition(np.asarray(world.indices), np.asarray(world.sizes))

    def with_masks(plan, schedules):
        fixed = [s._replace(info=s.info._replace(mask=masks[:7])) for s in schedules]
        return real_masks(plan, fixed)

    real_masks = simulate.Plan.masks
    monkeypatch.setattr(simulate.Plan, "masks", with_masks)
    with pytest.raises(jaxsplit.NonFiniteError) as stop:
        jaxsplit.run(
            (0,), NETWORK, scheme, world.backbone, dataset._replace(train_inputs=poisoned),
            num_rounds=7, evaluate_every=3, partitioner=given,
            checkpointing=Checkpointing(tmp_path, every_s=0),
        )  # fmt: skip
    assert str(stop.value) == (
        "the training loss of device 2 is nan in round 4 of seed 0: lower the learning rates "
        f"(the last good checkpoint: {tmp_path / 'seed0' / '1'})"
    )
    assert sorted(path.name for path in (tmp_path / "seed0").iterdir()) == ["0", "1"]


def test_a_state_that_diverges_in_the_last_round_is_found(run):
    """The loss is taken before the update: only the evaluation sees this one."""
    params = jaxsplit.LearningParams(adapter_learning_rate=np.inf)
    with pytest.raises(jaxsplit.NonFiniteError, match=r"the test loss is nan after 1 rounds of"):
        run((0,), num_rounds=1, evaluate_every=1, learning_params=params)


def test_memory_is_estimated_before_the_start(run, monkeypatch):
    monkeypatch.setattr(simulate, "device_bytes", lambda: 999.0)
    with pytest.raises(OptionError) as stop:
        run()
    assert stop.value.option == "devices_per_step"
    expected = r"smaller than 4, or remat: a round takes .* KiB of memory and 999 B are free"
    assert re.search(expected, stop.value.allowed)


def test_accelerators_take_as_many_seeds_as_fit(run, monkeypatch, tmp_path):
    """The rule, on a processor that says it is none."""
    monkeypatch.setattr(simulate.jax, "default_backend", lambda: "gpu")
    needed = {}

    def bytes_of_seeds(at_once, plan, world):
        needed[at_once] = 100 * at_once
        return needed[at_once]

    monkeypatch.setattr(simulate, "_bytes_of_seeds", bytes_of_seeds)

    class Stop(Notebook):
        def noted(self, message):
            super().noted(message)
            raise KeyboardInterrupt  # before anything is compiled

    for free, words in (
        (1e9, "3 seeds at once"),
        (250, "2 seeds at once"),
        (150, "one seed after"),
    ):
        monkeypatch.setattr(simulate, "device_bytes", lambda free=free: free)
        stop = Stop()
        with pytest.raises(KeyboardInterrupt):
            run(observer=stop)
        assert stop.notes[0].startswith(words)

    # What was begun with three goes on with three, however little memory is left.
    monkeypatch.setattr(simulate, "device_bytes", lambda: 1e9)
    checkpointing = Checkpointing(tmp_path)
    run(checkpointing=checkpointing)
    assert [path.name for path in tmp_path.glob("seeds0*")] == ["seeds0-2"]
    monkeypatch.setattr(simulate, "device_bytes", lambda: 150)
    notebook = Notebook()
    run(checkpointing=checkpointing, observer=notebook)
    assert notebook.notes == []
    assert {event[0] for event in notebook.events} == {"resumed"}


def test_the_estimate_is_of_the_program_that_runs(run):
    """Its compilation is the run's own: the round is compiled once."""
    jax.clear_caches()
    compiled = []

    def listen(event, duration, fun_name=None, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run((0,))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert sum("run_chunk" in str(name) for name in compiled) == 1, compiled


def test_seeds_at_once_is_checked(run):
    with pytest.raises(ValueError, match="seeds_at_once=-1: choose 1 or more"):
        run(seeds_at_once=-1)
