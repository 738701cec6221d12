"""What users wait for before anything runs: compile seconds and operations of the main programs.

``python benchmarks/compile.py`` traces, lowers and compiles each program in a fresh process without
any cache, prints a table, and writes results/compile-<device>.json beside itself. Seconds are CPU
seconds of the process, compiler threads included; the median of ``--runs`` processes (3). Names of
programs as arguments measure those alone. The two rounds of MiniLM differ in nothing but their
number of blocks.

Seconds are those of a machine. The yardstick is `plain_encoder`: the gradient of the adapters of
six scanned blocks of MiniLM and nothing else, written in as few lines as can be; `against_plain` is
a program's compile time in units of it.
"""

import argparse
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
from jaxsplit_kernels import compress, topk_mask
from timing import save

from jaxsplit.commands.quickstart import FINE_TUNING_CLASSES, QuickstartConfig
from jaxsplit.data import digits
from jaxsplit.federated import LearningParams, World, fedft, init_learning, run_chunk
from jaxsplit.models import Bert, stack_blocks
from jaxsplit.network import Network
from jaxsplit.scheduling import lyapunov, solve_p1
from jaxsplit.sweeps.grid import make_grid
from jaxsplit.sweeps.program import scenario_stages
from jaxsplit.wireless import rayleigh

NUM_DEVICES = 20


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def operations(lowered: Any) -> int:
    """Operations of a program, those of loop bodies and of called functions once each."""
    return sum(" = " in line for line in lowered.as_text().splitlines())


def plain_encoder() -> list[Any]:
    blocks, width, heads, rank, batch, length = 6, 384, 12, 4, 64, 32

    def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * scale + bias

    def block(x: jax.Array, of_block: Any) -> tuple[jax.Array, None]:
        w, adapters = of_block
        query, key, value = (
            (x @ (w[name] + 2 * a @ b) + w["bias_" + name]).reshape(batch, length, heads, -1)
            for name, (a, b) in adapters.items()
        )
        scores = jnp.einsum("bthd,bshd->bhts", query, key) / (width / heads) ** 0.5
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), value).reshape(x.shape)
        x = norm(x + mixed @ w["o"] + w["bias_o"], w["scale_o"], w["shift_o"])
        hidden = jax.nn.gelu(x @ w["in"] + w["bias_in"], approximate=False)
        return norm(x + hidden @ w["out"] + w["bias_out"], w["scale_out"], w["shift_out"]), None

    def loss(adapters: Any, weights: Any, x: jax.Array) -> jax.Array:
        return (jax.lax.scan(block, x, (weights, adapters))[0].mean(axis=1) ** 2).sum()

    square, vector = shape(blocks, width, width), shape(blocks, width)
    weights = dict.fromkeys("qkvo", square) | {
        "in": shape(blocks, width, 4 * width),
        "out": shape(blocks, 4 * width, width),
        "bias_in": shape(blocks, 4 * width),
    }
    vectors = [f"bias_{name}" for name in ("q", "k", "v", "o", "out")]
    vectors += [f"{kind}_{name}" for kind in ("scale", "shift") for name in ("o", "out")]
    adapters = dict.fromkeys("qkv", (shape(blocks, width, rank), shape(blocks, rank, width)))
    weights |= dict.fromkeys(vectors, vector)
    return [jax.jit(jax.grad(loss)).lower(adapters, weights, shape(batch, length, width))]


def lower_topk_mask() -> list[Any]:
    return [jax.jit(topk_mask).lower(shape(16, 50_000), shape(16, dtype=jnp.int32))]


def lower_compress() -> list[Any]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key, shape(16, 50_000), shape(), shape(dtype=jnp.int32))
    return [jax.jit(compress).lower(*arguments)]


def lower_solve_p1() -> list[Any]:
    def solve(*arguments: jax.Array) -> Any:
        return solve_p1(*arguments, "exact", "bound")

    return [jax.jit(solve).lower(shape(NUM_DEVICES), shape(), shape(), shape())]


def sweep_block() -> list[Any]:
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
    data = digits(FINE_TUNING_CLASSES)
    inputs = [shape(*a.shape, dtype=a.dtype) for a in (data.train_inputs, data.test_inputs)]
    return [round_of(QuickstartConfig().scheme(), *inputs)]


def minilm_round(blocks: int) -> list[Any]:
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


PLAIN = "plain_encoder"
PROGRAMS: dict[str, Callable[[], list[Any]]] = {
    PLAIN: plain_encoder,
    "topk_mask": lower_topk_mask,
    "compress": lower_compress,
    "solve_p1": lower_solve_p1,
    "sweep_block": sweep_block,
    "quickstart_round": quickstart_round,
    "minilm_round_6_blocks": lambda: minilm_round(6),
    "minilm_round_12_blocks": lambda: minilm_round(12),
}


COLUMNS = {
    "lower_cpu_s": "lower CPU s",
    "compile_cpu_s": "compile CPU s",
    "against_plain": "against plain",
    "operations": "operations",
}


def measure(name: str) -> dict[str, float]:
    """Seconds and operations of a program, in this process, which must be fresh."""
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
    print(f"{'':24}" + "".join(f"{title:>15}" for title in COLUMNS.values()))
    for name in names:
        command = [sys.executable, __file__, "--measure", name]
        results = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(runs)
        ]
        row = {key: round(statistics.median(r[key] for r in results), 2) for key in results[0]}
        record[name] = row
        if PLAIN in record:
            plain = record[PLAIN]["compile_cpu_s"]
            row["against_plain"] = round(row["compile_cpu_s"] / plain, 2)
        print(f"{name:24}" + "".join(f"{row.get(key, ''):>15}" for key in COLUMNS), flush=True)
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
