"""The families of checkpoints: how their configuration and their names map to a backbone.

A family's table names each part of our parameter tree beside the modules of transformers that
hold it, newest name first: transformers 5 renamed the modules of ViT, files keep the old names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxsplit.models.base import Backbone
from jaxsplit.models.bert import Bert
from jaxsplit.models.heads import LinearHead, MlpHead
from jaxsplit.models.transformer import ACTIVATIONS
from jaxsplit.models.vit import ViT


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint; `{i}` stands for the index of a block."""

    prefix: str  # of the backbone inside a model with a head
    config_class: str  # of transformers, which is imported only where a checkpoint is read
    build: Callable[[Any], dict[str, Any]]  # configuration -> fields of the backbone
    backbone: type[Backbone]
    dense: dict[str, tuple[str, ...]]  # part -> modules with weight and bias
    norms: dict[str, tuple[str, ...]]
    tables: dict[str, tuple[str, ...]]  # part -> names of single tensors
    head: dict[str, str]  # part of the head -> module
    make_head: Callable[[int], Any]
    pooling: str  # what the model with a head of transformers reads
    auto_class: str  # that model, as a user of transformers gets it
    peft_task: str | None  # PEFT's task type


def _same(name: str) -> tuple[str, ...]:
    return (name,)


_BERT_DENSE = {
    "blocks_{i}/attention/query": _same("encoder.layer.{i}.attention.self.query"),
    "blocks_{i}/attention/key": _same("encoder.layer.{i}.attention.self.key"),
    "blocks_{i}/attention/value": _same("encoder.layer.{i}.attention.self.value"),
    "blocks_{i}/attention/attention_output": _same("encoder.layer.{i}.attention.output.dense"),
    "blocks_{i}/mlp_in": _same("encoder.layer.{i}.intermediate.dense"),
    "blocks_{i}/mlp_out": _same("encoder.layer.{i}.output.dense"),
}
_BERT_NORMS = {
    "embedding_norm": _same("embeddings.LayerNorm"),
    "blocks_{i}/attention_norm": _same("encoder.layer.{i}.attention.output.LayerNorm"),
    "blocks_{i}/mlp_norm": _same("encoder.layer.{i}.output.LayerNorm"),
}
_BERT_TABLES = {
    "word_embedding": _same("embeddings.word_embeddings.weight"),
    "position_embedding": _same("embeddings.position_embeddings.weight"),
    "type_embedding": _same("embeddings.token_type_embeddings.weight"),
}
_POOLER = {"pooler": _same("pooler.dense")}


def _common(config: Any) -> dict[str, Any]:
    if config.hidden_act not in ACTIVATIONS:
        raise ValueError(
            f"hidden_act={config.hidden_act!r} is not supported: one of {', '.join(ACTIVATIONS)} is"
        )
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
    }


def _bert(config: Any) -> dict[str, Any]:
    if getattr(config, "is_decoder", False):
        raise ValueError("is_decoder=True: only encoders are supported")
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    if kind != "absolute":
        raise ValueError(f"position_embedding_type={kind!r}: only 'absolute' is supported")
    return _common(config) | {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
    }


def _roberta(config: Any) -> dict[str, Any]:
    return _bert(config) | {"first_position": config.pad_token_id + 1}


def _distilbert(config: Any) -> dict[str, Any]:
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"activation={config.activation!r} is not supported: one of {', '.join(ACTIVATIONS)} is"
        )
    return {
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.hidden_dim,
        "hidden_act": config.activation,
        "layer_norm_eps": 1e-12,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": 0,
    }


def _vit(config: Any) -> dict[str, Any]:
    side = config.patch_size
    if isinstance(side, list | tuple):
        if len(set(side)) > 1:
            raise ValueError(f"patch_size={side}: only square patches are supported")
        side = side[0]
    if getattr(config, "pooler_act", "tanh") != "tanh":
        raise ValueError(f"pooler_act={config.pooler_act!r}: only 'tanh' is supported")
    return _common(config) | {"patch_size": side, "qkv_bias": config.qkv_bias}


_VIT = Family(
    prefix="vit",
    config_class="ViTConfig",
    build=_vit,
    backbone=ViT,
    dense={
        "patch_embedding": _same("embeddings.patch_embeddings.projection"),
        "blocks_{i}/attention/query": (
            "layers.{i}.attention.q_proj", "encoder.layer.{i}.attention.attention.query",
        ),
        "blocks_{i}/attention/key": (
            "layers.{i}.attention.k_proj", "encoder.layer.{i}.attention.attention.key",
        ),
        "blocks_{i}/attention/value": (
            "layers.{i}.attention.v_proj", "encoder.layer.{i}.attention.attention.value",
        ),
        "blocks_{i}/attention/attention_output": (
            "layers.{i}.attention.o_proj", "encoder.layer.{i}.attention.output.dense",
        ),
        "blocks_{i}/mlp_in": ("layers.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
        "blocks_{i}/mlp_out": ("layers.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
        **_POOLER,
    },
    norms={
        "blocks_{i}/attention_norm": (
            "layers.{i}.layernorm_before", "encoder.layer.{i}.layernorm_before",
        ),
        "blocks_{i}/mlp_norm": (
            "layers.{i}.layernorm_after", "encoder.layer.{i}.layernorm_after",
        ),
        "norm": _same("layernorm"),
    },
    tables={
        "cls_token": _same("embeddings.cls_token"),
        "position_embedding": _same("embeddings.position_embeddings"),
    },
    head={"out": "classifier"},
    make_head=LinearHead,
    pooling="cls",
    auto_class="AutoModelForImageClassification",
    peft_task=None,
)  # fmt: skip

_BERT = Family(
    prefix="bert",
    config_class="BertConfig",
    build=_bert,
    backbone=Bert,
    dense=_BERT_DENSE | _POOLER,
    norms=_BERT_NORMS,
    tables=_BERT_TABLES,
    head={"out": "classifier"},
    make_head=LinearHead,
    pooling="pooler",
    auto_class="AutoModelForSequenceClassification",
    peft_task="SEQ_CLS",
)

_ROBERTA = Family(
    prefix="roberta",
    config_class="RobertaConfig",
    build=_roberta,
    backbone=Bert,
    dense=_BERT_DENSE | _POOLER,
    norms=_BERT_NORMS,
    tables=_BERT_TABLES,
    head={"hidden": "classifier.dense", "out": "classifier.out_proj"},
    make_head=MlpHead,
    pooling="cls",
    auto_class="AutoModelForSequenceClassification",
    peft_task="SEQ_CLS",
)


def _relu_head(num_outputs: int) -> MlpHead:
    return MlpHead(num_outputs, "relu")


_DISTILBERT = Family(
    prefix="distilbert",
    config_class="DistilBertConfig",
    build=_distilbert,
    backbone=Bert,
    dense={
        "blocks_{i}/attention/query": _same("transformer.layer.{i}.attention.q_lin"),
        "blocks_{i}/attention/key": _same("transformer.layer.{i}.attention.k_lin"),
        "blocks_{i}/attention/value": _same("transformer.layer.{i}.attention.v_lin"),
        "blocks_{i}/attention/attention_output": _same("transformer.layer.{i}.attention.out_lin"),
        "blocks_{i}/mlp_in": _same("transformer.layer.{i}.ffn.lin1"),
        "blocks_{i}/mlp_out": _same("transformer.layer.{i}.ffn.lin2"),
    },
    norms={
        "embedding_norm": _same("embeddings.LayerNorm"),
        "blocks_{i}/attention_norm": _same("transformer.layer.{i}.sa_layer_norm"),
        "blocks_{i}/mlp_norm": _same("transformer.layer.{i}.output_layer_norm"),
    },
    tables={
        "word_embedding": _same("embeddings.word_embeddings.weight"),
        "position_embedding": _same("embeddings.position_embeddings.weight"),
    },
    head={"hidden": "pre_classifier", "out": "classifier"},
    make_head=_relu_head,
    pooling="cls",
    auto_class="AutoModelForSequenceClassification",
    peft_task="SEQ_CLS",
)

#: Families by `model_type` of a checkpoint's config.json.
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "vit": _VIT,
}

#: Why some relatives are not among them.
UNSUPPORTED = {
    "deit": "it has a distillation token; a DeiT without one is published as model_type 'vit'",
    "albert": "its blocks share weights",
    "deberta-v2": "its attention is disentangled",
}
