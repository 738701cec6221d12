"""Backbones, their adapters, and where they are cut."""

from jaxsplit.models.base import Activations, Backbone
from jaxsplit.models.bert import Bert
from jaxsplit.models.blocks import by_block, stack_blocks
from jaxsplit.models.checkpoint_files import CheckpointError
from jaxsplit.models.heads import TASKS, LinearHead, MlpHead, Task, task_named
from jaxsplit.models.lora import LoraConfig, LoraDense, adapter_count, count, merge, unmerge
from jaxsplit.models.pretrain import pretrain
from jaxsplit.models.pretrained import Checkpoint, from_pretrained
from jaxsplit.models.split import Halves, SplitModel, join_weights, split, split_weights
from jaxsplit.models.vit import ViT

__all__ = [
    "TASKS",
    "Activations",
    "Backbone",
    "Bert",
    "Checkpoint",
    "CheckpointError",
    "Halves",
    "LinearHead",
    "LoraConfig",
    "LoraDense",
    "MlpHead",
    "SplitModel",
    "Task",
    "ViT",
    "adapter_count",
    "by_block",
    "count",
    "from_pretrained",
    "join_weights",
    "merge",
    "pretrain",
    "split",
    "split_weights",
    "stack_blocks",
    "task_named",
    "unmerge",
]
