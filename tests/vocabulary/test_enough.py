from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary import enough
from langadapt_utils.vocabulary.enough import Allowance, text_allowance, token_numbers


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
    assert many.passes == pytest.approx(10 * few.passes) and many.seen > few.seen
    assert 0 < few.seen < 1 and few.tokens == 300 and few.size > 100_000


def test_the_sentence_follows_the_size() -> None:
    small = Allowance("hu", 40_000, 12.0, 1_000, 0.09)
    assert str(small).startswith("40 kB of Hungarian: expect spelling and frequent words")
    assert "reads it 12.0 times, and 9% of 1,000 new tokens are seen at least 20" in str(small)
    assert "some knowledge" in str(replace(small, size=300_000_000))


def test_each_number_of_tokens_is_told_apart(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    found = token_numbers(tokenizer, corpora["hu"], recipe(), [50, 200, 800, 10**6])
    assert found.new_tokens.tolist() == [50, 200, 800]  # the text is not enough for a million
    assert found.saved.is_monotonic_increasing and found.passes.is_monotonic_increasing
    assert found.seen.iloc[0] == 1 > found.seen.iloc[-1] > 0
    whole = token_numbers(tokenizer, corpora["hu"], recipe(), [200]).iloc[0]
    assert whole.saved == found.saved.iloc[1] and whole.seen == found.seen.iloc[1]


def test_a_sample_of_a_large_text_tells_as_much(
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = token_numbers(tokenizer, corpora["hu"], recipe(), [200]).iloc[0]
    monkeypatch.setattr(enough, "SAMPLE", 60_000)
    part = token_numbers(tokenizer, corpora["hu"], recipe(), [200]).iloc[0]
    assert part.bytes == whole.bytes and part.passes != whole.passes
    assert part.passes == pytest.approx(whole.passes, rel=0.1)
    assert part.saved == pytest.approx(whole.saved, rel=0.15)
