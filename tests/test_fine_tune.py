"""`jaxsplit run` as its users meet it: files, resumption, Python, errors."""

import json

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file
from tiny_checkpoints import (
    SHORT,
    command,
    finished_run,
    shared_folder,  # noqa: F401
    text_options,
    tiny_folder,
    write_bert,
    write_pictures,
    write_sst2,
    write_vit,
)

from jaxsplit import run_seeds
from jaxsplit.commands.fine_tune import OPTIMIZERS, FineTuneConfig, fine_tune, prepare
from jaxsplit.federated.chunk import run_chunk
from jaxsplit.models import LoraConfig
from jaxsplit.observer import Observer
from jaxsplit.options import OptionError

KINDS = ["text", "score", "picture"]
WALL_TIMES = ["compile_s", "run_s"]


@pytest.fixture
def cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_folder() / "cache"))


def files_of(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


# -- what a run leaves -----------------------------------------------------------------------------


def test_a_run_writes_its_result_a_figure_and_what_it_trained():
    out = finished_run("text")
    weights = [f"weights/{p}-seed{s}.safetensors" for p in ("all_in", "greedy") for s in (0, 1)]
    assert files_of(out) == ["run.json", "run.log", "run.nc", "run.png", *weights]
    assert matplotlib.image.imread(out / "run.png").std() > 0
    result = xr.load_dataset(out / "run.nc")
    assert result.sizes == {"policy": 2, "seed": 2, "round": 8, "eval_round": 3, "device": 4}
    assert result.attrs["metric"] == "accuracy"
    assert result.loss.attrs["units"] == "nat"
    assert "bert" in result.attrs["title"]
    assert json.loads(result.attrs["configuration"])["optimizer"] == "adam"
    # 12 positions at most: S = 8; D = 16, B = 8.
    assert result.attrs["up_bits"] == 32 * (8 * 8 * 16 + 8 * 16) + 8 * 8
    card = json.loads((out / "run.json").read_text())
    assert card["label_names"] == ["negative", "positive"]
    assert card["policies"] == ["all_in", "greedy"]
    assert card["lora"]["targets"] == ["query", "key", "value", "pooler"]
    assert card["lora"]["dropout"] == 0.1
    assert card["num_outputs"] == 2
    tensors = load_file(out / weights[0])
    assert tensors["heads/params/out/kernel"].shape == (4, 16, 2)
    assert tensors["adapters/blocks_0/attention/query/a"].shape == (4, 16)
    assert tensors["participation"].tolist() == [8] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_what_can_be_learnt(kind):
    result = xr.load_dataset(finished_run(kind) / "run.nc").isel(policy=0).mean("seed")
    assert np.isfinite(result.loss).all()
    assert result.loss[-2:].mean() < 0.75 * result.loss[:2].mean()
    score = result["pearson" if kind == "score" else "accuracy"]
    assert score[-1] > score[0]


def test_a_regression_is_named_after_its_metric():
    out = finished_run("score")
    result = xr.load_dataset(out / "run.nc")
    assert result.attrs["metric"] == "pearson"
    assert not [name for name in result.data_vars if "accuracy" in name]
    for name in ("pearson", "pearson_participants", "pearson_mean_head", "device_pearson"):
        assert result[name].attrs["long_name"].startswith("test pearson")
    assert result.device_pearson.dims == ("policy", "seed", "eval_round", "device")
    np.testing.assert_allclose(result.device_pearson.mean("device"), result.pearson, rtol=1e-5)
    assert result.loss.attrs["units"] == result.test_loss.attrs["units"] == ""  # no nats
    card = json.loads((out / "run.json").read_text())
    assert (card["task"], card["num_outputs"], card["pooling"]) == ("regression", 1, "mean")
    assert card["lora"] | {"rank": 2, "alpha": 5.5, "targets": ["query", "mlp_out"]} == card["lora"]
    tensors = load_file(out / "weights" / "all_in-seed0.safetensors")
    assert all(tensor.dtype == np.float32 for name, tensor in tensors.items() if "/" in name)


def test_images_are_seen_at_the_size_asked_for():
    result = xr.load_dataset(finished_run("picture") / "run.nc")
    assert result.attrs["up_bits"] == 32 * (8 * (1 + 16) * 16 + 8 * 16)  # patches of 4 × 4
    assert json.loads((finished_run("picture") / "run.json").read_text())["image_size"] == 16


# -- resumption ------------------------------------------------------------------------------------


def interrupt(monkeypatch, chunk):
    """Ctrl-C in the chunk of this number; returns the chunks that were begun."""
    real_advance, chunks = run_seeds.advance, []

    def advance(*arguments):
        if not isinstance(arguments[0], jax.core.Tracer):  # not where only shapes are asked for
            chunks.append(len(chunks))
            if len(chunks) == chunk:
                raise KeyboardInterrupt
        return real_advance(*arguments)

    monkeypatch.setattr(run_seeds, "advance", advance)
    return chunks


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, monkeypatch, capsys):
    """Ctrl-C in the second policy; the same command goes on from the last checkpoint."""
    whole = finished_run("text")
    every = ["--checkpoint-every-s", 0]
    interrupt(monkeypatch, 9)  # of 3 chunks a seed, 2 seeds a policy
    with pytest.raises(SystemExit) as stop:
        command(*text_options(), *every, "--out", tmp_path)
    assert stop.value.code == 130
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "the same command resumes" in error
    kept = tmp_path / ".checkpoints"
    names = sorted(path.name for path in (kept / "all_in").iterdir())
    assert names == ["seed0", "seed1", "seeds_at_once"]
    assert sorted(path.name for path in (kept / "greedy" / "seed0").iterdir()) == ["0", "1"]
    assert not list(tmp_path.glob("run.nc")) + list(tmp_path.glob("weights"))

    chunks = interrupt(monkeypatch, None)
    traces = run_chunk._cache_size()
    command(*text_options(), *every, "--out", tmp_path)
    assert len(chunks) == 1 + 3  # the rest of greedy's seed 0, and its seed 1
    assert run_chunk._cache_size() == traces  # nothing is traced again
    assert "greedy-seed0 goes on after 4 rounds" in capsys.readouterr().out
    assert files_of(tmp_path) == files_of(whole)
    results = [xr.load_dataset(out / "run.nc").drop_vars(WALL_TIMES) for out in (whole, tmp_path)]
    configurations = [json.loads(result.attrs.pop("configuration")) for result in results]
    xr.testing.assert_identical(*results)
    assert {
        key for key in configurations[0] if configurations[0][key] != configurations[1][key]
    } == {"out", "checkpoint_every_s"}
    for name in files_of(whole / "weights"):
        left, right = (load_file(out / "weights" / name) for out in (whole, tmp_path))
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=f"{name}: {key}")


def test_an_interrupted_run_leaves_an_earlier_one_whole(tmp_path, monkeypatch, capsys):
    """Another setting in the same folder, stopped half-way: result, card and weights still fit."""
    command(*text_options(), "--seeds", 1, "--out", tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_of(tmp_path)}
    interrupt(monkeypatch, 5)
    changed = ["--seeds", 1, "--adapter-learning-rate", 0.01]
    with pytest.raises(SystemExit):
        command(*text_options(), *changed, "--out", tmp_path)
    after = {name: (tmp_path / name).read_bytes() for name in before}
    assert {name for name in before if after[name] != before[name]} == {"run.log"}
    assert (tmp_path / ".checkpoints").is_dir()

    # What was begun with other options is neither mixed with these nor lost.
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command(*text_options(), "--rounds", 9, "--out", tmp_path)
    assert stop.value.code == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "--out" in error
    assert "unfinished run that differs in adapter_learning_rate (0.01 there" in error
    assert "rounds (8 there, 9 here)" in error
    assert "seeds" not in error.split("differs in")[1]  # more seeds, or policies, are welcome
    assert (tmp_path / ".checkpoints" / "all_in" / "seed0").is_dir()


# -- from Python -----------------------------------------------------------------------------------


def test_python_gives_the_result_of_the_command(cache, tmp_path):
    config = FineTuneConfig(
        model=str(tiny_folder() / "bert"), data=str(tiny_folder() / "STS-B"), out=tmp_path,
        devices=4, rounds=8, evaluate_every=4, warmup_rounds=0, batch_size=8,
        policies=("all_in",), pooling="mean", optimizer="momentum",
        partition="dirichlet:0.5:bins=2", lora_targets=("query", "mlp_out"), lora_rank=2,
        lora_alpha=5.5, adapter_learning_rate=0.02, head_learning_rate=0.05, dtype="bfloat16",
        remat=True,
    )  # fmt: skip
    told = []
    prepared = prepare(config, lambda *stage: told.append(stage))
    assert prepared.dataset.task == "regression"
    assert prepared.scheme.model.lora == LoraConfig(2, 5.5, ("query", "mlp_out"))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(prepared.checkpoint.params))
    done = []

    class Count(Observer):
        def trained(self, seed, first_round, metrics):
            done.append(len(metrics["loss"]))

    with jax.numpy_dtype_promotion("standard"):
        result = fine_tune(config, prepared, observe=lambda policy: Count())
    assert sum(done) == 8
    assert files_of(tmp_path) == []  # nothing is kept unless asked for
    same = xr.load_dataset(finished_run("score") / "run.nc")
    for name in ("loss", "pearson", "time_s", "participation"):
        np.testing.assert_array_equal(result[name], same[name], err_msg=name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_clip_gradients(name):
    with jax.numpy_dtype_promotion("standard"):
        rule = OPTIMIZERS[name](0.5)
        parameters = {"w": jnp.ones(4)}
        steps = [
            rule.update({"w": jnp.full(4, scale)}, rule.init(parameters), parameters)[0]["w"]
            for scale in (1e3, 1e6)
        ]
    np.testing.assert_allclose(*steps, rtol=1e-5)
    assert float(jnp.linalg.norm(steps[0])) < 1.1
    assert (steps[0] < 0).all()


def config_of(**options):
    folder = tiny_folder()
    settings = {"model": str(folder / "bert"), "data": str(folder / "SST-2"), "devices": 4}
    return FineTuneConfig(**(settings | options))


def test_augmentation_pads_the_stored_image(cache):
    """An eighth of the 8 stored pixels, whatever the model sees."""
    pictures = {"model": str(tiny_folder() / "vit"), "data": str(tiny_folder() / "pictures")}
    for size in (None, 32):
        scheme = prepare(config_of(**pictures, image_size=size, augment=True)).scheme
        assert scheme.transform.crop_padding == 1
        assert scheme.transform.flip
        assert scheme.transform.image_size == (size or 8)
    plain = prepare(config_of(**pictures)).scheme.transform
    assert (plain.crop_padding, plain.flip) == (0, False)
    assert (plain.mean, plain.std) == ((0.5,) * 3, (0.25,) * 3)


def test_texts_are_cut_to_max_length(cache):
    with pytest.warns(UserWarning, match="longer than max_length=4"):
        prepared = prepare(config_of(max_length=4, max_train=10, max_test=6))
    assert prepared.dataset.train_inputs["input_ids"].shape == (10, 4)
    assert prepared.dataset.test_inputs["input_ids"].shape == (6, 4)


# -- errors ----------------------------------------------------------------------------------------


def fails(arguments, words, out, capsys):
    """The command ends with 2 and one line that holds the words; it leaves no file."""
    with pytest.raises(SystemExit) as stop:
        command("run", *arguments, "--out", out)
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("jaxsplit: error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in captured.err + captured.out
    assert files_of(out) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--model": "/no/such/model"}, ["no checkpoint '/no/such/model'", "config.json"]),
        ({"--model": "{}/SST-2"}, ["SST-2/config.json is missing"]),
        ({"--data": "/no/such/data"}, ["--data /no/such/data", "no data set"]),
        ({"--data": "{}/bert"}, ["--data", "no known format", "config.json"]),
        ({"--data": "{}/pictures"}, ["--data", "texts", "these are images"]),
        ({"--data": "digits"}, ["--data digits", "texts", "these are images"]),
        ({"--model": "{}/vit"}, ["--data", "texts"]),
        ({"--model": "{}/vit", "--data": "digits"}, ["--data digits", "8×8×1", "channels"]),
        ({"--devices": 49}, ["--devices 49", "1 to 48, the training samples"]),
        ({"--devices": 11, "--max-train": 10}, ["--devices 11", "1 to 10"]),
        ({"--partition": "fair"}, ["--partition fair", "iid, dirichlet:ALPHA"]),
        ({"--partition": "dirichlet:-1"}, ["--partition dirichlet:-1"]),
        ({"--partition": "file:/no/such.npz"}, ["--partition file:/no/such.npz"]),
        ({"--partition": "shards:30"}, ["--partition shards:30", "fits the data"]),
        ({"--data": "{}/STS-B", "--partition": "shards:2"}, ["--partition shards:2", "bins"]),
        ({"--lora-targets": "keys"}, ["--lora-targets", "keys", "query"]),
        ({"--lora-targets": "pooler", "--pooling": "mean"},
         ["--lora-targets pooler", "some of query", "pooling mean"]),
        ({"--pooling": "max"}, ["--pooling", "max"]),
        ({"--max-length": 13}, ["--max-length 13", "1 to 12, the positions"]),
        ({"--max-length": 2}, ["--data", "max_length=2"]),
        ({"--max-length": 0}, ["--max-length 0", "1 or more"]),
        ({"--image-size": 8}, ["image_size=8", "reads no images"]),
        ({"--lora-rank": 0}, ["--lora-rank 0", "1 or more"]),
        ({"--lora-dropout": 1}, ["--lora-dropout 1", "at most 0.99"]),
        ({"--optimizer": "lion"}, ["--optimizer", "lion"]),
        ({"--dtype": "float16"}, ["--dtype", "float16"]),
        ({"--policies": "best"}, ["--policies", "best"]),
        ({"--rounds": 0}, ["--rounds 0", "1 or more"]),
        ({"--local-steps": 2}, ["--local-steps 2", "--adapters per_device"]),
        ({"--track": "files"}, ["--track files", "tensorboard, wandb"]),
        ({"--checkpoint-every-s": -1}, ["--checkpoint-every-s", "at least 0"]),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_end_in_one_line(options, words, tmp_path, capsys):
    folder = tiny_folder()
    options = {"--model": "{}/bert", "--data": "{}/SST-2"} | options
    given = [part for option in options.items() for part in option]
    fails([*SHORT, *(str(part).format(folder) for part in given)], words, tmp_path, capsys)


@pytest.mark.parametrize("missing", ["--model", "--data"])
def test_model_and_data_must_be_given(missing, tmp_path, capsys):
    given = {"--model": tiny_folder() / "bert", "--data": tiny_folder() / "SST-2"}
    del given[missing]
    fails([part for option in given.items() for part in option], [missing], tmp_path, capsys)


def test_a_folder_that_cannot_be_written_is_told_first(capsys):
    with pytest.raises(SystemExit) as stop:
        command(*text_options(), "--out", "/dev/null/x")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--out /dev/null/x: give a folder that can be written" in line


def test_broken_models_and_data_are_named(tmp_path, capsys):
    out, bert, vit = tmp_path / "out", tiny_folder() / "bert", tiny_folder() / "vit"
    sst2 = tiny_folder() / "SST-2"

    gpt = tmp_path / "gpt"
    gpt.mkdir()
    (gpt / "config.json").write_text('{"model_type": "gpt2"}')
    words = ["config.json", "model_type='gpt2' is not supported", "bert"]
    fails(["--model", gpt, "--data", sst2], words, out, capsys)

    (gpt / "config.json").write_text('{"model_type": "distilbert"}')
    words = ["distilbert has no pooler", "'cls' or 'mean'"]
    fails(["--model", gpt, "--data", sst2, "--pooling", "pooler"], words, out, capsys)

    broken = write_sst2(tmp_path / "broken")
    text = (broken / "train.tsv").read_text().splitlines()
    (broken / "train.tsv").write_text("\n".join([*text[:5], "no label", *text[5:]]))
    words = ["--data", "train.tsv, line 6", "expected 2"]
    fails(["--model", bert, "--data", broken], words, out, capsys)

    damaged = write_bert(tmp_path / "damaged")
    whole = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(whole[:-9])
    fails(["--model", damaged, "--data", sst2], ["model.safetensors is damaged"], out, capsys)

    bare = write_bert(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    (bare / "tokenizer_config.json").unlink()
    fails(["--model", bare, "--data", sst2], ["--data", "no vocabulary"], out, capsys)

    # The table has 10 rows, the tokenizer 19 words: lookups beyond it would give any row.
    small = write_bert(tmp_path / "small", vocab_size=10)
    words = [f"--model {small}", "its own tokenizer", "input_ids", "10 rows"]
    fails(["--model", small, "--data", sst2], words, out, capsys)

    # A tokenizer that knows of no limit, texts beyond the position table.
    long = write_sst2(tmp_path / "long")
    (long / "train.tsv").write_text("sentence\tlabel\n" + 4 * f"{'good ' * 30}\t1\n")
    words = ["--max-length 32", "1 to 12"]
    fails(["--model", bert, "--data", long, "--devices", 2], words, out, capsys)

    bare = write_vit(tmp_path / "bare-vit")
    (bare / "preprocessor_config.json").unlink()
    pictures = tiny_folder() / "pictures"
    words = [f"--model {bare}", "preprocessor_config.json"]
    fails(["--model", bare, "--data", pictures], words, out, capsys)

    for size in (15, 3):
        words = [f"image_size={size}", "multiple of its patch_size=4"]
        fails(["--model", vit, "--data", pictures, "--image-size", size], words, out, capsys)

    # Without resizing, pictures of another size than the position table's.
    rigid = write_vit(tmp_path / "rigid", do_resize=False)
    large = write_pictures(tmp_path / "large", train=8, test=4, side=12)
    words = ["--data", "12×12×3"]
    fails(["--model", rigid, "--data", large, "--devices", 2], words, out, capsys)


def test_options_are_checked_in_python(cache):
    with pytest.raises(OptionError, match=r"lora_targets=.*some of query"):
        prepare(config_of(pooling="cls", lora_targets=("query", "pooler")))
    with pytest.raises(OptionError, match="rounds=0"):
        prepare(config_of(rounds=0))
    with pytest.raises(OptionError, match=r"partition='power_law:1:min_size=30'.*fits the data"):
        prepare(config_of(partition="power_law:1:min_size=30"))
