import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display.html import render
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary import sizes
from langadapt_utils.vocabulary.sizes import RARELY, text_allowance, token_numbers


def recipe(**options: object) -> Recipe:
    names = {name.replace("__", "."): value for name, value in options.items()}
    return Recipe.profile("cpu", overrides=names)


def test_more_budget_reads_more_often_and_shows_more_tokens(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    few, many = (
        token_numbers(tokenizer, corpora["hu"], recipe(training__budget_tokens=budget), [300]).iloc[
            0
        ]
        for budget in (20_000, 200_000)
    )
    assert many.passes == pytest.approx(10 * few.passes) and many.seen > few.seen
    assert 0 < few.seen < 1 and few.new_tokens == 300 and few.bytes > 100_000
    said = text_allowance(
        tokenizer, corpora["hu"], recipe(training__budget_tokens=20_000, vocabulary__tokens=300)
    )
    assert f"reads it {few.passes:.1f} times, and {few.seen:.0%} of 300 new tokens" in said


def test_the_sentence_follows_the_size() -> None:
    row = pd.Series({"bytes": 40_000, "passes": 12.0, "new_tokens": 1_000, "seen": 0.09})
    about = {"name": "Hungarian", "rarely": RARELY}
    small = render("vocabulary/allowance.txt.j2", row=row, **about)
    assert small.startswith("40 kB of Hungarian: expect spelling and frequent words")
    assert "reads it 12.0 times, and 9% of 1,000 new tokens are seen at least 20" in small
    row["bytes"] = 300_000_000
    assert "some knowledge" in render("vocabulary/allowance.txt.j2", row=row, **about)


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
    monkeypatch.setattr(sizes, "SAMPLE", 60_000)
    part = token_numbers(tokenizer, corpora["hu"], recipe(), [200]).iloc[0]
    assert part.bytes == whole.bytes and part.passes != whole.passes
    assert part.passes == pytest.approx(whole.passes, rel=0.1)
    assert part.saved == pytest.approx(whole.saved, rel=0.15)
