import re
import warnings
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display import figures
from langadapt_utils.display.html import show, table_html, tokens_html
from langadapt_utils.fertility import UNITS, FertilityReport, measure_fertility
from langadapt_utils.intervals import Interval
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.views import plot_vocabulary_curve


class _Text(HTMLParser):
    """The visible text of a piece of HTML, and the tags that occur."""

    def __init__(self, html: object) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, corpora: dict[str, Corpus]
) -> FertilityReport:
    texts, _ = corpora["hu"].measuring_texts()
    return measure_fertility({"base": tokenizer, "adapted": change.tokenizer}, texts)


@pytest.mark.parametrize("column", UNITS)
def test_a_fertility_figure_states_the_numbers_it_shows(
    column: str, report: FertilityReport
) -> None:
    ax = la.plot_fertility(report, column)
    assert "Hungarian" in ax.get_title(loc="left").replace(
        "\n", " "
    ) and ax.get_xlabel().startswith(UNITS[column])
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(
        list(report.table[column].iloc[::-1])
    )


def test_words_are_drawn_byte_by_byte_in_letters_of_any_script(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    words = {"en": "language", "hu": "nyelvű", "th": "น้ำ"}
    ax = la.plot_bytes(tokenizer, words)
    counts = [len(tokenizer.tokenize(word)) for word in words.values()]
    title = ax.get_title(loc="left").replace("\n", " ")
    assert list(map(int, re.findall(r"\d+", title))) == counts
    assert len(ax.patches) == sum(map(len, words.values())) + sum(counts)
    assert sum(bar.get_width() for bar in ax.patches) == 2 * sum(
        len(word.encode()) for word in words.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a letter that no font has
        show(ax)


def test_a_figure_is_drawn_where_it_is_shown_and_nowhere_else(change: VocabularyChange) -> None:
    plt.close("all")
    plot_vocabulary_curve(change, "hu")
    assert plt.get_fignums() == []


def test_figures_draw_into_given_axes(change: VocabularyChange) -> None:
    figure, ax = plt.subplots()
    assert plot_vocabulary_curve(change, "hu", ax=ax) is ax
    plt.close(figure)


def test_a_shown_figure_has_alternative_text() -> None:
    _, ax = plt.subplots()
    ax.set_title("A <finding>", loc="left")
    ax.set_xlabel("tokens")
    html = str(show(ax, caption="a & b"))
    assert 'alt="A &lt;finding&gt;. Shown: tokens."' in html and "a &amp; b" in html
    assert "data:image/png;base64," in html


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(colour)
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("colour", [figures.ENGLISH, figures.TARGET, figures.GREY])
def test_colours_of_figures_can_be_read_as_text(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5  # WCAG AA, on white


@given(
    text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=40),
    caption=st.text("<>&\"'abc", max_size=10),
)
def test_tables_show_their_text_and_nothing_more(text: str, caption: str) -> None:
    parsed = _Text(table_html(pd.DataFrame({"a": [text]}), caption=caption))
    assert parsed.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert re.sub(r"\s", "", text) in re.sub(r"\s", "", parsed.text)


def test_estimates_and_missing_values_are_readable() -> None:
    html = str(
        table_html(
            pd.DataFrame(
                {"change": [Interval(0.5, 0.4, 0.6, 3)], "parity": [float("nan")], "ok": [True]}
            )
        )
    )
    assert (
        "0.500 <small>[0.400, 0.600]</small>" in html and ">–</td>" in html and ">yes</td>" in html
    )


@given(text=st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40))
@settings(deadline=None)
def test_coloured_tokens_show_the_whole_text(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    parsed = _Text(tokens_html(tokenizer, text, language="hu"))
    shown = re.sub(r"⟨([0-9A-F]{2})⟩", lambda match: chr(0xDC00 + int(match[1], 16)), parsed.text)
    if not set(text) & set("⟨⟩␣"):
        assert shown.encode("utf-8", "surrogateescape").decode() == text.replace(" ", "␣")
    assert parsed.tags <= {"p", "span"}


def test_language_and_direction_are_said(tokenizer: PreTrainedTokenizerFast) -> None:
    assert 'lang="ar" dir="rtl"' in str(tokens_html(tokenizer, "سلام", language="ar"))
    assert 'lang="th" dir="ltr"' in str(tokens_html(tokenizer, "ไทย", language="th", label="base"))


def test_what_is_not_known_is_an_empty_cell() -> None:
    assert '<td style="text-align:left"></td>' in str(
        table_html(pd.DataFrame({"change": [None]}, dtype=object))
    )
