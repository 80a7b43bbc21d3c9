"""What tests of vocabularies share: tokenizers of every family, text, and counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import nbformat
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from helpers.tiny import sentencepiece_bpe, train_tokenizer, unigram
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.tokens import bytes_surface
from langadapt_utils.vocabulary.change import VocabularyChange

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# Whatever people type: any Unicode, much of the scripts that this is about, and characters that a
# renaming could trip over (private use, noncharacters, NUL, byte tokens, spaces of every kind,
# right-to-left text, emoji sequences).
TEXT = (
    st.text(max_size=50)
    | st.text("aábcdeéőű ศกุ์่าเ0123456789.,'\n\t", max_size=50)
    | st.text(
        "\x00\ue000\uf8ff\U000f0000\U0010fffd\uffff\ufdd0\u00a0\u2028▁Ġ\u200d\ufe0f👩🏽שلا\u202e",
        max_size=50,
    )
    | st.lists(
        st.sampled_from(["<0xE0>", "▁▁", "👩🏽\u200d🚀", "ที่", "szép", "\r\n", "e\u0301"]),
        max_size=9,
    ).map("".join)
)


# Word patterns as published with each model; None is the one built into the byte-level pre-
# tokenizer (GPT-2).
PATTERNS = {
    "gpt2": None,
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "ranges": r" ?[A-Za-zÀ-ɏ\p{Lo}]+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
}


@cache
def with_pattern(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with one of these patterns."""
    return train_tokenizer(["some English text, don't mind"], size=270, pattern=PATTERNS[name])


def without_bytes(tokenizer: PreTrainedTokenizerFast, text: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that has no token for the bytes of a text."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    for letter in bytes_surface(text.encode()):
        data["model"]["vocab"].pop(letter, None)
    backend = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=tokenizer.bos_token)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def token_total(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> int:
    return sum(len(encode(tokenizer, text)) for text in texts)


def failed(change: VocabularyChange) -> list[str]:
    return [f"{check.claim}: {check.detail}" for check in change.audit if not check.passed]


def english(corpora: dict[str, Corpus]) -> dict[str, list[str]]:
    return {"en": list(corpora["hu"].train["en"]["text"])}


def llama3(texts: list[str]) -> PreTrainedTokenizerFast:
    """A word that is a token is taken as it is, whatever its merges (Llama 3), and text is composed
    first (Qwen).
    """
    tokenizer = train_tokenizer(texts, pattern=PATTERNS["llama3"])
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["model"]["ignore_merges"] = True
    spec["normalizer"] = {"type": "NFC"}
    backend = Tokenizer.from_str(json.dumps(spec))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


FAMILIES: dict[str, Callable[[list[str]], PreTrainedTokenizerFast]] = {
    "byte-level": train_tokenizer,
    "llama3": llama3,
    "sentencepiece": sentencepiece_bpe,
    "metaspace": lambda texts: sentencepiece_bpe(texts, metaspace=True),
    "unigram": unigram,
}


def run_checks_of_notebook_2(
    base: PreTrainedTokenizerFast, change: VocabularyChange, sample: str
) -> None:
    """Run the cell in which notebook 2 checks its claims."""
    notebook = nbformat.read(next(NOTEBOOKS.glob("02_*.ipynb")), as_version=4)
    (checks,) = (cell.source for cell in notebook.cells if "given_back" in cell.source)
    read = SimpleNamespace(tokenizer=base)
    exec(checks, {"la": la, "base": read, "change": change, "sample": sample})
