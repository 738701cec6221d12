"""Compiled programs on disk: what one process has compiled, the next one reads.

JAX writes, reads and evicts the programs. What it leaves open is settled here: where they are
kept, and that no program is run which was damaged or was made for another machine.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import platformdirs
from filelock import FileLock

#: Holds "off", or the folder to use instead of the user's cache folder.
ENVIRONMENT = "JAXSPLIT_COMPILE_CACHE"
MAX_BYTES = 256 * 2**20  # for one kind of machine; JAX drops what was not used for longest
MAX_PROGRAMS = 500  # likewise, at the start; JAX looks at all of them whenever it writes one
_MAX_MACHINES = 4  # folders that stay, beside those of the last day
_DAY_S = 24 * 60 * 60
_LOCK, _LOCK_TIMEOUT_S = ".lockfile", 10.0  # JAX's own
_PROGRAM, _USED, _SEAL = "-cache", "-atime", "-sha256"  # the first two are JAX's
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "libtpu")


def use_compile_cache(
    folder: Path | str | None = None, *, warn: Callable[[str], None] | None = None
) -> Path | None:
    """Keep compiled programs on disk and read those that are there, from now on in this process.

    The commands of `jaxsplit` do this by themselves. Numbers do not change: the same program is
    run. Each kind of machine has a folder of its own, of at most 256 MiB, so that unlike nodes
    can share a home directory. Who can write there can have any program run: do not share it
    with people whom you do not trust. Where a cache of JAX has been chosen already, with
    `JAX_COMPILATION_CACHE_DIR` or in `jax.config`, nothing is changed.

    Args:
      folder: where to keep them; by default what the environment variable
        `JAXSPLIT_COMPILE_CACHE` holds ("off": nowhere), or else the user's cache folder.
      warn: is told in one line what is in the way, JAX's troubles with the cache included;
        `warnings.warn` by default.

    Returns:
      The folder of this kind of machine, or None where no cache is used, or one of the user's.
    """
    chosen, is_on = _setting("compilation_cache_dir"), _setting("enable_compilation_cache")
    if _Seals.active and chosen == str(_Seals.active.folder):
        return _Seals.active.folder
    wanted = str(folder or os.environ.get(ENVIRONMENT) or "")
    if wanted == "off" or chosen is not None or not is_on:
        return None
    root = Path(wanted).expanduser() if wanted else platformdirs.user_cache_path("jaxsplit")
    root = root.absolute() if wanted else root / "programs"
    place = root / machine_digest(machine_facts())
    try:
        _prepare(place)
    except (OSError, NotImplementedError) as error:  # the latter: no locks there
        (warn or warnings.warn)(f"compiled programs are not kept on disk: {_one_line(error)}")
        return None
    _Seals.active = _Seals(place)
    if warn:
        _tell_once(warn)
    _configure(place)
    return place


def machine_facts() -> dict[str, Any]:
    """What a compiled program depends on beside what JAX's own key of a program holds.

    On a processor a program is machine code for the features of that processor, and its loops are
    shared out among so many cores. JAX's key holds the program, jaxlib's version, most flags of
    XLA, and the platform, version and kind of the device; some of it is repeated, so that a
    change of JAX's key does no harm.
    """
    return {
        "system": [platform.system(), platform.machine()],
        "processor": _processor(),
        "cores": [_cores(), os.environ.get("NPROC"), _setting("num_cpu_devices")],
        "python": sys.version_info[:2],  # decides how JAX compresses
        "versions": {name: _version(name) for name in ("jax", "jaxlib", *_PLUGINS)},
        "flags": [
            sorted(os.environ.get(name, "").split()) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        ],
    }


def machine_digest(facts: Mapping[str, Any]) -> str:
    """The name of the folder for machines with these facts.

    Example:
      >>> machine_digest({"processor": ["avx2"]}) == machine_digest({"processor": ["sse4_2"]})
      False
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    """Maker, model and features of the processors, or else the machine's name."""
    telling = r"(vendor_id|cpu family|model|model name|flags|Features|CPU (?!revision)\w+)\s*:"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {re.sub(r"\s+", " ", line).strip() for line in lines if re.match(telling, line)}
    return sorted(facts) or [platform.processor(), platform.node()]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _configure(place: Path) -> None:
    """Have JAX use a folder; what the user has set stays."""
    defaults_and_ours = {
        "compilation_cache_max_size": (-1, MAX_BYTES),
        # All programs: even a small one takes longer to compile than to read.
        "persistent_cache_min_compile_time_secs": (1.0, 0.0),
        # XLA's cache of tuned kernels has no bound and no seal; the programs hold them, too.
        "persistent_cache_enable_xla_caches": ("xla_gpu_per_fusion_autotune_cache_dir", "none"),
    }
    for name, (default, ours) in defaults_and_ours.items():
        if _setting(name) == default:
            jax.config.update(f"jax_{name}", ours)
    jax.config.update("jax_compilation_cache_dir", str(place))


def _setting(name: str) -> Any:
    """A setting of JAX, by the user, the environment or default."""
    return getattr(jax.config, f"jax_{name}")


def _prepare(place: Path) -> None:
    """Make sure that programs can be kept in a folder; drop what is damaged or too much.

    Raises:
      OSError: they cannot.
      NotImplementedError: nothing can be locked there.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(place / _LOCK, timeout=_LOCK_TIMEOUT_S):
        with tempfile.TemporaryFile(dir=place) as probe:  # marks the folder as used, too
            probe.write(bytes(2**16))
        _drop_damaged(place)
    with contextlib.suppress(OSError):
        _drop_old_machines(place.parent)


def _drop_damaged(place: Path) -> None:
    """Delete all programs but those that are as they were written, and of these the oldest.

    JAX does not write a program again that it finds unreadable, and XLA does not check one.
    """
    names = {path.name for path in place.iterdir()}
    suffix = re.compile(f"({_PROGRAM}|{_USED}|{_SEAL})$")
    whole: dict[str, float] = {}
    for key in {suffix.sub("", name) for name in names if suffix.search(name)}:
        with contextlib.suppress(OSError):
            content = (place / (key + _PROGRAM)).read_bytes()
            if (place / (key + _SEAL)).read_bytes() == _seal(content):
                whole[key] = (place / (key + _USED)).stat().st_mtime
                continue
        _delete(place, key)
    for key in sorted(whole, key=whole.__getitem__, reverse=True)[MAX_PROGRAMS:]:
        _delete(place, key)


def _delete(place: Path, key: str) -> None:
    for suffix in (_PROGRAM, _USED, _SEAL):
        (place / (key + suffix)).unlink(missing_ok=True)


def _drop_old_machines(root: Path) -> None:
    """Delete the folders of machines, of versions and flags, that are not seen any more."""
    folders = [path for path in root.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name)]
    used = {path: path.stat().st_mtime for path in folders if path.is_dir()}
    for path in sorted(used, key=used.__getitem__, reverse=True)[_MAX_MACHINES:]:
        if time.time() - used[path] > _DAY_S:
            shutil.rmtree(path, ignore_errors=True)


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


class _Seals:
    """Seals each program that this process has compiled as soon as JAX has written it.

    A program without a seal is dropped at the next start: its process was killed as it wrote.
    """

    active: "_Seals | None" = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_written = False
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def _on_event(self, event: str, **_: str | int) -> None:
        if event == "/jax/compilation_cache/cache_misses":  # about to be written
            self._is_written = True

    def _on_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        if self._is_written and event == "/jax/core/compile/backend_compile_duration":
            self._is_written = False
            with contextlib.suppress(OSError, NotImplementedError):
                self._seal_new()

    def _seal_new(self) -> None:
        with FileLock(self.folder / _LOCK, timeout=_LOCK_TIMEOUT_S):
            names = {path.name for path in self.folder.iterdir()}
            # JAX notes the use of a program after it has written all of it.
            keys = {name.removesuffix(_USED) for name in names if name.endswith(_USED)}
            for key in keys:
                if key + _PROGRAM in names and key + _SEAL not in names:
                    content = (self.folder / (key + _PROGRAM)).read_bytes()
                    (self.folder / (key + _SEAL)).write_bytes(_seal(content))


def _tell_once(warn: Callable[[str], None]) -> None:
    """Tell the first of JAX's warnings about the cache in one line, and nothing of the others."""
    starts = ("Error writing persistent", "Error reading persistent", "Cache value for key")
    show = warnings.showwarning
    told: list[str] = []

    @functools.wraps(show)
    def show_others(message: Warning | str, *args: Any, **options: Any) -> None:
        text = _one_line(message)
        if not text.startswith(starts):
            show(message, *args, **options)
        elif not told:
            told.append(text)
            warn(f"the cache of compiled programs does not work as it should: {text}")

    warnings.showwarning = show_others


def _one_line(message: object) -> str:
    return " ".join(str(message).split()) or type(message).__name__
