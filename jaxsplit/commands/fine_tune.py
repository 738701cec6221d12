"""`jaxsplit run`: fine-tune a checkpoint on a data set over a simulated wireless network."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
import xarray as xr
from flax.errors import FlaxError
from jax.typing import ArrayLike

from jaxsplit.artefacts import RunCard, save_card, weights_path
from jaxsplit.commands.comparison import Observe, Task, compare_policies
from jaxsplit.commands.device_limits import check_device_memory, per_device, shapes_only
from jaxsplit.commands.learning_options import POLICIES, clipped_sgd
from jaxsplit.commands.scheme_options import SchemeOptions
from jaxsplit.data import (
    Dataset,
    ImageTransform,
    Partitioner,
    digits,
    load,
    partitioner_named,
)
from jaxsplit.data.sources.base import Progress
from jaxsplit.federated import Scheme, UploadError, check_upload, fedft, upload_length
from jaxsplit.models import Bert, Checkpoint, LoraConfig, ViT, from_pretrained
from jaxsplit.models.lora import TARGETS
from jaxsplit.observer import Observer
from jaxsplit.options import OptionError, check_options, number, some_of, whole


def _clipped(
    rule: Callable[[ArrayLike], optax.GradientTransformation], learning_rate: ArrayLike
) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), rule(learning_rate))


#: Optimizers by name; each maps a learning rate to an optax optimizer and clips at norm 1.
OPTIMIZERS: dict[str, Callable[[ArrayLike], optax.GradientTransformation]] = {
    "sgd": clipped_sgd,
    "momentum": functools.partial(_clipped, functools.partial(optax.sgd, momentum=0.9)),
    "adam": functools.partial(_clipped, optax.adam),
    "adamw": functools.partial(_clipped, optax.adamw),
}


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(SchemeOptions):
    """Fine-tune a BERT, RoBERTa, DistilBERT or ViT checkpoint over a simulated wireless network.

    FedFT: the devices embed, the server encodes with global adapters, each device has a head of
    its own. SFT: cut after any block, adapters per device on both sides, a compressed link. The
    trained adapters and heads are kept; `jaxsplit export` hands them on.
    """

    model: str
    """Checkpoint: a folder, an id on the Hugging Face hub, or minilm (extra [minilm])."""
    data: str
    """Data set: sst2, mrpc, cifar10 ... or its folder, or owner/name on the Hugging Face hub."""
    out: Path = Path("results/run")
    """Folder for run.nc, run.png, run.json and weights. The same command resumes there."""
    policies: Annotated[tuple[str, ...], some_of(POLICIES)] = ("lyapunov_bound",)
    """Scheduling policies to compare."""
    seeds: Annotated[int, whole(1)] = 1
    """Independent runs of each policy, with common seeds 0, 1, ..."""
    data_dir: Path | None = None
    """Folder of your data sets; $JAXSPLIT_DATA by default."""
    partition: str = "iid"
    """Who holds what: iid, dirichlet:0.5, shards:2, power_law:1.2 or file:partition.npz."""
    max_train: Annotated[int | None, whole(1).or_none()] = None
    """Training samples to keep; all by default."""
    max_test: Annotated[int | None, whole(1).or_none()] = None
    """Test samples to keep; all by default."""
    max_length: Annotated[int | None, whole(1).or_none()] = None
    """Tokens of a text; the longest text's by default."""
    image_size: Annotated[int | None, whole(1).or_none()] = None
    """Side of the images that a ViT sees, pixels; the checkpoint's by default."""
    augment: bool = False
    """Crop (after padding an eighth of the side) and flip training images at random."""
    pooling: Literal["pooler", "cls", "mean"] | None = None
    """Features of a text or image; by default what transformers' classes read."""
    lora_targets: Annotated[tuple[str, ...] | None, some_of(TARGETS).or_none()] = None
    """Layers with adapters; for fedft query, key, value and pooler, else all of the blocks'."""
    lora_dropout: Annotated[float, number(at_least=0, at_most=0.99)] = 0.0
    """Share of the adapters' inputs that is set to zero in training."""
    adapter_learning_rate: Annotated[float, number(at_least=0)] = 2e-3
    """Learning rate of the adapters, or of all weights; 0 freezes them and trains heads alone."""
    head_learning_rate: Annotated[float, number(above=0)] = 1e-2
    """Learning rate of the heads."""
    adapters: Literal["global", "per_device"] = "global"
    """One set for all (FedFT), or a copy per device in each round, averaged after it (SFT)."""
    heads: Literal["personal", "shared"] = "personal"
    """A head of each device's own (FedFT), or one for all."""
    local_steps: Annotated[int, whole(1)] = 1
    """Mini-batches of a scheduled device per round; more than 1 with --adapters per_device."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "adam"
    """Optimizer of adapters and heads; gradients are clipped at norm 1."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers of the computation; weights of the backbone are kept in it, too."""
    remat: bool = False
    """Recompute blocks on the way back instead of keeping their activations."""
    fused_attention: bool = False
    """Attention through cuDNN's fused kernel: NVIDIA GPUs, with --dtype bfloat16."""
    devices_per_step: Annotated[int, whole(1)] = 4
    """Devices that the server encodes at once: memory against speed."""

    def check(self) -> None:
        """Check what needs neither the checkpoint nor the data.

        Raises:
          OptionError: for the first wrong value.
        """
        check_options(self)
        self.partitioner()
        self.check_scheme()
        if self.scheme != "fedft":
            for name, plain in (("adapters", "global"), ("heads", "personal")):
                if getattr(self, name) != plain:
                    text = f"it with --scheme fedft only; {self.scheme} has both per device, shared"
                    raise OptionError(name, getattr(self, name), text)
        if self.scheme == "fl_full" and self.lora_targets:
            text = "nothing: --scheme fl_full trains all weights, without adapters"
            raise OptionError("lora_targets", self.lora_targets, text)
        if self.local_steps > 1 and not self.copies:
            allowed = "1, as global adapters take one step per round, or --adapters per_device"
            raise OptionError("local_steps", self.local_steps, allowed)
        if self.fused_attention and (self.dtype != "bfloat16" or jax.default_backend() != "gpu"):
            raise OptionError("fused_attention", True, "it with --dtype bfloat16 on an NVIDIA GPU")

    @property
    def copies(self) -> bool:
        """Whether each device trains a copy of the adapters."""
        return self.scheme != "fedft" or self.adapters == "per_device"

    def partitioner(self) -> Partitioner:
        """Who holds what.

        Raises:
          OptionError: an unknown partitioner.
        """
        try:
            return partitioner_named(self.partition)
        except ValueError as error:
            allowed = str(error).removeprefix("give ")
            raise OptionError("partition", self.partition, allowed) from error

    def lora(self, checkpoint: Checkpoint) -> LoraConfig:
        """The adapters' configuration.

        Raises:
          OptionError: a target that the backbone has not.
        """
        every_layer = tuple(name for name in TARGETS if name != "pooler")  # SFT's 18 D r
        of_scheme = checkpoint.model.default_targets() if self.scheme == "fedft" else every_layer
        targets = self.lora_targets or of_scheme
        lora = LoraConfig(
            self.lora_rank,
            self.lora_alpha,
            targets,
            dropout=self.lora_dropout,
            per_device=self.copies,
        )
        if not set(targets) <= set(allowed := checkpoint.model.lora_targets()):
            pooling = checkpoint.model.pooling
            text = f"some of {', '.join(allowed)}, the layers there are with pooling {pooling}"
            raise OptionError("lora_targets", targets, text)
        return lora


class Prepared(NamedTuple):
    """A checkpoint and its data, ready to run."""

    checkpoint: Checkpoint
    dataset: Dataset
    scheme: Scheme
    partitioner: Partitioner

    @property
    def task(self) -> Task:
        """What is fine-tuned, and on what."""
        return Task(self.scheme, self.checkpoint.params, self.dataset, self.partitioner)


def prepare(config: FineTuneConfig, progress: Progress | None = None) -> Prepared:
    """Read checkpoint and data, and check that they go together.

    Args:
      config: the options.
      progress: is told (stage, done, total) while data is decoded.

    Returns:
      What a run needs.

    Raises:
      OptionError: an option that is wrong, or wrong for this checkpoint or data set.
      CheckpointError, ValueError: a checkpoint or a data set that cannot be read.
    """
    config.check()
    checkpoint = from_pretrained(
        config.model,
        pooling=config.pooling,
        image_size=config.image_size,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.dtype),
        remat=config.remat,
        fused_attention=config.fused_attention,
    )
    sees_images = isinstance(checkpoint.model, ViT)
    dataset = _load(config, checkpoint, sees_images, progress)
    if sees_images == isinstance(dataset.train_inputs, dict):
        kinds = ("images", "texts") if sees_images else ("texts", "images")
        raise OptionError(
            "data", config.data, f"{kinds[0]}, which {config.model} reads; these are {kinds[1]}"
        )
    return _assembled(config, checkpoint, dataset)


def prepare_again(config: FineTuneConfig, prepared: Prepared) -> Prepared:
    """The same checkpoint and data under another scheme, partition or network.

    Args:
      config: the options; those of checkpoint and data are not read again.
      prepared: from `prepare`.

    Returns:
      What a run needs.

    Raises:
      OptionError: an option that is wrong, or wrong for this checkpoint or data set.
    """
    config.check()
    return _assembled(config, prepared.checkpoint, prepared.dataset)


def _assembled(config: FineTuneConfig, checkpoint: Checkpoint, dataset: Dataset) -> Prepared:
    """Make the scheme and check that all goes together."""
    samples = len(dataset.train_labels)
    if config.devices > samples:
        raise OptionError("devices", config.devices, f"1 to {samples}, the training samples")
    config.check_scheme(checkpoint.model.num_hidden_layers)
    sees_images = isinstance(checkpoint.model, ViT)
    common = fedft(
        checkpoint.model,
        dataset.num_outputs,
        lora=config.lora(checkpoint),
        head=checkpoint.make_head(dataset.num_outputs),
        task=dataset.task,
        transform=_transform(config, checkpoint, dataset) if sees_images else None,
        batch_size=config.batch_size,
        optimizer=OPTIMIZERS[config.optimizer],
        devices_per_step=config.devices_per_step,
        heads=config.heads,
        local_steps=config.local_steps,
        schedule=config.schedule(),
    )
    scheme = config.in_scheme(common)
    _check_inputs(config, checkpoint, dataset, scheme)
    world = shapes_only(checkpoint.params, dataset.train_inputs)
    try:
        check_upload(upload_length(scheme, world), scheme)
    except UploadError as error:
        name = config.upload_codec
        raise OptionError("upload_codec", name, f"{error.fix}: {error.problem}") from error
    if config.device_memory_mib is not None:
        limits_mib = per_device("device_memory_mib", config.device_memory_mib, config.devices)
        check_device_memory(limits_mib, scheme, config.optimizer, world)
    partitioner = config.partitioner()
    try:
        partitioner(0, dataset.train_labels, config.devices)
    except ValueError as error:
        allowed = f"one that fits the data ({error})"
        raise OptionError("partition", config.partition, allowed) from error
    return Prepared(checkpoint, dataset, scheme, partitioner)


def _load(
    config: FineTuneConfig, checkpoint: Checkpoint, sees_images: bool, progress: Progress | None
) -> Dataset:
    if config.data == "digits":
        return digits()
    try:
        return load(
            config.data,
            data_dir=config.data_dir,
            tokenizer=None if sees_images else checkpoint.folder,
            max_length=config.max_length,
            max_train=config.max_train,
            max_test=config.max_test,
            progress=progress,
        )
    except (ValueError, OSError) as error:
        raise OptionError("data", config.data, f"a data set that can be read ({error})") from error


def _transform(config: FineTuneConfig, checkpoint: Checkpoint, dataset: Dataset) -> ImageTransform:
    try:
        transform = ImageTransform.from_checkpoint(checkpoint.folder)
    except (ValueError, OSError) as error:
        allowed = f"a checkpoint with a plain image processor ({error})"
        raise OptionError("model", config.model, allowed) from error
    stored = dataset.train_inputs.shape[1]  # crops are taken before resizing
    return dataclasses.replace(
        transform,
        image_size=config.image_size or transform.image_size,
        crop_padding=stored // 8 if config.augment else 0,
        flip=config.augment,
    )


def _check_inputs(
    config: FineTuneConfig, checkpoint: Checkpoint, dataset: Dataset, scheme: Scheme
) -> None:
    """The model's tables hold all tokens, or its patches and positions fit the images."""
    model = checkpoint.model
    if isinstance(model, Bert):
        splits = (dataset.train_inputs, dataset.test_inputs)
        length = dataset.train_inputs["input_ids"].shape[1]
        positions = model.max_position_embeddings - (model.first_position or 0)
        if length > positions:
            allowed = f"1 to {positions}, the positions of {config.model}"
            raise OptionError("max_length", length, allowed)
        for name, rows in (
            ("input_ids", model.vocab_size),
            ("token_type_ids", model.type_vocab_size),
        ):
            highest = max(int(inputs[name].max()) if name in inputs else 0 for inputs in splits)
            if rows and highest >= rows:
                allowed = (
                    f"one with its own tokenizer ({name} {highest}, its table has {rows} rows)"
                )
                raise OptionError("model", config.model, allowed)
        return
    shape = dataset.train_inputs.shape[1:]
    sample = jax.ShapeDtypeStruct((1, *shape), dataset.train_inputs.dtype)

    def run(images: jax.Array) -> jax.Array:
        prepared = images if scheme.transform is None else scheme.transform(images)
        return cast(jax.Array, model.apply({"params": checkpoint.params}, prepared))

    try:
        jax.eval_shape(run, sample)
    except (ValueError, FlaxError) as error:
        reason = str(error).split(" (https")[0].rstrip(".")
        height, width, channels = shape
        allowed = f"images that {config.model} reads, not {height}×{width}×{channels} ({reason})"
        raise OptionError("data", config.data, allowed) from error


def fine_tune(
    config: FineTuneConfig,
    prepared: Prepared,
    *,
    observe: Observe = lambda policy: Observer(),
    resume_folder: Path | None = None,
) -> xr.Dataset:
    """Fine-tune under every policy, and keep what was trained.

    Args:
      config: the options.
      prepared: from `prepare`.
      observe: makes what is told about a policy's run.
      resume_folder: keeps checkpoints; a run that was stopped goes on from there.

    Returns:
      A data set with dimensions policy, seed, round, eval_round and device. Where a
      `resume_folder` is given, `config.out` holds the weights and `run.json`.

    Raises:
      OptionError: `resume_folder` holds a run with other options; the round does not fit into the
        memory.
      NonFiniteError: the training diverged, or a delay is not finite.
    """
    result = compare_policies(
        config,
        f"{config.scheme}: {config.model} on {config.data}, {config.partition} over "
        f"{config.devices} devices",
        prepared.task,
        observe=observe,
        resume_folder=resume_folder,
        weights_path=functools.partial(weights_path, config.out) if resume_folder else None,
    )
    if resume_folder is not None:
        save_card(config.out, _card(config, prepared))
    return result


def _card(config: FineTuneConfig, prepared: Prepared) -> RunCard:
    checkpoint, dataset = prepared.checkpoint, prepared.dataset
    local = Path(checkpoint.source).expanduser()
    return RunCard(
        checkpoint=str(local.resolve()) if local.is_dir() else checkpoint.source,
        pooling=checkpoint.model.pooling,
        image_size=config.image_size,
        lora=prepared.scheme.model.lora,
        task=dataset.task,
        num_outputs=dataset.num_outputs,
        label_names=dataset.label_names,
        policies=config.policies,
        seeds=config.seeds,
        configuration=dataclasses.asdict(config),
    )
