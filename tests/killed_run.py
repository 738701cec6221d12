"""A small run in a process of its own, for tests that kill it."""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

import jax

import jaxsplit
from jaxsplit import scheduling, wireless
from jaxsplit.artefacts import save_weights
from jaxsplit.checkpoint import Checkpointing
from jaxsplit.commands.fine_tune import OPTIMIZERS
from jaxsplit.data import digits
from jaxsplit.federated import fedft
from jaxsplit.models import LoraConfig, ViT
from jaxsplit.observer import Observer
from jaxsplit.results import save

ROUNDS = 120


class Announce(Observer):
    """Sends the rounds that are done to the process that watches, and keeps the weights."""

    def __init__(self, out: Path, watcher: Connection) -> None:
        self._out, self._watcher = out, watcher

    def evaluated(self, seed, rounds, metrics):
        self._watcher.send(rounds)

    def finished(self, seed, state):
        save_weights(self._out / "weights.safetensors", state)


def fine_tune(out: Path, cache: Path, watcher: Connection) -> None:
    """Fine-tune a tiny backbone on the digits, from the newest checkpoint in `out`."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.stderr = open(out / "stderr.txt", "a")  # noqa: SIM115
    model = ViT(
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    dataset = digits()
    result = jaxsplit.run(
        [3],
        jaxsplit.Network(6, wireless.rayleigh(), scheduling.lyapunov()),
        fedft(model, 10, lora=LoraConfig(dropout=0.1), optimizer=OPTIMIZERS["adam"]),
        jax.jit(model.init)(jax.random.key(0), dataset.train_inputs[:1])["params"],
        dataset,
        num_rounds=ROUNDS,
        evaluate_every=2,
        observer=Announce(out, watcher),
        checkpointing=Checkpointing(out / "checkpoints", every_s=0),
    )
    save(result.drop_vars(["compile_s", "run_s"]), out / "result.nc")
