"""Where data sets are looked for, without a network."""

import re

import httpx
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsplit.data import KNOWN_NAMES, DataNotFoundError, find

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No data, an empty Hugging Face cache, and a hub that does not answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXSPLIT_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def unreachable(*args, timeout, **options):
        assert timeout <= 30
        raise httpx.ConnectTimeout("timed out\nafter a while")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    return tmp_path


def write_snapshot(cache, repository, files):
    """What a download leaves in the cache."""
    folder = cache / f"datasets--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    for file in files:
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"sentence": ["a"], "label": [0]}), snapshot / file)
    return snapshot


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("sst2", "SST-2"), ("SST-2", "glue/sst2"), ("sst2", "GLUE/SST-2"), ("glue/SST-2", "sst2"),
        ("stsb", "glue/STS-B"), ("cifar10", "cifar-10-batches-py"), ("CIFAR-10", "cifar10"),
        ("cifar100", "cifar-100-binary"), ("cifar-100", "cifar-100-python"),
        ("tiny-imagenet-32", "tiny-imagenet-32"), ("tiny_imagenet", "tiny-imagenet"),
        ("my/own", "my/own"), ("mine", "mine"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("root", ["data_dir", "JAXSPLIT_DATA"])
def test_names_are_looked_for_in_both_folders(name, folder, root, empty_machine, monkeypatch):
    place = empty_machine / "sets" / folder
    place.mkdir(parents=True)
    if root == "JAXSPLIT_DATA":
        monkeypatch.setenv("JAXSPLIT_DATA", str(empty_machine / "sets"))
        assert find(name, data_dir=empty_machine / "nothing") == place
    else:
        assert find(name, data_dir=str(empty_machine / "sets")) == place


def test_a_path_is_taken_as_it_is(empty_machine):
    folder = empty_machine / "sst2"
    folder.mkdir()
    assert find(folder) == folder
    assert find("sst2").resolve() == folder  # before any known name


@pytest.mark.parametrize("name", ["sst2", "nyu-mll/glue/sst2"])
def test_the_cache_of_the_hub_is_used(name, empty_machine):
    files = [f"sst2/{split}-00000-of-00001.parquet" for split in ("train", "validation")]
    snapshot = write_snapshot(empty_machine / "hub", "nyu-mll/glue", files)
    assert find(name) == snapshot / "sst2"


@pytest.mark.parametrize(
    ("name", "repository", "folder"),
    [
        ("cifar10", "uoft-cs/cifar10", "plain_text"),
        ("cifar100", "uoft-cs/cifar100", "cifar100"),
        ("tiny-imagenet", "zh-plus/tiny-imagenet", "data"),
        ("some/one", "some/one", "data"),
    ],
)
def test_repositories_of_the_hub_have_their_layouts(name, repository, folder, empty_machine):
    files = [f"{folder}/{split}-00000-of-00001.parquet" for split in ("train", "valid")]
    snapshot = write_snapshot(empty_machine / "hub", repository, files)
    assert find(name) == (snapshot if name == repository else snapshot / folder)


def test_a_partial_snapshot_is_not_taken(empty_machine):
    write_snapshot(empty_machine / "hub", "nyu-mll/glue", ["mrpc/train-00000-of-00001.parquet"])
    with pytest.raises(DataNotFoundError, match=r"cache \(.*expected train and test or validation"):
        find("mrpc")


def test_only_the_needed_files_are_downloaded(empty_machine, monkeypatch):
    asked = []

    def download(repository, *, local_files_only, allow_patterns, **options):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        asked.append((repository, allow_patterns))
        files = [
            f"mnli/{split}-00000-of-00001.parquet" for split in ("train", "validation_matched")
        ]
        return str(write_snapshot(empty_machine / "hub", repository, files))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **options: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find("mnli").name == "mnli"
    assert asked == [("nyu-mll/glue", ["mnli/train*.parquet", "mnli/validation_matched*.parquet"])]


def test_the_error_lists_every_place(empty_machine, monkeypatch):
    with pytest.raises(DataNotFoundError) as caught:
        find("qnli", data_dir="sets")
    assert str(caught.value) == (
        "no data set 'qnli': looked for qnli, QNLI, glue/QNLI, glue/qnli, GLUE/QNLI, GLUE/qnli "
        "here and in data_dir sets (no such folder); JAXSPLIT_DATA (not set); nyu-mll/glue in the "
        "Hugging Face cache (not there); nyu-mll/glue on the hub (ConnectTimeout: timed out): "
        "give the path of its folder, or put it into one of these"
    )
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(DataNotFoundError, match="it has none: load tiny-imagenet with image_size"):
        find("tiny-imagenet-32")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataNotFoundError, match=re.escape(", ".join(KNOWN_NAMES))):
        find("imdb")


def test_offline_mode_is_honoured(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # the session asks for the mode when it is made
    with pytest.raises(DataNotFoundError, match=r"on the hub \(not asked: HF_HUB_OFFLINE is set\)"):
        find("no-such-owner/no-such-set")
    huggingface_hub.close_session()
