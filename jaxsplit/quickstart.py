"""The quickstart: FedFT on real handwritten digits, four kinds of scheduling compared."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import optax
import platformdirs
import xarray as xr
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from jaxsplit.catalogue import SCHEDULERS
from jaxsplit.data import digits
from jaxsplit.federated import LearningParams, Scheme, fedft
from jaxsplit.files import atomic_path
from jaxsplit.models import LoraConfig, ViT, pretrain
from jaxsplit.network import Network, NetworkParams
from jaxsplit.options import OptionError, check_options, number, some_of, whole
from jaxsplit.results import save
from jaxsplit.scheduling import LyapunovParams
from jaxsplit.simulate import run
from jaxsplit.wireless import RayleighParams, rayleigh

POLICIES = {
    name: SCHEDULERS[name]
    for name in ("all_in", "lyapunov_bound", "lyapunov_count", "greedy", "aaba")
}

BACKBONE = ViT(
    patch_size=2,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
)
PRETRAINING_CLASSES = (0, 1, 2, 3, 4)
PRETRAINING: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 64,
    "peak_learning_rate": 3e-3,
    "weight_decay": 0.05,
}
FINE_TUNING_CLASSES = (5, 6, 7, 8, 9)
_VERSIONS = ("jaxsplit", "jax", "flax", "optax")


@dataclass(frozen=True)
class QuickstartConfig:
    """Fine-tune a small vision transformer over a simulated wireless network.

    The backbone is trained on the digits 0-4 first (once; it is cached) and then fine-tuned on
    5-9 by devices that share the band, under each scheduling policy in turn.
    """

    out: Path = Path("results/quickstart")
    """Folder for quickstart.nc and quickstart.png."""
    policies: Annotated[tuple[str, ...], some_of(POLICIES)] = tuple(POLICIES)
    """Scheduling policies to compare."""
    rounds: Annotated[int, whole(1)] = 200
    """Communication rounds T."""
    devices: Annotated[int, whole(1)] = 20
    """Devices N."""
    seeds: Annotated[int, whole(1)] = 5
    """Independent runs of each policy, with common seeds 0, 1, ..."""
    warmup_rounds: Annotated[int, whole(0)] = 300
    """Network-only rounds that fill the virtual queue before round 0."""
    evaluate_every: Annotated[int, whole(1)] = 10
    """Rounds between two evaluations."""
    batch_size: Annotated[int, whole(1)] = 16
    """Samples per device and round."""
    adapter_learning_rate: Annotated[float, number(above=0)] = 0.3
    """Learning rate of the global adapters (SGD, gradient norm clipped at 1)."""
    head_learning_rate: Annotated[float, number(above=0)] = 0.01
    """Learning rate of the personal heads (likewise)."""
    lora_rank: Annotated[int, whole(1)] = 4
    """Rank r of the adapters."""
    lora_alpha: Annotated[float, number(above=0)] = 8.0
    """Scale of the adapters: the update is alpha/r * A * B."""
    delay_budget_ns_per_bit: Annotated[float, number(above=0)] = 25.0
    """Long-term mean of the transmission delay per bit, ns/bit."""
    v: Annotated[float, number(above=0)] = 1.0
    """Weight of the reward against the queue, V = v * budget^2."""
    bandwidth_hz: Annotated[float, number(above=0)] = 20e6
    """Total bandwidth B, Hz."""
    power_dbm: Annotated[float, number()] = 10.0
    """Transmit power P of devices and server, dBm."""
    noise_dbm_per_hz: Annotated[float, number()] = -174.0
    """Noise power density N0, dBm/Hz."""
    radius_m: Annotated[float, number(above=0)] = 100.0
    """Radius of the disc of devices around the server, m."""

    def check(self) -> None:
        """Check all options.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        samples = len(digits(FINE_TUNING_CLASSES).train_labels)
        if self.devices > samples:
            raise OptionError(
                "devices", self.devices, f"1 to {samples}, the number of training samples"
            )

    @property
    def total_rounds(self) -> int:
        """Learning rounds of all policies and seeds."""
        return len(self.policies) * self.seeds * self.rounds

    def network(self, policy: str) -> Network:
        """The network's choices under a policy."""
        return Network(self.devices, rayleigh(), POLICIES[policy]())

    def network_params(self, policy: str) -> NetworkParams:
        """The network's numbers under a policy."""
        scheduler = POLICIES[policy]().params
        if isinstance(scheduler, LyapunovParams):
            scheduler = scheduler._replace(v=self.v)
        return NetworkParams(
            channel=RayleighParams(radius_m=self.radius_m),
            scheduler=scheduler,
            bandwidth_hz=self.bandwidth_hz,
            power_dbm=self.power_dbm,
            server_power_dbm=self.power_dbm,
            noise_dbm_per_hz=self.noise_dbm_per_hz,
            delay_budget=self.delay_budget_ns_per_bit * 1e-9,
        )

    def scheme(self) -> Scheme:
        """The learning round."""
        return fedft(
            BACKBONE,
            num_outputs=len(FINE_TUNING_CLASSES),
            lora=LoraConfig(rank=self.lora_rank, alpha=self.lora_alpha),
            batch_size=self.batch_size,
            optimizer=clipped_sgd,
        )

    def learning_params(self) -> LearningParams:
        """The learning rates."""
        return LearningParams(self.adapter_learning_rate, self.head_learning_rate)


def clipped_sgd(learning_rate: ArrayLike) -> optax.GradientTransformation:
    """SGD whose gradient has a norm of at most 1.

    A round with a single device has a noisy gradient. Without the clip it now and then throws the
    adapters far back at the rates used here, which hides the differences between policies.

    Args:
      learning_rate: η.

    Returns:
      An optax optimizer.
    """
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))


def _digest(setting: Any) -> str:
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]


def foundation_model(
    progress: Callable[[int, int], None] = lambda done, epochs: None,
    *,
    cache_folder: Path | None = None,
) -> Any:
    """The quickstart's backbone, trained centrally on the digits 0-4; cached after the first call.

    Args:
      progress: called after each epoch of training with the epochs done and their number.
      cache_folder: where to keep it; the user's cache folder by default.

    Returns:
      The `params` collection of `BACKBONE`.
    """
    recipe = {
        "model": repr(BACKBONE),
        "classes": PRETRAINING_CLASSES,
        "training": PRETRAINING,
        "jaxsplit": version("jaxsplit"),
        "jax": version("jax"),
    }
    folder = cache_folder or platformdirs.user_cache_path("jaxsplit") / "backbones"
    path = folder / f"digits-vit-{_digest(recipe)}.safetensors"
    with contextlib.suppress(FileNotFoundError, SafetensorError):  # absent or damaged: train
        return unflatten_dict(load_file(path), sep="/")
    dataset = digits(PRETRAINING_CLASSES)
    params, accuracy = pretrain(
        jax.random.key(0), BACKBONE, dataset, progress=progress, **PRETRAINING
    )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(
            flatten_dict(params, sep="/"),
            temporary,
            metadata={**{k: str(v) for k, v in recipe.items()}, "test_accuracy": str(accuracy)},
        )
    return params


def _run_policy(
    config: QuickstartConfig, policy: str, backbone: Any, progress: Callable[[int], None]
) -> xr.Dataset:
    return run(
        range(config.seeds),
        config.network(policy),
        config.scheme(),
        backbone,
        digits(FINE_TUNING_CLASSES),
        num_rounds=config.rounds,
        network_params=config.network_params(policy),
        learning_params=config.learning_params(),
        warmup_rounds=config.warmup_rounds,
        evaluate_every=config.evaluate_every,
        progress=progress,
    )


def quickstart(
    config: QuickstartConfig,
    progress: Callable[[str, int], None] = lambda policy, rounds: None,
    *,
    cache_folder: Path | None = None,
    resume_folder: Path | None = None,
) -> xr.Dataset:
    """Run every policy under the same seeds.

    Args:
      config: the options.
      progress: called with the policy and the number of rounds just done.
      cache_folder: see `foundation_model`.
      resume_folder: keeps each finished policy; a run of the same options takes it from there.

    Returns:
      A data set with dimensions policy, seed, round, eval_round and device.

    Raises:
      OptionError: a wrong option.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    config.check()
    backbone = foundation_model(cache_folder=cache_folder)
    setting = {
        "title": "jaxsplit quickstart: FedFT on handwritten digits 5-9",
        "configuration": json.dumps(dataclasses.asdict(config) | {"out": str(config.out)}),
        "versions": json.dumps({name: version(name) for name in _VERSIONS}),
        "device_kind": jax.devices()[0].device_kind,
        "platform": f"{jax.default_backend()}, Python {platform.python_version()}",
    }
    # What decides a policy's numbers: everything but where they go and what they are compared to.
    key = _digest(
        setting | {"configuration": repr(dataclasses.replace(config, out=Path(), policies=()))}
    )
    runs = []
    for policy in config.policies:
        kept = resume_folder / f"{policy}-{key}.nc" if resume_folder else None
        if kept and kept.exists():
            runs.append(xr.load_dataset(kept, engine="h5netcdf"))
            progress(policy, config.seeds * config.rounds)
            continue
        runs.append(_run_policy(config, policy, backbone, functools.partial(progress, policy)))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save(runs[-1], kept)
    result = xr.concat(runs, dim=xr.Variable("policy", list(config.policies)))
    return result.assign_attrs(setting)
