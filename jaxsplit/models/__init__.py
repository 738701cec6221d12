"""Backbones, their adapters, and where they are cut."""

from jaxsplit.models.lora import LoraConfig, LoraDense
from jaxsplit.models.pretrain import pretrain
from jaxsplit.models.split import Halves, SplitModel, split, split_weights
from jaxsplit.models.vit import ViT

__all__ = [
    "Halves",
    "LoraConfig",
    "LoraDense",
    "SplitModel",
    "ViT",
    "pretrain",
    "split",
    "split_weights",
]
