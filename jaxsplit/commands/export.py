"""`jaxsplit export`: what a run trained, as an adapter for PyTorch and PEFT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax

from jaxsplit.artefacts import RunCard, load_card, load_weights, mean_head
from jaxsplit.files import atomic_path
from jaxsplit.models import Checkpoint, from_pretrained
from jaxsplit.models.peft import export_peft
from jaxsplit.options import OptionError, check_options, check_writable_folder, whole


@dataclass(frozen=True)
class ExportConfig:
    """Write the adapters and a head of a finished run as a PEFT folder, without PyTorch."""

    run: Path
    """The --out folder of `jaxsplit run`."""
    format: Literal["peft"] = "peft"
    """What to write: peft, which `peft.PeftModel.from_pretrained` loads."""
    out: Path | None = None
    """Folder to write; RUN/peft by default."""
    policy: str | None = None
    """Policy whose weights to take; the run's first by default."""
    seed: Annotated[int, whole(0)] = 0
    """Seed whose weights to take."""
    device: Annotated[int | None, whole(0).or_none()] = None
    """Device whose head to take; the mean head, weighted by participation, by default."""
    transformers: Literal["5", "4"] = "5"
    """Module names of a ViT as transformers 5 or 4 has them."""

    @property
    def folder(self) -> Path:
        """Where the adapter goes."""
        return self.out or self.run / "peft"


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    usage: str  # Python that loads it


def export(config: ExportConfig) -> Exported:
    """Write a run's adapters and head.

    Args:
      config: the options.

    Returns:
      The folder, and the code that loads it.

    Raises:
      OptionError: a policy, seed or device that the run has not; a folder that cannot be written.
      ArtefactError: the run's folder is not complete.
      CheckpointError: the checkpoint that was fine-tuned cannot be read any more.
      OSError: the folder cannot be written.
    """
    check_options(config)
    card = load_card(config.run)
    if card.lora is None:
        raise OptionError("run", config.run, "a run with adapters; this one trained all weights")
    policy = card.policies[0] if config.policy is None else config.policy
    if policy not in card.policies:
        raise OptionError("policy", policy, f"one of {', '.join(card.policies)}")
    if config.seed >= card.seeds:
        raise OptionError("seed", config.seed, f"0 to {card.seeds - 1}")
    weights = load_weights(config.run, policy, config.seed)
    num_devices = len(weights.participation)
    if config.device is not None and config.device >= num_devices:
        raise OptionError("device", config.device, f"0 to {num_devices - 1}")
    device = config.device
    if device is None:
        head = mean_head(weights)
    else:
        head = jax.tree.map(lambda leaf: leaf[device], weights.heads)
    checkpoint = from_pretrained(card.checkpoint, pooling=card.pooling, image_size=card.image_size)
    check_writable_folder("out", config.folder)  # last: a wrong option leaves nothing behind
    export_peft(
        config.folder,
        checkpoint,
        card.lora,
        weights.adapters,
        head,
        transformers_4=config.transformers == "4",
    )
    usage = _usage(card, checkpoint, config.folder.resolve())
    with atomic_path(config.folder / "README.md") as path:
        whose = "the mean head" if device is None else f"the head of device {device}"
        path.write_text(
            f"# Adapter of a jaxsplit run\n\nPolicy {policy}, seed {config.seed}, {whose}.\n\n"
            f"```python\n{usage}```\n",
            encoding="utf-8",
        )
    return Exported(config.folder, usage)


def _usage(card: RunCard, checkpoint: Checkpoint, folder: Path) -> str:
    """Python that loads the adapter with its head."""
    family, model = checkpoint.family, checkpoint.model
    if model.pooling == family.pooling:
        extra = f", num_labels={card.num_outputs}, ignore_mismatched_sizes=True"
        auto = family.auto_class
    else:
        extra, auto = "", "AutoModel"
    lines = [
        f"from transformers import {auto}",
        "from peft import PeftModel",
        "",
        f"base = {auto}.from_pretrained({checkpoint.source!r}{extra})",
        f"model = PeftModel.from_pretrained(base, {str(folder)!r}).eval()",
    ]
    if model.pooling != family.pooling:
        lines += [
            "",
            f"# The head is apart: transformers has no {family.prefix} with pooling "
            f"{model.pooling!r} and a head.",
            "from safetensors.torch import load_file",
            f"head = load_file({str(folder / 'head.safetensors')!r})",
            f"# features = {_FEATURES[model.pooling]}",
            '# logits = features @ head["out.weight"].T + head["out.bias"]',
        ]
    if card.image_size is not None:
        lines.append("# call it with interpolate_pos_encoding=True")
    return "\n".join(lines) + "\n"


_FEATURES = {
    "mean": "mean of last_hidden_state over the tokens with attention_mask 1",
    "cls": "last_hidden_state[:, 0]",
    "pooler": "pooler_output",
}
