"""Compiled programs on disk: found by the next process, whole, bounded, this machine's alone."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import zlib
from collections import Counter

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

import jaxsplit
from jaxsplit import compile_cache as module
from jaxsplit.cli import main

HIT = "/jax/compilation_cache/cache_hits"
WRITTEN = "/jax/compilation_cache/cache_misses"
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)
CHOSEN = {name.upper() for name in SETTINGS}  # by the environment of these tests
X = np.arange(8, dtype=np.float32)


def stop():
    """Forget the cache, as a process does when it ends."""
    if seals := module._Seals.active:
        jax.monitoring.unregister_event_listener(seals._on_event)
        jax.monitoring.unregister_event_duration_listener(seals._on_duration)
        module._Seals.active = None
    jax.config.update("jax_compilation_cache_dir", None)
    jax_cache.reset_cache()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """What a new process does first; returns the folder in use."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setattr(module.warnings, "showwarning", module.warnings.showwarning)

    def start(folder=tmp_path / "programs", **options):
        stop()
        return jaxsplit.use_compile_cache(folder, **options)

    yield start
    stop()
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def events():
    count = Counter()

    def listen(event, **_):
        count[event] += 1

    jax.monitoring.register_event_listener(listen)
    yield count
    jax.monitoring.unregister_event_listener(listen)


def compute(factor=2.0):
    """Compile a program that this process has not compiled before, and run it."""

    def program(x):
        return (x * factor).sum()

    assert np.asarray(jax.jit(program)(X)) == X.sum() * factor


def files(folder, suffix):
    return sorted(folder.glob(f"*{suffix}"))


def test_the_next_start_compiles_nothing(start, events):
    folder = start()
    compute()
    assert (events[HIT], events[WRITTEN]) == (0, 1)
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert start() == folder
    compute()
    assert (events[HIT], events[WRITTEN]) == (1, 1)
    assert jaxsplit.use_compile_cache() == folder  # is on already


SCRIPT = """
import collections, importlib.util, json, sys
import jax
spec = importlib.util.spec_from_file_location("compile_cache", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module._processor = lambda: sys.argv[2].split()
count = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: count.update([event.split("/")[-1]]))
assert module.use_compile_cache()
value = jax.jit(lambda x: jax.numpy.sin(x).sum())(jax.numpy.arange(1000.0))
print(json.dumps([count["cache_hits"], count["cache_misses"], value.item().hex()]))
"""


def test_a_machine_with_other_features_reads_nothing_of_it(tmp_path):
    def process(features):
        environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
        environment[module.ENVIRONMENT] = str(tmp_path)
        command = [sys.executable, "-c", SCRIPT, module.__file__, features]
        ran = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=300
        )
        assert ran.stderr == ""
        return json.loads(ran.stdout)

    hits, misses, value = process("avx2 avx512f")
    assert hits == 0
    assert misses > 0
    assert process("avx2 avx512f") == [misses, 0, value]
    assert process("avx2") == [0, misses, value]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processor", ["flags : sse2"]),
        ("cores", [1, "1", -1]),
        ("python", (3, 99)),
        ("versions", {"jax": "0.11.0"}),
        ("flags", [["--xla_cpu_enable_fast_math=true"], []]),
    ],
)
def test_each_fact_decides_the_folder(name, value):
    facts = module.machine_facts()
    assert module.machine_digest(facts) == module.machine_digest(module.machine_facts())
    assert module.machine_digest(facts | {name: value}) != module.machine_digest(facts)


def test_the_flags_come_from_the_environment(monkeypatch):
    before = module.machine_facts()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert module.machine_facts() != before
    assert any("flags" in line or "Features" in line for line in before["processor"])


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("-cache", lambda content: content[: len(content) // 2]),
        ("-cache", lambda content: b""),
        ("-cache", lambda content: os.urandom(len(content))),
        ("-cache", flipped),
        ("-cache", lambda content: zlib.compress(flipped(zlib.decompress(content)))),
        ("-cache", lambda content: zlib.compress(b"another format")),
        ("-cache", None),
        ("-sha256", lambda content: b""),
        ("-sha256", None),  # its process was killed
        ("-atime", None),  # ... before JAX had written all
    ],
)
def test_what_is_damaged_is_compiled_anew(start, events, recwarn, suffix, damage):
    folder = start()
    compute()
    (path,) = files(folder, suffix)
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    start()
    compute()
    assert (events[HIT], events[WRITTEN]) == (0, 2)
    start()
    compute()
    assert (events[HIT], events[WRITTEN]) == (1, 2)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["a file in the way", "not for writing", "no space"])
def test_an_unusable_place_is_one_line(start, events, tmp_path, kind):
    lines, place = [], tmp_path / "place"
    if kind == "a file in the way":
        place.touch()
    elif kind == "not for writing" and os.geteuid():
        place.mkdir(mode=0o500)
    elif kind == "not for writing":  # the superuser writes everywhere else
        place = "/proc/self/programs"
    limit = small_files() if kind == "no space" else contextlib.nullcontext()
    with limit:
        assert start(place, warn=lines.append) is None
    compute()
    assert events[WRITTEN] == 0
    (line,) = lines
    assert line.startswith("compiled programs are not kept on disk: [Errno")
    assert "\n" not in line


@contextlib.contextmanager
def small_files():
    """As on a full disk, in this process alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_one_line(start, events):
    lines = []
    start(warn=lines.append)
    with small_files():
        compute(2.0)
        compute(3.0)
    (line,) = lines
    assert "File too large" in line
    assert "\n" not in line
    start(warn=lines.append)  # what was half written is gone
    compute(2.0)
    compute(3.0)
    assert events[HIT] == 0
    start(warn=lines.append)
    compute(2.0)
    compute(3.0)
    assert events[HIT] == 2
    assert len(lines) == 1


def test_bytes_are_bounded(start, monkeypatch, events):
    folder = start()
    compute(0.0)
    size = files(folder, "-cache")[0].stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", 3 * size + size // 2)
    jax.config.update("jax_compilation_cache_max_size", -1)
    start()
    for factor in (1.0, 2.0, 3.0, 4.0):
        compute(factor)
        assert sum(path.stat().st_size for path in files(folder, "-cache")) <= module.MAX_BYTES
    assert len(files(folder, "-cache")) == 3
    start()
    assert len(files(folder, "-sha256")) == 3  # those of evicted programs are gone
    compute(4.0)  # the newest stay
    assert events[HIT] == 1


def test_programs_and_machines_are_bounded(start, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MAX_PROGRAMS", 2)
    folder = start()
    for factor in (1.0, 2.0, 3.0):
        compute(factor)
    for k in range(6):
        old = folder.parent / f"{k:016x}"
        old.mkdir()
        (old / "x-cache").touch()
        os.utime(old, (1000 + k, 1000 + k))
    (folder.parent / "not a machine").mkdir()
    start()
    assert len(files(folder, "-cache")) == 2
    left = {path.name for path in folder.parent.iterdir()}
    assert left == {folder.name, "not a machine", *(f"{k:016x}" for k in (3, 4, 5))}


def test_a_cache_that_the_user_has_chosen_is_left_alone(start, tmp_path, monkeypatch):
    stop()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    size = jax.config.jax_compilation_cache_max_size
    assert jaxsplit.use_compile_cache(tmp_path / "programs") is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert jax.config.jax_compilation_cache_max_size == size
    assert not (tmp_path / "programs").exists()
    stop()
    jax.config.update("jax_enable_compilation_cache", False)
    assert jaxsplit.use_compile_cache(tmp_path / "programs") is None
    jax.config.update("jax_enable_compilation_cache", True)


def test_the_environment_names_a_folder_or_none(start, tmp_path, monkeypatch):
    monkeypatch.setenv(module.ENVIRONMENT, str(tmp_path / "elsewhere"))
    assert start(None).parent == tmp_path / "elsewhere"
    monkeypatch.setenv(module.ENVIRONMENT, "off")
    assert start(None) is None
    monkeypatch.delenv(module.ENVIRONMENT)
    monkeypatch.setattr(module.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert start(None).parent == tmp_path / "jaxsplit" / "programs"


@pytest.mark.parametrize("command", [("export", "--run", "none"), ("data", "describe")])
def test_the_commands_use_it_unless_told_otherwise(command, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("jaxsplit.cli.use_compile_cache", lambda **options: calls.append(options))
    monkeypatch.setattr("jaxsplit.cli._RUNNERS", dict.fromkeys(_runners(), lambda *_: None))
    main([*command, "--no-compile-cache"])
    assert not calls
    main(command)
    (options,) = calls
    options["warn"]("something is in the way")
    assert capsys.readouterr().err == "jaxsplit: warning: something is in the way\n"


def _runners():
    from jaxsplit.cli import _RUNNERS

    return _RUNNERS
