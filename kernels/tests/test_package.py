import doctest
import importlib
import pkgutil
import subprocess
import sys

import jaxsplit_kernels
import pytest

MODULES = [m.name for m in pkgutil.walk_packages(jaxsplit_kernels.__path__, "jaxsplit_kernels.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_function_has_an_example():
    for name in jaxsplit_kernels.__all__:
        if name != "__version__":
            assert ">>>" in getattr(jaxsplit_kernels, name).__doc__


def test_import_loads_jax_and_numpy_only():
    code = (
        "import sys, jaxsplit_kernels; heavy = ('flax', 'optax', 'transformers', 'scipy', "
        "'mpmath', 'jaxsplit'); print([m for m in heavy if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"
