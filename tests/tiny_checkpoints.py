"""Tiny checkpoints and data sets on disk, as their tools write them, for tests of the commands."""

import functools
import io
import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from filelock import FileLock

WORDS = (
    "good", "bad", "a", "the", "film", "was", "dull", "fine", "and", "very", "it", "story",
)  # fmt: skip
LENGTH = 12  # rows of the position table


def write_bert(folder, *, words=None, vocab_size=None, model_max_length=None):
    """A random BERT encoder of one block with its own tokenizer; written without PyTorch."""
    import transformers
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(words or WORDS)]
    numbers = {word: index for index, word in enumerate(vocabulary)}
    pieces = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    limit = {"model_max_length": model_max_length} if model_max_length else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], **limit,
    ).save_pretrained(folder)  # fmt: skip
    width = 16
    config = {
        "model_type": "bert", "architectures": ["BertModel"],
        "vocab_size": vocab_size or len(vocabulary), "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": LENGTH,
        "type_vocab_size": 2, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    tensors = {
        "embeddings.word_embeddings.weight": rng.normal(size=(config["vocab_size"], width)),
        "embeddings.position_embeddings.weight": 0.1 * rng.normal(size=(LENGTH, width)),
        "embeddings.token_type_embeddings.weight": 0.1 * rng.normal(size=(2, width)),
        **_norm("embeddings.LayerNorm", width),
        **_dense("pooler.dense", width, width, rng),
    }
    block = "encoder.layer.0"
    for name in ("query", "key", "value"):
        tensors |= _dense(f"{block}.attention.self.{name}", width, width, rng)
    tensors |= _dense(f"{block}.attention.output.dense", width, width, rng)
    tensors |= _dense(f"{block}.intermediate.dense", 24, width, rng)
    tensors |= _dense(f"{block}.output.dense", width, 24, rng)
    tensors |= _norm(f"{block}.attention.output.LayerNorm", width)
    tensors |= _norm(f"{block}.output.LayerNorm", width)
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_vit(folder, blocks=1, epsilon=1e-12, **processor):
    """A random ViT encoder for images of 8 × 8 pixels, with its processor's settings."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    width, rng = 16, np.random.default_rng(1)
    config = {
        "model_type": "vit", "architectures": ["ViTModel"], "hidden_size": width,
        "num_hidden_layers": blocks, "num_attention_heads": 2, "intermediate_size": 24,
        "layer_norm_eps": epsilon, "image_size": 8, "patch_size": 4, "num_channels": 3,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"size": 8, "image_mean": [0.5] * 3, "image_std": [0.25] * 3} | processor
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    patches = _dense("embeddings.patch_embeddings.projection", width, 48, rng)
    weight = "embeddings.patch_embeddings.projection.weight"
    patches[weight] = patches[weight].reshape(width, 3, 4, 4)
    tensors = {
        "embeddings.cls_token": rng.normal(size=(1, 1, width)),
        "embeddings.position_embeddings": 0.1 * rng.normal(size=(1, 5, width)),
        **patches,
        **_norm("layernorm", width),
    }
    for block in (f"encoder.layer.{k}" for k in range(blocks)):  # as in files of transformers 4
        for name in ("query", "key", "value"):
            tensors |= _dense(f"{block}.attention.attention.{name}", width, width, rng)
        tensors |= _dense(f"{block}.attention.output.dense", width, width, rng)
        tensors |= _dense(f"{block}.intermediate.dense", 24, width, rng)
        tensors |= _dense(f"{block}.output.dense", width, 24, rng)
        tensors |= _norm(f"{block}.layernorm_before", width)
        tensors |= _norm(f"{block}.layernorm_after", width)
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _dense(name, rows, columns, rng):
    weight = rng.normal(size=(rows, columns)) / np.sqrt(columns)
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * rng.normal(size=rows)}


def _norm(name, width):
    return {f"{name}.weight": np.ones(width), f"{name}.bias": np.zeros(width)}


def write_sst2(folder, train=48, test=20):
    """Sentences that one word decides."""
    rng = np.random.default_rng(2)

    def rows(count):
        for index in range(count):
            words = list(rng.choice(WORDS[2:], rng.integers(2, 6)))
            words.insert(rng.integers(len(words) + 1), WORDS[index % 2])
            yield f"{' '.join(words)}\t{1 - index % 2}"

    return _write_tsv(folder / "SST-2", "sentence\tlabel", rows(train), rows(test))


def write_stsb(folder, train=48, test=20):
    """Pairs whose score is high if both hold the word `good`."""
    rng = np.random.default_rng(3)
    header = "index genre filename year old_index source1 source2 sentence1 sentence2 score"

    def rows(count):
        for index in range(count):
            first, second = (WORDS[k] + " " + rng.choice(WORDS[2:]) for k in (0, index % 2))
            score = 5.0 * (1 - index % 2) + rng.normal(0, 0.1)
            yield "\t".join([str(index), *"gfyoab", first, second, f"{score:.3f}"])

    return _write_tsv(folder / "STS-B", header.replace(" ", "\t"), rows(train), rows(test))


def _write_tsv(folder, header, train, test):
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("\n".join([header, *train]) + "\n")
    (folder / "dev.tsv").write_text("\n".join([header, *test]) + "\n")
    return folder


def write_pictures(folder, train=40, test=16, side=8):
    """Dark and bright pictures as Parquet files with PNG inside."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(4)
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        images = []
        for index in range(count):
            pixels = rng.integers(0, 100, (side, side, 3)) + 150 * (index % 2)
            stream = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        table = pa.table({"image": images, "label": [index % 2 for index in range(count)]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


_shared: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory):
    """Where `tiny_folder` and `finished_run` write, one place for all workers; import it."""
    base = tmp_path_factory.getbasetemp()
    _shared.append(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@functools.cache
def tiny_folder() -> Path:
    """The folder with everything above."""
    folder = _shared[0] / "tiny"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name("partial")
            write_bert(partial / "bert")
            write_vit(partial / "vit")
            write_sst2(partial)
            write_stsb(partial)
            write_pictures(partial / "pictures")
            partial.rename(folder)
    return folder


def command(*arguments):
    """`jaxsplit ARGUMENTS` in this process, with a cache of its own."""
    import jax

    from jaxsplit.cli import main

    with (
        mock.patch.dict(os.environ, XDG_CACHE_HOME=str(tiny_folder() / "cache")),
        jax.numpy_dtype_promotion("standard"),  # optax's Adam mixes counts and floats
    ):
        main(list(map(str, arguments)))


SHORT = (
    "--devices", 4, "--rounds", 8, "--evaluate-every", 4, "--warmup-rounds", 0, "--batch-size", 8,
)  # fmt: skip


def text_options():
    """SST-2 on BERT with its pooler: two policies, two seeds, Adam, dropout."""
    folder = tiny_folder()
    return (
        "run", "--model", folder / "bert", "--data", folder / "SST-2", *SHORT,
        "--policies", "all_in", "greedy", "--seeds", 2, "--optimizer", "adam",
        "--delay-budget-ns-per-bit", 3,
        "--adapter-learning-rate", 0.02, "--head-learning-rate", 0.02, "--lora-dropout", 0.1,
    )  # fmt: skip


def score_options():
    """STS-B on BERT with mean pooling, in bfloat16."""
    folder = tiny_folder()
    return (
        "run", "--model", folder / "bert", "--data", folder / "STS-B", *SHORT,
        "--policies", "all_in", "--pooling", "mean", "--optimizer", "momentum",
        "--partition", "dirichlet:0.5:bins=2", "--lora-targets", "query", "mlp_out",
        "--lora-rank", 2, "--lora-alpha", 5.5, "--adapter-learning-rate", 0.02,
        "--head-learning-rate", 0.05, "--dtype", "bfloat16", "--remat",
    )  # fmt: skip


def picture_options():
    """Pictures of 8 × 8 pixels on a ViT that sees 16 × 16, augmented."""
    folder = tiny_folder()
    return (
        "run", "--model", folder / "vit", "--data", folder / "pictures", *SHORT,
        "--policies", "all_in", "--image-size", 16, "--augment", "--partition", "shards:1",
        "--adapter-learning-rate", 0.05, "--head-learning-rate", 0.05, "--max-train", 36,
    )  # fmt: skip


def finished_run(kind: str) -> Path:
    """The folder of a run: kind "text", "score" or "picture"; made once for all tests."""
    options = {"text": text_options, "score": score_options, "picture": picture_options}
    out = tiny_folder() / "runs" / kind
    with FileLock(tiny_folder() / f"{kind}.lock"):
        if not (out / "run.png").exists():  # written last
            command(*options[kind](), "--out", out)
    return out
