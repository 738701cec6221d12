"""Where a data set is: a path, a known name, or a name on the Hugging Face hub."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsplit.data.sources import glue, parquet
from jaxsplit.data.sources.base import plain_name

_TIMEOUT_S = 10.0  # of one request; the hub's client would wait for ever
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+(/[\w.-]+)?")


class DataNotFoundError(FileNotFoundError, ValueError):
    """There is no such data set; the message lists every place where it was looked for."""


class _OnHub(NamedTuple):
    """Parquet files in a data set repository of the hub."""

    repository: str
    folder: str = "."  # of the repository
    patterns: tuple[str, ...] = ("train*.parquet", "test*.parquet", "val*.parquet")

    def allowed(self) -> list[str]:
        """Patterns of the files to download."""
        if self.folder == ".":
            return [*self.patterns, "data/*.parquet", "plain_text/*.parquet", "default/*.parquet"]
        return [f"{self.folder}/{pattern}" for pattern in self.patterns]


class _Known(NamedTuple):
    folders: tuple[str, ...]  # names that it goes by on disk
    hub: _OnHub | None
    instead: str = ""  # what to do where the hub has none


def _glue(task: glue.GlueTask) -> _Known:
    held_out = task.dev.replace("dev", "validation").replace(".tsv", "*.parquet")
    return _Known(
        tuple(
            f"{top}{name}" for top in ("", "glue/", "GLUE/") for name in (task.folder, task.name)
        ),
        _OnHub("nyu-mll/glue", task.name, ("train*.parquet", held_out)),
    )


def _cifar(classes: int, folder: str) -> _Known:
    batches = ("batches-py", "batches-bin") if classes == 10 else ("python", "binary")
    archives = (f"cifar-{classes}-python.tar.gz", f"cifar-{classes}-binary.tar.gz")
    names = (f"cifar{classes}", f"cifar-{classes}")
    return _Known(
        (*names, *(f"cifar-{classes}-{kind}" for kind in batches), *archives),
        _OnHub(f"uoft-cs/cifar{classes}", folder),
    )


_KNOWN = {task.name: _glue(task) for task in glue.TASKS} | {
    "cifar10": _cifar(10, "plain_text"),
    "cifar100": _cifar(100, "cifar100"),
    "tiny-imagenet": _Known(
        ("tiny-imagenet", "tiny_imagenet"), _OnHub("zh-plus/tiny-imagenet", "data")
    ),
    "tiny-imagenet-32": _Known(
        ("tiny-imagenet-32", "tiny_imagenet_32"),
        None,
        "it has none: load tiny-imagenet with image_size=32",
    ),
}

#: The names that need no path.
KNOWN_NAMES = tuple(_KNOWN)

_BY_NAME = {
    plain_name(alias): known for name, known in _KNOWN.items() for alias in (name, *known.folders)
}


def find(name: str | Path, data_dir: str | Path | None = None) -> Path:
    """Find a data set, and download it only where it is nowhere on this machine.

    A path that exists is taken as it is. A known name is looked for under its usual folder names
    (`sst2` as `SST-2`, `glue/SST-2`, …) in `data_dir`, in the folder that the environment variable
    `JAXSPLIT_DATA` names, in the Hugging Face cache, and on the hub, of which only the Parquet
    files that are needed are downloaded. `HF_HUB_OFFLINE=1` keeps off the network.

    Args:
      name: a path; a known name (see `KNOWN_NAMES`); a data set on the hub, as "owner/name" or
        "owner/name/folder"; or a name of a folder in `data_dir`.
      data_dir: the folder of the user's data sets.

    Returns:
      The folder or the archive.

    Raises:
      DataNotFoundError: it is in none of these places.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> (folder / "glue" / "SST-2").mkdir(parents=True)
      >>> find("sst2", data_dir=folder).relative_to(folder).as_posix()
      'glue/SST-2'
    """
    given = Path(name).expanduser()
    if given.exists():
        return given
    name = str(name)
    known = _BY_NAME.get(plain_name(name))
    aliases = list(dict.fromkeys([name, *(known.folders if known else ())]))
    looked = []
    for label, root in _roots(data_dir):
        if root is None:
            looked.append(f"{label} (not set)")
            continue
        looked.append(f"{label} {root}" + ("" if root.is_dir() else " (no such folder)"))
        for alias in aliases:
            if (root / alias).exists():
                return root / alias
    hub = known.hub if known else _hub_of(name)
    if hub is None:
        names = f"not a name on the hub, owner/name; known names are {', '.join(KNOWN_NAMES)}"
        looked.append(f"the hub ({known.instead if known else names})")
    else:
        for local, place in ((True, "in the Hugging Face cache"), (False, "on the hub")):
            found, trouble = _fetch(hub, local=local)
            if found is not None:
                return found
            looked.append(f"{hub.repository} {place} ({trouble})")
    raise DataNotFoundError(
        f"no data set {name!r}: looked for {', '.join(aliases)} here and in {'; '.join(looked)}: "
        "give the path of its folder, or put it into one of these"
    )


def _hub_of(name: str) -> _OnHub | None:
    if not _HUB_ID.fullmatch(name):
        return None
    owner, repository, *folder = name.split("/")
    return _OnHub(f"{owner}/{repository}", "/".join(folder) or ".")


def _roots(data_dir: str | Path | None) -> Iterator[tuple[str, Path | None]]:
    yield "data_dir", Path(data_dir).expanduser() if data_dir is not None else None
    variable = os.environ.get("JAXSPLIT_DATA")
    yield "JAXSPLIT_DATA", Path(variable).expanduser() if variable else None


def _fetch(hub: _OnHub, *, local: bool) -> tuple[Path | None, str]:
    """The folder of a snapshot with all its files, or why there is none."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        if not local:  # fails within the timeout where the hub cannot be reached
            huggingface_hub.HfApi().dataset_info(hub.repository, timeout=_TIMEOUT_S)
        snapshot = huggingface_hub.snapshot_download(
            hub.repository,
            repo_type="dataset",
            allow_patterns=hub.allowed(),
            etag_timeout=_TIMEOUT_S,
            local_files_only=local,
        )
        folder = Path(snapshot) / hub.folder
        if parquet.SOURCE.files(folder):
            return folder, ""
        return None, f"no {' or '.join(hub.allowed())} in it"
    except errors.LocalEntryNotFoundError:
        return None, "not there" if local else "not reachable"
    except errors.OfflineModeIsEnabled:
        return None, "not asked: HF_HUB_OFFLINE is set"
    except errors.RepositoryNotFoundError:
        return None, "no such public repository"
    except Exception as error:  # whatever the network's libraries raise, the message tells it
        reason = str(error).splitlines()[0] if str(error) else ""
        return None, f"{type(error).__name__}: {reason}"
