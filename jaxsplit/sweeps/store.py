"""Where a sweep's finished blocks wait: in memory, or in files that survive the process."""

import contextlib
import errno
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxsplit.files import atomic_path

Block = dict[str, np.ndarray]  # variables, each [block, …]
Place = tuple[int, int]  # index of the program, index of the block in it


class Store(Protocol):
    """Finished blocks by place. Threads and processes write different places."""

    def __contains__(self, place: Place) -> bool:
        """Whether the block is there, whole."""
        ...

    def put(self, place: Place, block: Block) -> None:
        """Keep a block."""
        ...

    def get(self, place: Place) -> Block:
        """A kept block."""
        ...


class MemoryStore(dict[Place, Block]):
    """Blocks in memory."""

    def put(self, place: Place, block: Block) -> None:
        """Keep a block."""
        self[place] = block

    def get(self, place: Place) -> Block:  # type: ignore[override]
        """A kept block."""
        return self[place]


class FolderStore:
    """Blocks as files, each written whole or not at all, beside the setting they belong to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def _setting_path(self) -> Path:
        return self._folder / "setting.json"

    def setting(self) -> dict[str, Any] | None:
        """The setting of the blocks in the folder, None if there are none."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self._setting_path.read_text())
        return None

    def create(self, setting: dict[str, Any]) -> None:
        """Create the folder with its setting; what a killed run half wrote is removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob(".*"):
            leftover.unlink()
        with atomic_path(self._setting_path) as path:
            path.write_text(json.dumps(setting, indent=1) + "\n")

    def remove(self) -> None:
        """Remove the folder with all blocks."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, place: Place) -> Path:
        return self._folder / f"{place[0]:04}-{place[1]:08}.npz"

    def __contains__(self, place: Place) -> bool:
        """Whether the block is there, whole: a damaged file counts as absent."""
        path = self._path(place)
        if not path.exists():
            return False
        try:
            with zipfile.ZipFile(path) as file:
                return file.testzip() is None  # checks the CRC-32 of each variable
        except (zipfile.BadZipFile, OSError):
            return False

    def put(self, place: Place, block: Block) -> None:
        """Write a block.

        Raises:
          OSError: the disk is full, or the folder has gone; the blocks before stay valid.
        """
        with atomic_path(self._path(place)) as path:
            np.savez(path, **block)  # type: ignore[arg-type]

    def get(self, place: Place) -> Block:
        """Read a block."""
        with np.load(self._path(place)) as file:
            return dict(file)


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that no more can be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
