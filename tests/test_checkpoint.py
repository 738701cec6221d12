"""Checkpoints: whole or absent, the newest kept, damaged ones passed over."""

import os
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsplit.checkpoint import Checkpointing, Checkpoints

TREE = {
    "optimizer": optax.adam(1e-3).init({"w": jnp.ones((4, 5), jnp.bfloat16)}),
    "heads": {"kernel": jnp.arange(600.0).reshape(20, 30)},
    "participation": jnp.arange(20),
    "losses": np.full(7, np.nan),
    "nothing": (),
}


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert jax.tree.map(lambda a: a.dtype, left) == jax.tree.map(lambda a: a.dtype, right)


def shifted(step):
    return {**TREE, "losses": np.arange(7.0) + step}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Four checkpoints, of which two are kept."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.newest(TREE) is None
    assert not folder.exists()
    for step in range(4):
        checkpoints.save(step, shifted(step))
    checkpoints.close()
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def test_the_newest_come_back_bit_for_bit(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    checkpoints = Checkpoints(folder)
    step, tree = checkpoints.newest(TREE)
    assert step == 3
    same(tree, shifted(3))
    assert checkpoints.path(3).is_dir()


def damage_data(step):
    """One byte in the middle of the largest file: the arrays, as they are compressed or not."""
    largest = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)


def damage_half(step):
    for path in step.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def damage_absent(step):
    shutil.rmtree(step / "state")


def damage_seal(step):
    """All arrays can be read, but they are not those that were sealed."""
    seal = step / "seal" / "metadata"
    assert seal.read_text().startswith('{"sha256"')
    seal.write_text('{"sha256": "00"}')


@pytest.mark.parametrize("damage", [damage_data, damage_half, damage_absent, damage_seal])
def test_a_damaged_newest_falls_back_with_a_warning(folder, damage):
    damage(folder / "3")
    checkpoints = Checkpoints(folder)
    with pytest.warns(UserWarning, match=r"checkpoint .*/3 is damaged .* from the one before"):
        step, tree = checkpoints.newest(TREE)
    assert step == 2
    same(tree, shifted(2))
    checkpoints.save(3, shifted(3))  # and goes on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Checkpoints(folder).newest(TREE).step == 3


def test_all_damaged_is_a_start_from_nothing(folder):
    for step in ("2", "3"):
        damage_absent(folder / step)
    with pytest.warns(UserWarning, match="damaged"):
        assert Checkpoints(folder).newest(TREE) is None


def test_a_process_that_is_killed_while_it_writes_leaves_the_one_before(tmp_path):
    """SIGKILL at the moment when Orbax would make the new checkpoint visible."""
    code = f"""
import os, signal
import numpy as np
from pathlib import Path
from jaxsplit.checkpoint import Checkpoints
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
checkpoints.save(0, {{"w": np.arange(5.0)}})
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
for name in ("rename", "replace"):
    setattr(os, name, kill)
Path.rename = Path.replace = kill
checkpoints.save(1, {{"w": np.arange(5.0) + 1}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    left = {path.name for path in tmp_path.iterdir()}
    assert "0" in left
    assert "1" not in left
    assert len(left) > 1  # it was caught in the act
    checkpoints = Checkpoints(tmp_path)
    step, tree = checkpoints.newest({"w": np.zeros(5)})
    assert (step, tree["w"].tolist()) == (0, [0, 1, 2, 3, 4])
    checkpoints.save(1, {"w": np.zeros(5)})  # what was half-written is not in the way
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


@pytest.mark.parametrize(("option", "value"), [("every_s", -1), ("every_s", np.nan), ("keep", 0)])
def test_impossible_choices_are_refused(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option}={value}: choose"):
        Checkpointing(tmp_path, **{option: value})
