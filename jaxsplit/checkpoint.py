"""Checkpoints of a run: the newest few states in a folder, each whole or absent."""

import functools
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

_STATE, _SEAL = "state", "seal"


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a run keeps its state.

    Attributes:
      folder: of the run.
      every_s: seconds between two checkpoints, at least; they are taken after an evaluation, and
        always after the last round. 0 keeps every evaluation.
      keep: the newest ones that are kept.
    """

    folder: Path
    every_s: float = 30.0
    keep: int = 2

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        if not self.every_s >= 0:
            raise ValueError(f"every_s={self.every_s}: choose 0 s or more")
        if self.keep < 1:
            raise ValueError(f"keep={self.keep}: choose 1 or more")


class Restored(NamedTuple):
    """What a folder held."""

    step: int
    tree: Any


class Checkpoints:
    """The newest states of one run, written by Orbax.

    Each carries a SHA-256 seal over its arrays: a damaged one is recognised even where it can
    still be read.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoints = Checkpoints(Path(folder))
      ...     checkpoints.save(3, {"w": np.arange(4.0)})
      ...     checkpoints.newest({"w": np.zeros(4)})
      Restored(step=3, tree={'w': array([0., 1., 2., 3.])})
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Open a folder, which is made with the first checkpoint.

        Args:
          folder: of this run alone.
          keep: the newest checkpoints that stay.
        """
        self.folder = folder.absolute()
        self._keep = keep

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=False,  # the state is donated to the next chunk
            cleanup_tmp_directories=True,  # of a process that was killed while it wrote
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / str(step)

    def save(self, step: int, tree: Any) -> None:
        """Keep a state.

        Args:
          step: its number, above those that are kept.
          tree: a pytree of arrays.

        Raises:
          OSError: the folder cannot be written.
        """
        tree = jax.tree.map(np.asarray, jax.device_get(tree))
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardSave(tree),
                    _SEAL: ocp.args.JsonSave({"sha256": _seal(tree)}),
                }
            ),
        )

    def newest(self, like: Any) -> Restored | None:
        """The newest state that is whole; damaged ones are removed with a warning.

        Args:
          like: a pytree of arrays of the same structure, shapes and dtypes.

        Returns:
          Its number and its arrays (NumPy), or None where there is none.
        """
        if not self.folder.is_dir():
            return None
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return Restored(step, self._restore(step, like))
            except Exception as error:  # whatever a damaged file makes Orbax raise
                warnings.warn(
                    f"the checkpoint {self.path(step)} is damaged ({_first_line(error)}) and was "
                    "removed; going on from the one before",
                    stacklevel=2,
                )
                self._manager.delete(step)
        return None

    def close(self) -> None:
        """Let go of what Orbax holds open."""
        if "_manager" in self.__dict__:
            self._manager.close()

    def _restore(self, step: int, like: Any) -> Any:
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{_STATE: ocp.args.StandardRestore(like), _SEAL: ocp.args.JsonRestore()}
            ),
        )
        tree = jax.tree.map(np.asarray, items[_STATE])
        if items[_SEAL] != {"sha256": _seal(tree)}:
            raise ValueError("its arrays are not those that were written")
        return tree


def _seal(tree: Any) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
