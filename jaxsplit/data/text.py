"""Texts to tokens, with the tokenizer of the checkpoint that reads them."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsplit.data.sources.base import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000
_TRUNCATED_SHARE = 0.05  # beyond it, a warning
_TIMEOUT_S = 10.0  # of the question whether the hub is there


def load_tokenizer(
    tokenizer: "str | Path | PreTrainedTokenizerBase",
) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint.

    Args:
      tokenizer: folder or hub id of a checkpoint; what is on this machine comes first. A tokenizer
        is returned as it is.

    Returns:
      A tokenizer of the transformers library.

    Raises:
      ValueError: none can be loaded from there.

    Example:
      >>> load_tokenizer("/no/such/folder")
      Traceback (most recent call last):
      ValueError: tokenizer='/no/such/folder': no such folder: give the folder or the hub id of ...
    """
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    fix = "give the folder or the hub id of a checkpoint with its tokenizer files"
    folder, name = Path(tokenizer).expanduser(), str(tokenizer)
    if not folder.exists() and (folder.is_absolute() or name.count("/") > 1 or name[:1] in ".~"):
        raise ValueError(f"tokenizer={name!r}: no such folder: {fix}")
    import huggingface_hub
    from transformers import AutoTokenizer

    try:
        loaded: PreTrainedTokenizerBase
        if folder.exists():
            loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        else:
            try:
                loaded = AutoTokenizer.from_pretrained(name, local_files_only=True)
            except (OSError, ValueError):  # not in the cache
                huggingface_hub.HfApi().model_info(name, timeout=_TIMEOUT_S)
                loaded = AutoTokenizer.from_pretrained(name)
        if len(loaded) <= len(loaded.all_special_tokens):  # what transformers makes of no files
            raise ValueError("there is no vocabulary")
        return loaded
    except Exception as error:  # files, JSON and network can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"tokenizer={name!r}: not loaded ({reason}): {fix}") from error


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A hash of all that decides which tokens a text becomes.

    Args:
      tokenizer: of the transformers library.

    Returns:
      Hexadecimal digits.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    for state in ("truncation", "padding"):  # left over from the last call
        rules.pop(state, None)
    about = [
        type(tokenizer).__name__,
        rules or sorted(tokenizer.get_vocab().items()),
        repr(tokenizer.special_tokens_map),
        tokenizer.padding_side,
        tokenizer.truncation_side,
        tokenizer.model_max_length,
        sorted(tokenizer.model_input_names),
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def tokenize(
    tokenizer: "PreTrainedTokenizerBase",
    texts: list[str],
    pairs: list[str] | None = None,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Turn texts into tokens of one fixed length.

    A longer text is truncated ("longest_first": of a pair, tokens go from the longer one); a
    warning tells where that befell more than 5 % of them.

    Args:
      tokenizer: of the checkpoint that reads the tokens.
      texts: M texts, or the first of each pair.
      pairs: the second of each pair.
      max_length: S; None takes the longest text, rounded up to a multiple of 8, at most what the
        model can read.
      progress: is told ("tokenizing", done, total).

    Returns:
      `input_ids`, `attention_mask` and, if the tokenizer gives them, `token_type_ids`, each
      [M, S] int32.

    Raises:
      ValueError: no texts; pairs of another number; a `max_length` without room for a token, or
        beyond the model's; a tokenizer without padding token.

    Example:
      >>> from tokenizers import Tokenizer, models, pre_tokenizers
      >>> from transformers import PreTrainedTokenizerFast
      >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2}, "[UNK]"))
      >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
      >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
      >>> tokenize(tokenizer, ["good", "good film"], max_length=3)["input_ids"].tolist()
      [[2, 0, 0], [2, 1, 0]]
    """
    if not texts or (pairs is not None and len(pairs) != len(texts)):
        second = "" if pairs is None else f" and {len(pairs)} second ones"
        raise ValueError(f"{len(texts)} texts{second}: give at least one, and as many second ones")
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token: set tokenizer.pad_token")
    lowest = tokenizer.num_special_tokens_to_add(pair=pairs is not None) + 1
    limit = tokenizer.model_max_length if max_length is None else max_length
    if not lowest <= limit <= tokenizer.model_max_length:
        raise ValueError(
            f"max_length={limit}: choose {lowest} to {tokenizer.model_max_length}, which the "
            "checkpoint can read"
        )
    rows: dict[str, list[np.ndarray]] = {}
    num_truncated = 0
    for start in range(0, len(texts), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        encoded, truncated = _encode(tokenizer, texts[chunk], pairs and pairs[chunk], limit)
        num_truncated += truncated
        for key, values in encoded.items():
            rows.setdefault(key, []).extend(np.array(value, np.int32) for value in values)
        if progress:
            progress("tokenizing", min(start + _CHUNK, len(texts)), len(texts))
    if num_truncated > _TRUNCATED_SHARE * len(texts):
        warnings.warn(
            f"{num_truncated / len(texts):.0%} of the texts are longer than max_length={limit} "
            "tokens and were truncated",
            stacklevel=2,
        )
    longest = max(map(len, rows["input_ids"]))
    length = max_length or min(-(-longest // 8) * 8, tokenizer.model_max_length)
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    left = tokenizer.padding_side == "left"
    tokens = {}
    for key, unpadded in rows.items():
        tokens[key] = np.full((len(texts), length), padding.get(key, 0), np.int32)
        for row, value in zip(tokens[key], unpadded, strict=True):
            row[length - len(value) if left else 0 :][: len(value)] = value
    return tokens


def _encode(
    tokenizer: "PreTrainedTokenizerBase", texts: list[str], pairs: list[str] | None, limit: int
) -> tuple[dict[str, list[list[int]]], int]:
    """Tokens without padding, and how many texts had to be truncated to `limit` of them."""
    keys = ("input_ids", "attention_mask", "token_type_ids")
    encoded = tokenizer(texts, pairs, truncation=False, verbose=False)
    tokens = {key: list(encoded[key]) for key in keys if key in encoded}
    long = [row for row, ids in enumerate(tokens["input_ids"]) if len(ids) > limit]
    if long:
        shorter = tokenizer(
            [texts[row] for row in long],
            pairs and [pairs[row] for row in long],
            truncation="longest_first",
            max_length=limit,
            verbose=False,
        )
        for key in tokens:
            for row, values in zip(long, shorter[key], strict=True):
                tokens[key][row] = values
    return tokens, len(long)
