"""How a test session compiles: quickly, and each program once for all of its processes.

Nearly all time of the tests goes into compiling programs that run for milliseconds, so they are
compiled without LLVM's optimisations and without the emitters of fusions: the same graph of
operations, in a third of the time. `pytest --optimized` compiles as users do; so do, in any
session, the tests that ask for the fixture `optimized`, emitters apart.
"""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

import jax
import jaxlib
import pytest

QUICK = "JAX_DISABLE_MOST_OPTIMIZATIONS"
EMITTERS = "xla_cpu_use_fusion_emitters"
LONG_RUNNING = {"kernels", "scheduling", "sweeps", "wireless", "test_network.py", "test_theory.py"}
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
    if not config.getoption("optimized") and xla_knows(EMITTERS):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{EMITTERS}=false".strip()
    folder = tempfile.mkdtemp(prefix="jaxsplit-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in {"jax_compilation_cache_dir": folder, **CACHE}.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def xla_knows(flag):
    """A process ends at a flag that its XLA has not, or no longer."""
    for path in Path(jaxlib.__file__).parent.glob("libjax_common*"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
            return code.find(flag.encode()) >= 0
    return False


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
