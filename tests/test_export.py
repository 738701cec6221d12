"""`jaxsplit export`: a finished run in PyTorch and PEFT gives what the run measured."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import command, finished_run, shared_folder, tiny_folder  # noqa: F401
from tolerances import SUMS_PER_BLOCK, within

from jaxsplit.artefacts import load_card, load_weights, mean_head, weights_path
from jaxsplit.commands.export import ExportConfig, export
from jaxsplit.data import ImageTransform, load
from jaxsplit.models import from_pretrained
from jaxsplit.models.peft import import_peft
from jaxsplit.options import OptionError

torch = pytest.importorskip("torch", reason="PyTorch loads what is exported")
pytest.importorskip("peft", reason="PEFT loads what is exported")

import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


ROUNDINGS = SUMS_PER_BLOCK * 16  # one block, 16 wide


@pytest.fixture
def cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_folder() / "cache"))


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """`run_of(kind)`: a copy of the run's folder, to write into; the working folder is another."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def copy(kind):
        return shutil.copytree(finished_run(kind), tmp_path / kind)

    return copy


def test_set(kind):
    """The test set as the run saw it: arrays of NumPy, labels."""
    place = tiny_folder()
    if kind == "picture":
        dataset = load(place / "pictures")
        images = ImageTransform((0.5,) * 3, (0.25,) * 3, image_size=16)(dataset.test_inputs)
        return np.asarray(images), dataset.test_labels
    name = {"text": "SST-2", "score": "STS-B"}[kind]
    dataset = load(place / name, tokenizer=place / "bert")
    return dataset.test_inputs, dataset.test_labels


test_set.__test__ = False


def readme_of(folder):
    """What the code in the folder's README defines."""
    text = (folder / "README.md").read_text()
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], names)
    return names, text


def their_outputs(names, kind, inputs):
    """Outputs of the network that the README's code has loaded."""
    with torch.no_grad():
        if kind == "picture":
            images = torch.tensor(inputs.transpose(0, 3, 1, 2))
            return names["model"](images, interpolate_pos_encoding=True).logits.numpy()
        tokens = {key: torch.tensor(array).long() for key, array in inputs.items()}
        if kind == "text":
            return names["model"](**tokens).logits.numpy()
        hidden = names["model"](**tokens).last_hidden_state
        weight = tokens["attention_mask"].float()[:, :, None]
        features = (hidden * weight).sum(1) / weight.sum(1)
        return (features @ names["head"]["out.weight"].T + names["head"]["out.bias"]).numpy()


def our_outputs(run, policy, seed, device, inputs):
    """The same from the run's own files, in float32."""
    card, weights = load_card(run), load_weights(run, policy, seed)
    head = (
        mean_head(weights)
        if device is None
        else jax.tree.map(lambda leaf: leaf[device], weights.heads)
    )
    checkpoint = from_pretrained(card.checkpoint, pooling=card.pooling, image_size=card.image_size)
    model = checkpoint.model.with_adapters(card.lora)
    variables = {"params": checkpoint.params, "lora": weights.adapters}
    features = jax.jit(model.apply)(variables, jax.tree.map(jnp.asarray, inputs))
    return np.asarray(checkpoint.make_head(card.num_outputs).apply(head, features))


def accuracy(outputs, labels):
    return np.mean(outputs.argmax(-1) == labels)


@pytest.mark.parametrize(
    ("kind", "policy", "seed", "device"),
    [
        ("text", None, 0, None),
        ("text", "greedy", 1, 3),
        ("picture", None, 0, None),
        ("picture", None, 0, 3),
        ("score", None, 0, None),
        ("score", "all_in", 0, 1),
    ],
)
def test_pytorch_measures_what_the_run_measured(kind, policy, seed, device, run_of, cache, capsys):
    run = run_of(kind)
    options = [] if policy is None else ["--policy", policy]
    options += [] if device is None else ["--device", device]
    command("export", "--run", run, "--seed", seed, *options)
    printed = capsys.readouterr().out
    usage = (run / "peft" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert usage in printed  # as it stands, no line broken
    policy = policy or "all_in"
    names, text = readme_of(run / "peft")
    whose = "the mean head" if device is None else f"the head of device {device}"
    assert f"Policy {policy}, seed {seed}, {whose}." in text
    inputs, labels = test_set(kind)
    outputs = their_outputs(names, kind, inputs)
    ours = our_outputs(run, policy, seed, device, inputs)
    np.testing.assert_allclose(outputs, ours, **within(ours, ROUNDINGS, scale=1))

    final = xr.load_dataset(run / "run.nc").sel(policy=policy, seed=seed).isel(eval_round=-1)
    metric = final.attrs["metric"]
    measured = float(
        final[f"{metric}_mean_head"] if device is None else final[f"device_{metric}"][device]
    )
    if kind == "score":  # the run computed in bfloat16
        assert abs(np.corrcoef(outputs[:, 0], labels)[0, 1] - measured) < 0.02
    else:
        assert abs(accuracy(outputs, labels) - measured) <= 1.001 / len(labels)


def test_policy_and_seed_pick_their_weights(run_of, tmp_path):
    run = run_of("text")
    checkpoint = from_pretrained(tiny_folder() / "bert")
    kernels = {}
    for policy in ("all_in", "greedy"):
        for seed in (0, 1):
            for device in (None, 2):
                out = tmp_path / f"{policy}-{seed}-{device}"
                config = ExportConfig(run, out=out, policy=policy, seed=seed, device=device)
                assert export(config).folder == out
                adapter = import_peft(out, checkpoint)
                weights = load_weights(run, policy, seed)
                jax.tree.map(np.testing.assert_array_equal, adapter.adapters, weights.adapters)
                kernels[policy, seed, device] = adapter.head["params"]["out"]["kernel"]
                if device is not None:
                    np.testing.assert_array_equal(
                        kernels[policy, seed, device], weights.heads["params"]["out"]["kernel"][2]
                    )
                assert adapter.lora == load_card(run).lora
    assert len({kernel.tobytes() for kernel in map(np.asarray, kernels.values())}) == len(kernels)


def test_files_of_an_export(run_of, tmp_path):
    run = run_of("text")
    for _ in range(2):  # a second export replaces the first
        command("export", "--run", run)
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in (run / "peft").iterdir()) == names
    config = json.loads((run / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((tiny_folder() / "bert").resolve())
    assert (config["task_type"], config["r"], config["lora_alpha"]) == ("SEQ_CLS", 4, 8)
    assert config["lora_dropout"] == 0.1

    command("export", "--run", run_of("picture"), "--transformers", 4, "--out", tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "adapter_model.safetensors")
    assert any(".encoder.layer.0.attention.attention.query." in name for name in tensors)
    command("export", "--run", run_of("score"))
    assert (tmp_path / "score" / "peft" / "head.safetensors").exists()


def fails(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        command("export", *arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("jaxsplit: error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in captured.err + captured.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "best"], ["--policy best", "all_in, greedy"]),
        (["--policy", "lyapunov_bound"], ["--policy lyapunov_bound", "all_in, greedy"]),
        (["--policy", ""], ["--policy", "all_in, greedy"]),
        (["--seed", "2"], ["--seed 2", "0 to 1"]),
        (["--seed", "-1"], ["--seed -1", "0 or more"]),
        (["--device", "4"], ["--device 4", "0 to 3"]),
        (["--device", "-1"], ["--device -1", "0 or more"]),
        (["--device", "first"], ["--device", "first", "0 or more"]),
        (["--format", "onnx"], ["--format", "onnx"]),
        (["--transformers", "3"], ["--transformers", "3"]),
        (["--out", "/dev/null/x"], ["--out /dev/null/x", "folder that can be written"]),
        (["--colour", "red"], ["--colour"]),
    ],
    ids=str,
)
def test_wrong_options_end_in_one_line(options, words, run_of, capsys):
    run = run_of("text")
    before = sorted(run.rglob("*"))
    fails(["--run", run, *options], words, capsys)
    assert sorted(run.rglob("*")) == before  # nothing is left behind


def test_incomplete_and_damaged_runs_are_told(run_of, tmp_path, capsys):
    fails([], ["--run"], capsys)
    for place in (tmp_path / "nowhere", tiny_folder() / "bert" / "config.json"):
        fails(["--run", place], ["run.json is missing", "--out folder"], capsys)
    assert not (tmp_path / "nowhere").exists()

    run = run_of("text")
    path = weights_path(run, "greedy", 1)
    path.write_bytes(path.read_bytes()[:-50])
    chosen = ["--run", run, "--policy", "greedy", "--seed", 1]
    fails(chosen, ["greedy-seed1.safetensors is damaged", "run again"], capsys)
    save_file({"something": np.zeros(3, np.float32)}, path)
    fails(chosen, ["greedy-seed1.safetensors is damaged"], capsys)
    path.unlink()
    fails(chosen, ["greedy-seed1.safetensors is missing"], capsys)
    export(ExportConfig(run))  # the others are sound

    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(card | {"checkpoint": str(tmp_path / "gone")}))
    fails(["--run", run], ["no checkpoint", "gone"], capsys)
    (run / "run.json").write_text(json.dumps(card)[:100])
    fails(["--run", run], ["run.json is damaged", "run again"], capsys)


def test_options_are_checked_in_python(run_of):
    run = run_of("text")
    with pytest.raises(OptionError, match=r"seed=-1"):
        export(ExportConfig(run, seed=-1))
    with pytest.raises(OptionError, match=r"device=4 is not allowed: give 0 to 3"):
        export(ExportConfig(run, device=4))
