from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.enough import Allowance, text_allowance


def recipe(**options: object) -> Recipe:
    names = {name.replace("__", "."): value for name, value in options.items()}
    return Recipe.profile("cpu", overrides=names)


def test_more_budget_reads_more_often_and_shows_more_tokens(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    few, many = (
        text_allowance(
            tokenizer,
            corpora["hu"],
            recipe(training__budget_tokens=budget, vocabulary__tokens=300),
        )
        for budget in (20_000, 200_000)
    )
    assert many.passes == pytest.approx(10 * few.passes) and many.learned > few.learned
    assert 0 < few.learned < few.tokens == 300 and few.size > 100_000


def test_the_sentence_follows_the_size() -> None:
    small = Allowance("hu", 40_000, 12.0, 1_000, 90)
    assert str(small).startswith("40 kB of Hungarian: expect spelling and frequent words")
    assert "reads it 12.0 times, and 90 of 1,000 new tokens are seen at least 20" in str(small)
    assert "some knowledge" in str(replace(small, size=300_000_000))
