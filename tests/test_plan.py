"""`jaxsplit plan`: measured accuracies, a plan in words and as a figure."""

import json

import matplotlib.image
import numpy as np
import pytest
from tiny_checkpoints import command, shared_folder, tiny_folder, write_vit  # noqa: F401

from jaxsplit.commands import plan as plan_command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_vit(tmp_path_factory.mktemp("vit"), blocks=3, epsilon=0.1)


def options(model, out, *more):
    return [
        "plan", "--model", model, "--data", tiny_folder() / "pictures", "--devices", 3,
        "--batch-size", 4, "--warmup-rounds", 0, "--rounds", 2, "--channel", "fixed_snr",
        "--ratio-grid", 0.1, 0.2, 0.4, 0.8, "--levels-grid", 1, 3, 7, 15, "--out", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def planned(model, tmp_path_factory):
    """A folder with a plan."""
    out = tmp_path_factory.mktemp("planned")
    command(*options(model, out, "--accuracy-min", 0))
    return out


def test_measures_once_and_plans(model, planned, tmp_path, capsys, monkeypatch):
    plan = json.loads((planned / "plan.json").read_text())
    assert plan["plan"]["feasible"]
    assert plan["plan"]["cut"] in (1, 2)
    assert plan["plan"]["per_cut"]["cut"] == [1, 2]
    assert len(plan["in_words"]) == 7
    assert matplotlib.image.imread(planned / "plan.png").std() > 0
    assert len(json.loads((planned / "grid.json").read_text())["points"]) == 16

    # Another limit is planned anew without any training; an impossible one says what fails.
    (tmp_path / "grid.json").write_bytes((planned / "grid.json").read_bytes())
    monkeypatch.setattr(plan_command, "run", None)
    command(*options(model, tmp_path, "--accuracy-min", 1))
    anew = json.loads((tmp_path / "plan.json").read_text())
    assert not anew["plan"]["feasible"]
    told = capsys.readouterr().out
    assert "accuracy: cannot be met" in told
    assert anew["in_words"][0][:20] in told


@pytest.mark.slow
def test_points_at_once_measure_the_same(model, planned, tmp_path, monkeypatch, capsys):
    """The points that are missing are measured together; what is there is kept."""
    groups, real = [], plan_command.run
    monkeypatch.setattr(
        plan_command,
        "run",
        lambda seeds, *a, **k: groups.append(len(seeds)) or real(seeds, *a, **k),
    )
    kept = json.loads((planned / "grid.json").read_text())
    (tmp_path / "grid.json").write_text(json.dumps(kept | {"points": kept["points"][8:]}))
    command(*options(model, tmp_path, "--accuracy-min", 0, "--seeds-at-once", 4))
    assert groups == [4, 4]
    measured = [
        np.asarray(json.loads((folder / "plan.json").read_text())["measured_accuracy"])
        for folder in (planned, tmp_path)
    ]
    assert measured[0].std() > 0
    # A rounding may send a training another way, through a code of its quantizer: not most of them.
    assert np.mean(np.abs(measured[0] - measured[1]) < 0.03) > 0.8
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--accuracy-min", 2], ["--accuracy-min 2", "0 and of at most 1"]),
        (["--accuracy-min", 0.5, "--policies", "nobody"], ["--policies nobody", "all_in"]),
        (["--accuracy-min", 0.5, "--scheme", "sl"], ["--scheme sl", "sft"]),
        (["--accuracy-min", 0.5, "--cut", 9], ["--cut 9", "0 to 3"]),
        (["--accuracy-min", 0.5, "--upload-codec", "top_k"], ["--upload-codec", "as it is"]),
        (
            ["--accuracy-min", 0.5, "--device-memory-mib", 9, 0.001, 9],
            ["--device-memory-mib 0.001", "--cut 1 (short of it: device 1)", "no cut fits"],
        ),
        ([], ["accuracy-min"]),
    ],
)
def test_what_cannot_be_planned_is_refused(more, words, model, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*options(model, tmp_path, *more))
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "\n" not in message
    for word in words:
        assert word in message


def test_too_few_points_are_refused(model, tmp_path, capsys):
    arguments = [a for a in options(model, tmp_path, "--accuracy-min", 0) if a != 0.8]
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 2
    assert "4 or more" in capsys.readouterr().err
