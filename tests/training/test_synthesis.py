from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import ModelError
from langadapt_utils.models import Base
from langadapt_utils.recipe import Recipe
from langadapt_utils.training import synthesis
from langadapt_utils.training.synthesis import synthesize_english

RECIPE = Recipe.profile(
    "smoke",
    overrides={
        "mixture.sequence_length": 32,
        "mixture.english_share": 0.5,
        "training.budget_tokens": 3_200,
    },
)


@pytest.fixture
def base(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Base:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    return saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")


def test_the_models_own_text_stands_in_for_english(base: Base, corpora: dict[str, Corpus]) -> None:
    corpus = corpora["hu"]
    before = torch.random.get_rng_state()
    sampled = synthesize_english(corpus, base, RECIPE)
    assert torch.equal(before, torch.random.get_rng_state())
    texts = list(sampled.train["en"]["text"])
    sizes = [len(ids) for ids in base.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert sum(sizes) >= 1_600 and not set(texts) & set(corpus.train["en"]["text"])
    assert list(sampled.heldout["en"]["text"]) == list(corpus.heldout["en"]["text"])
    assert list(sampled.train["hu"]["text"]) == list(corpus.train["hu"]["text"])


def test_samples_are_made_once_and_more_only_where_more_are_needed(
    base: Base, corpora: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(synthesize_english(corpora["hu"], base, RECIPE).train["en"]["text"])
    longer = RECIPE.model_copy(
        update={"training": RECIPE.training.model_copy(update={"budget_tokens": 9_600})}
    )
    more = list(synthesize_english(corpora["hu"], base, longer).train["en"]["text"])
    assert more[: len(first)] == first and len(more) > len(first)
    monkeypatch.setattr(synthesis, "_sample", None)
    assert list(synthesize_english(corpora["hu"], base, RECIPE).train["en"]["text"]) == more


def test_a_model_that_writes_nothing_is_refused(
    base: Base, corpora: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.tokenizer, "batch_decode", lambda ids, **_: [" "] * len(ids))
    with pytest.raises(
        ModelError, match=r"writes no text by itself: set mixture\.english_from=text"
    ):
        synthesize_english(corpora["hu"], base, RECIPE)
