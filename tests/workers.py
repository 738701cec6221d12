"""How a test session compiles: quickly, and each program once for all of its processes.

Nearly all time of the tests goes into compiling programs that run for milliseconds, so most are
compiled without LLVM's optimisations: the same graph of operations, in half of the time. `pytest
--optimized` compiles as users do, and so do the tests that ask for the fixture `optimized`.

XLA's flag `--xla_cpu_use_fusion_emitters=false` would halve the time again, but with jaxlib 0.10.2
programs without both give wrong numbers (`tests/planning/test_plan.py` finds them).
"""

import os
import shutil
import tempfile

import jax
import pytest

QUICK = "JAX_DISABLE_MOST_OPTIMIZATIONS"
LONG_RUNNING = {"planning", "wireless", "test_prefixes.py"}
CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def pytest_addoption(parser):
    parser.addoption("--optimized", action="store_true", help="compile programs as users do")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With -n, a file stays on one worker, which makes its programs and fixtures once."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"


def pytest_configure(config):
    """Before anything is compiled; workers and commands in processes of their own inherit it."""
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="jaxsplit-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in {"jax_compilation_cache_dir": folder, **CACHE}.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def slow(values):
    """Values of `parametrize` whose tests are slow: others stand for them where time is short."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in sorted(values)
    ]


def set_quick(is_quick):
    """Let LLVM leave programs as they are, here and in processes that are started from here."""
    before = os.environ.get(QUICK) == "1"
    jax.config.update(QUICK.lower(), is_quick)
    os.environ[QUICK] = str(int(is_quick))
    return before


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation(request):
    """Where programs run for long, compiling them well pays."""
    parts = request.path.relative_to(request.config.rootpath).parts
    is_quick = not request.config.getoption("optimized") and not LONG_RUNNING & set(parts)
    before = set_quick(is_quick)
    yield
    set_quick(before)


@pytest.fixture
def optimized():
    """As users compile: for what is measured on the program, and a check of the largest."""
    before = set_quick(False)
    yield
    set_quick(before)
