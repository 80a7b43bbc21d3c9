import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, unigram
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display.widgets import Interactive
from langadapt_utils.tokens import token_spans
from langadapt_utils.vocabulary import views
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.sizes import VocabularySizes
from langadapt_utils.vocabulary.views import (
    LONGEST,
    OPENED,
    TokenFacts,
    explore_html,
    plot_sizes,
    token_explorer,
    vocabulary_size_widget,
)

PIECE = re.compile(r"<summary>(.*?)</summary>", flags=re.DOTALL)


BYTES = re.compile(r"<b>bytes</b> ([0-9A-F ]+)<br>")
SAMPLES = {"hu": "A régi híd előtt", "en": "In front of the old bridge"}


def lines_of(html: str, part: re.Pattern[str] = PIECE) -> list[list[list[str]]]:
    """A part of each token of each stretch, line by line."""
    stretches = html.split('<span class="la-stretch">')[1:]
    return [[part.findall(line) for line in stretch.split("<span>")[1:]] for stretch in stretches]


@pytest.fixture(scope="module")
def facts(tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> dict[str, TokenFacts]:
    return {"base": TokenFacts(tokenizer), "adapted": TokenFacts(change.tokenizer, change)}


@given(text=st.text(max_size=60))
@settings(deadline=None, max_examples=40)
def test_every_token_of_any_text_is_shown_once_in_order(
    facts: dict[str, TokenFacts], text: str
) -> None:
    text = text.encode("utf-8", "ignore").decode()
    html = explore_html(facts, text)
    stretches = lines_of(str(html))
    for line, fact in enumerate(facts.values()):
        shown = [piece for stretch in stretches for piece in stretch[line]]
        assert len(shown) == len(token_spans(fact.tokenizer, text))
        raw = bytes.fromhex(
            " ".join(" ".join(stretch[line]) for stretch in lines_of(str(html), BYTES))
        )
        assert raw == text.encode()


def test_both_lines_of_a_stretch_spell_the_same(facts: dict[str, TokenFacts]) -> None:
    text = "A régi híd, the old bridge"
    stretches = lines_of(str(explore_html(facts, text)), BYTES)
    assert len(stretches) > 3 and any(len(base) > len(adapted) for base, adapted in stretches)
    for base, adapted in stretches:
        assert " ".join(base) == " ".join(adapted)
    assert bytes.fromhex(" ".join(" ".join(base) for base, _ in stretches)).decode() == text


@pytest.mark.parametrize(
    ("text", "seen"),
    [("ที่", "⟨E0⟩"), ("🙂", "⟨F0⟩"), ("<b>&", "&lt;"), ("a\nb", "⏎"), ("", "0 characters")],
)
def test_marks_emoji_fragments_and_markup_are_visible(
    text: str, seen: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    html = str(explore_html({"base": TokenFacts(tokenizer)}, text, language="th"))
    assert seen in html and "<b>&" not in html


def test_a_mark_at_the_front_of_a_token_stands_on_a_circle(corpora: dict[str, Corpus]) -> None:
    letters = sentencepiece_bpe(list(corpora["th"].train["th"]["text"]), size=300)
    assert "◌" in str(explore_html({"base": TokenFacts(letters)}, "ที่"))


def test_a_token_tells_what_it_is_made_of(
    facts: dict[str, TokenFacts], change: VocabularyChange
) -> None:
    new = next(iter(change.added))
    told = facts["adapted"].of(new)
    assert told["id"] == f"{new:,}, new" and " + ".join(
        change.base_text(i) for i in change.base_pieces[new]
    ).replace(" + ", "+").replace(" ", "␣") == told["was"].replace(" + ", "+")
    assert told["merge"].endswith(")")


def test_costs_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    text, english = "A régi híd.", "The old bridge."
    html = str(explore_html({"base": TokenFacts(tokenizer)}, text, english=english, price=2.0))
    count, reference = len(token_spans(tokenizer, text)), len(token_spans(tokenizer, english))
    assert f"{len(text)} characters, {len(text.encode())} bytes" in html and "<td" in html
    assert (
        f"{count / reference:.2f} times English" in html
        and f"{count / len(text) * 1800 * 2 / 1e6:.4f}" in html
    )


def test_long_texts_are_cut_and_said_to_be(facts: dict[str, TokenFacts]) -> None:
    html = str(explore_html(facts, "word " * LONGEST))
    assert (
        f"Only the first {LONGEST:,} characters" in html
        and f"more than {OPENED}" in html
        and "<details" not in html
    )


def test_a_unigram_tokenizer_has_no_merges(corpora: dict[str, Corpus]) -> None:
    facts = TokenFacts(unigram(list(corpora["hu"].train["en"]["text"])))
    assert facts.merges == {} and lines_of(str(explore_html({"u": facts}, "the old bridge")))


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
    assert str(explorer.static).startswith(f'<div id="{name}">') and shown in str(explorer.static)
    assert f"{len(SAMPLES['en'])} characters" in str(explorer.static)


def test_the_slider_counts_the_readers_own_sentence(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    numbers = list(range(0, 201, 50))
    table = pd.DataFrame({"new_tokens": numbers, "tokens": numbers[::-1]})
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


def test_the_curve_states_what_is_saved() -> None:
    table = pd.DataFrame({"new_tokens": [0, 100, 200], "saved": [0.0, 0.3, 0.4]})
    sizes = VocabularySizes(table.assign(parity=float("nan")), 100, "hu", 3)
    title = plot_sizes(sizes).get_title(loc="left").replace("\n", " ")
    assert title.startswith("200 new tokens save 40% of the Hungarian tokens on held-out text")
    assert title.endswith("the knee lies at 100, with 75% of the saving")
