"""What per-device adapters and compression cost in a step of SFT.

``python benchmarks/sft_step.py MODEL`` times rounds of one local step of 8 devices × 16 images
(sizes of SFT's issue: cut after block 3 of 6 of a small ViT) and writes
results/sft_step-<device>.json beside itself. The peer of the uncompressed step is the same merged
batch with one shared adapter of equal rank and targets; the peer of the compressed step is the
uncompressed one. Results are checked first: with adapters that are equal everywhere and plain SGD
the two steps move the adapters alike.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import RUNS, medians, row, save, table

from jaxsplit.data import ImageTransform
from jaxsplit.federated import (
    LearningParams,
    World,
    federated_round,
    init_learning,
    sft,
    sft_uncompressed,
)
from jaxsplit.models import from_pretrained

DEVICES, BATCH, CUT, CLASSES = 8, 16, 3, 10
OPTIONS = {
    "cut": CUT,
    "batch_size": BATCH,
    "devices_per_step": DEVICES,
    "optimizer": optax.sgd,
    "schedule": None,
}
NUMBERS = LearningParams(jnp.float32(0.1), jnp.float32(0.1))


def main(model: str) -> None:
    """Check, measure, print and save."""
    checkpoint = from_pretrained(model)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (DEVICES * BATCH, 32, 32, 3)), jnp.uint8)
    world = World(
        backbone=checkpoint.params,
        inputs=images,
        labels=jnp.asarray(rng.integers(0, CLASSES, len(images)), jnp.int32),
        indices=jnp.arange(len(images), dtype=jnp.int32).reshape(DEVICES, BATCH),
        sizes=jnp.full(DEVICES, BATCH, jnp.int32),
        test_inputs=images[:1],
        test_labels=jnp.zeros(1, jnp.int32),
    )
    transform = ImageTransform.from_checkpoint(checkpoint.folder)
    plain = sft_uncompressed(checkpoint.model, CLASSES, transform=transform, **OPTIONS)
    compressed = sft(checkpoint.model, CLASSES, transform=transform, **OPTIONS)
    lora = dataclasses.replace(plain.model.lora, per_device=False)
    shared = dataclasses.replace(plain, model=plain.model.clone(lora=lora))

    steps = {
        name: jax.jit(
            lambda state, world, scheme=scheme: federated_round(
                jax.random.key(1), state, jnp.ones(DEVICES, bool), scheme, NUMBERS, world
            )[0]
        )
        .lower(state := init_learning(jax.random.key(0), scheme, NUMBERS, world), world)
        .compile()
        for name, scheme in (("plain", plain), ("compressed", compressed), ("shared", shared))
    }
    states = {
        name: init_learning(jax.random.key(0), scheme, NUMBERS, world)
        for name, scheme in (("plain", plain), ("compressed", compressed), ("shared", shared))
    }
    del state
    moved = [steps[name](states[name], world).adapters for name in ("plain", "shared")]
    error = max(
        float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(*map(jax.tree.leaves, moved), strict=True)
    )
    if error > 1e-3:
        sys.exit(f"the steps differ by {error:.1e}")
    print(f"greatest difference between both steps, relative: {error:.1e}")
    times = dict(
        zip(
            steps,
            medians(*(lambda name=name: steps[name](states[name], world) for name in steps)),
            strict=True,
        )
    )
    record = {"runs": RUNS, "error": error}
    what = f"{DEVICES} devices x {BATCH} images, cut {CUT} of 6"
    rows = [
        (f"{what}: adapters per device, beside one shared", ("plain", "shared")),
        (f"{what}: compressed, beside uncompressed", ("compressed", "plain")),
    ]
    table("A step of SFT", ((n, row(times[a], times[b], 0.0)) for n, (a, b) in rows), record)
    save("sft_step", record)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
