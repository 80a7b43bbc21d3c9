"""Controls answer, show errors in place, and have a static twin."""

import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils.display.widgets import Interactive
from langadapt_utils.tokens import token_spans
from langadapt_utils.vocabulary import views
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.sizes import VocabularySizes
from langadapt_utils.vocabulary.views import TokenFacts, token_explorer, vocabulary_size_widget

SAMPLES = {"hu": "A régi híd előtt", "en": "In front of the old bridge"}


@pytest.fixture
def explorer(tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> Interactive:
    return token_explorer(
        {"base": TokenFacts(tokenizer), "adapted": TokenFacts(change.tokenizer, change)}, SAMPLES
    )


def test_the_explorer_follows_what_is_picked_and_typed(
    explorer: Interactive, tokenizer: PreTrainedTokenizerFast
) -> None:
    chosen, typed, cost, answer = explorer.controls.children
    assert "times English" in answer.value and f"{len(SAMPLES['hu'])} characters" in answer.value
    chosen.value = "en"
    assert typed.value == SAMPLES["en"] and "times English" not in answer.value
    typed.value = "ภาษาไทย 🙂"
    assert chosen.value == views.YOURS and "<td" in answer.value and 'lang=""' in answer.value
    assert f">{len(token_spans(tokenizer, typed.value))}</td>" in answer.value
    before = answer.value
    cost.value = 9.0
    assert answer.value != before
    typed.value = ""
    assert "0 characters" in answer.value


def test_texts_that_are_no_translations_have_no_parity(tokenizer: PreTrainedTokenizerFast) -> None:
    *_, answer = token_explorer(
        {"base": TokenFacts(tokenizer)}, SAMPLES, parallel=False
    ).controls.children
    assert "times English" not in answer.value


def test_an_error_is_shown_in_place(explorer: Interactive, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError("no <such> text")

    monkeypatch.setattr("langadapt_utils.vocabulary.views.explore_html", broken)
    _, typed, _, answer = explorer.controls.children
    typed.value = "x"
    assert '<p role="alert"><b>ValueError</b>: no &lt;such&gt; text</p>' in answer.value


def test_the_twin_says_the_same_and_is_hidden_by_the_live_control(explorer: Interactive) -> None:
    *_, answer = explorer.controls.children
    hidden, _, shown = answer.value.partition("</style>")
    name = hidden.removeprefix("<style>#").removesuffix("{display:none}")
    assert str(explorer.twin).startswith(f'<div id="{name}">') and shown in str(explorer.twin)
    assert f"{len(SAMPLES['en'])} characters" in str(explorer.twin)


def test_the_slider_counts_the_readers_own_sentence(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    numbers = list(change.curve)
    table = pd.DataFrame({"new_tokens": numbers, "tokens": list(change.curve.values())})
    table = table.assign(parity=1.0, saved=0.5, megabytes=1.0, compute_per_token=1.0, speed=1.0)
    sizes = VocabularySizes(table, numbers[-1], "hu", 3)
    base, adapted = TokenFacts(tokenizer), TokenFacts(change.tokenizer, change)
    typed, slider, answer = vocabulary_size_widget(
        sizes, base, adapted, text=SAMPLES["hu"]
    ).controls.children
    before, after = (len(token_spans(one, SAMPLES["hu"])) for one in (tokenizer, change.tokenizer))
    assert f"<b>{after} tokens</b> instead of {before}" in answer.value and after < before
    slider.value = 0
    assert f"<b>{before} tokens</b> instead of {before}" in answer.value
    typed.value = "x"
    assert "<b>1 tokens</b> instead of 1" in answer.value
    typed.value = " "
    assert "Your text" not in answer.value
