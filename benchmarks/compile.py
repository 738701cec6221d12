"""What users wait for before anything runs: compile seconds and operations of the main programs.

``python benchmarks/compile.py`` traces, lowers and compiles each program in a fresh process without
any cache, prints a table, and writes results/compile-<device>.json beside itself. Seconds are CPU
seconds of the process, compiler threads included; the median of ``--runs`` processes (3). Names of
programs as arguments measure those alone. The two rounds of MiniLM differ in nothing but their
number of blocks.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from timing import save

NUM_DEVICES = 20


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def operations(lowered: Any) -> int:
    """Operations of a program, those of loop bodies and of called functions once each."""
    return sum(" = " in line for line in lowered.as_text().splitlines())


def topk_mask() -> list[Any]:
    from jaxsplit_kernels import topk_mask

    return [jax.jit(topk_mask).lower(shape(16, 50_000), shape(16, dtype=jnp.int32))]


def compress() -> list[Any]:
    from jaxsplit_kernels import compress

    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key, shape(16, 50_000), shape(), shape(dtype=jnp.int32))
    return [jax.jit(compress).lower(*arguments)]


def solve_p1() -> list[Any]:
    from jaxsplit.scheduling import solve_p1

    def solve(*arguments: jax.Array) -> Any:
        return solve_p1(*arguments, "exact", "bound")

    return [jax.jit(solve).lower(shape(NUM_DEVICES), shape(), shape(), shape())]


def sweep_block() -> list[Any]:
    from jaxsplit.network import Network
    from jaxsplit.scheduling import lyapunov
    from jaxsplit.sweeps.grid import make_grid
    from jaxsplit.sweeps.program import scenario_stages
    from jaxsplit.wireless import rayleigh

    network = Network(NUM_DEVICES, rayleigh(), lyapunov())
    (program,) = make_grid(network, {"delay_budget": [1e-8, 2e-8]}, 4, None).programs()
    stages = scenario_stages(program, num_rounds=10, keep_rounds=False)
    numbers, index = {"delay_budget": shape(4)}, shape(dtype=jnp.int32)
    start = jax.jit(jax.vmap(stages.start)).lower(shape(4, dtype=jnp.uint32), numbers)
    carry = jax.tree.map(lambda leaf: shape(*leaf.shape, dtype=leaf.dtype), start.out_info)
    advance = jax.jit(jax.vmap(stages.advance, in_axes=(0, 0, None, None)))
    finish = jax.jit(jax.vmap(stages.finish))
    return [
        start,
        advance.lower(carry, numbers, index, index),
        finish.lower(carry, numbers),
    ]


def quickstart_round() -> list[Any]:
    from jaxsplit.commands.quickstart import FINE_TUNING_CLASSES, QuickstartConfig
    from jaxsplit.data import digits

    data = digits(FINE_TUNING_CLASSES)
    inputs = [shape(*a.shape, dtype=a.dtype) for a in (data.train_inputs, data.test_inputs)]
    return [round_of(QuickstartConfig().scheme(), *inputs)]


def minilm_round(blocks: int) -> list[Any]:
    from jaxsplit.federated import fedft
    from jaxsplit.models import Bert

    model = Bert(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=blocks,
        num_attention_heads=12,
        intermediate_size=1536,
    )

    def texts(count: int) -> dict[str, Any]:
        return {name: shape(count, 32, dtype=jnp.int32) for name in ("input_ids", "attention_mask")}

    return [round_of(fedft(model, 2, optimizer=optax.adam), texts(1000), texts(256))]


def round_of(scheme: Any, train_inputs: Any, test_inputs: Any) -> Any:
    """A chunk of ten rounds with its evaluation, as `jaxsplit run` compiles it."""
    from jaxsplit.federated import LearningParams, World, init_learning, run_chunk
    from jaxsplit.models import stack_blocks

    sample = jax.tree.map(lambda leaf: shape(1, *leaf.shape[1:], dtype=leaf.dtype), train_inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    backbone = jax.eval_shape(
        lambda key, inputs: stack_blocks(scheme.model.init(key, inputs)["params"]), key, sample
    )
    leaves = [jax.tree.leaves(inputs)[0] for inputs in (train_inputs, test_inputs)]
    labels = [shape(leaf.shape[0], dtype=jnp.int32) for leaf in leaves]
    indices = shape(NUM_DEVICES, 100, dtype=jnp.int32)
    sizes = shape(NUM_DEVICES, dtype=jnp.int32)
    world = World(backbone, train_inputs, labels[0], indices, sizes, test_inputs, labels[1])
    params = LearningParams(shape(), shape())
    state = jax.eval_shape(
        lambda key, params, world: init_learning(key, scheme, params, world), key, params, world
    )
    masks, first = shape(10, NUM_DEVICES, dtype=bool), shape(dtype=jnp.int32)
    return run_chunk.lower(key, state, masks, first, scheme, params, world)


PROGRAMS: dict[str, Callable[[], list[Any]]] = {
    "topk_mask": topk_mask,
    "compress": compress,
    "solve_p1": solve_p1,
    "sweep_block": sweep_block,
    "quickstart_round": quickstart_round,
    "minilm_round_6_blocks": lambda: minilm_round(6),
    "minilm_round_12_blocks": lambda: minilm_round(12),
}


def measure(name: str) -> dict[str, float]:
    """Seconds and operations of a program, in this process, which must be fresh."""
    for module in ("jaxsplit_kernels", "jaxsplit.commands.quickstart", "jaxsplit.sweeps.program"):
        importlib.import_module(module)
    jnp.zeros(1).block_until_ready()  # the backend starts
    began = time.process_time()
    lowered = PROGRAMS[name]()
    lowered_at = time.process_time()
    for program in lowered:
        program.compile()
    return {
        "lower_cpu_s": lowered_at - began,
        "compile_cpu_s": time.process_time() - lowered_at,
        "operations": sum(map(operations, lowered)),
    }


def main(names: list[str], runs: int) -> None:
    """Measure each program in processes of its own, print and save."""
    record: dict[str, Any] = {}
    print(f"{'':24}{'lower CPU s':>12}{'compile CPU s':>15}{'together':>10}{'operations':>12}")
    for name in names:
        command = [sys.executable, __file__, "--measure", name]
        results = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(runs)
        ]
        row = {key: round(statistics.median(r[key] for r in results), 2) for key in results[0]}
        record[name] = row
        together = row["lower_cpu_s"] + row["compile_cpu_s"]
        print(
            f"{name:24}{row['lower_cpu_s']:12.2f}{row['compile_cpu_s']:15.2f}{together:10.2f}"
            f"{row['operations']:12.0f}",
            flush=True,
        )
    if names == list(PROGRAMS):
        save("compile", record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--runs", type=int, default=3, help="processes per program")
    parser.add_argument("--measure", choices=PROGRAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.programs) - set(PROGRAMS):
        parser.error(f"{', '.join(sorted(unknown))}: choose some of {', '.join(PROGRAMS)}")
    if options.measure:
        print(json.dumps(measure(options.measure)))
    else:
        main(options.programs or list(PROGRAMS), options.runs)
