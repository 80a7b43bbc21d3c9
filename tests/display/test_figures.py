import re
import warnings
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display import figures
from langadapt_utils.display.html import Html, show, table_html, tokens_html
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.fertility import UNITS, FertilityReport, measure_fertility
from langadapt_utils.intervals import Interval
from langadapt_utils.training.views import live_curve
from langadapt_utils.vocabulary.change import VocabularyChange


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


@pytest.fixture(scope="module")
def scores() -> Scores:
    documents = pd.DataFrame(
        [
            {
                "model": model,
                "language": language,
                "source": source,
                "domain": domain,
                "id": f"{domain}{i}",
            }
            | {
                "bits": (100 + i) * (0.7 if model == "adapted" and language == "hu" else 1.0),
                "bytes": 50,
            }
            for model in ("base", "adapted")
            for language, source in (("hu", "builtin"), ("en", "builtin"), ("en", "wikipedia"))
            for domain in ("news", "science")
            for i in range(5)
        ]
    )
    items = pd.DataFrame(
        [
            {"model": model, "language": "hu", "kind": "pairs", "id": i, "chance": 0.5}
            | {"correct": model == "adapted" or i % 2 == 0}
            for model in ("base", "adapted")
            for i in range(40)
        ]
    )
    return Scores(["base", "adapted"], "hu", documents, items, [], 200)


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


def test_tokens_are_counted_against_the_first() -> None:
    ax = la.plot_token_counts({"base": 200, "few": 150, "many": 50}, "Thai")
    title = ax.get_title(loc="left").replace("\n", " ")
    assert title == "Thai tokens saved: 25% with few, 75% with many"
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0.75, 1]


def test_the_curve_states_what_is_saved(change: VocabularyChange) -> None:
    ax = la.plot_vocabulary_curve(change, "hu")
    saved = 1 - change.curve[200] / change.curve[0]
    assert f"200 new tokens save {saved:.0%}" in ax.get_title(loc="left").replace("\n", " ")


def test_changes_are_drawn_with_their_intervals(scores: Scores) -> None:
    ax = la.plot_changes(scores)
    assert "Hungarian falls by 30.0%" in ax.get_title(loc="left").replace("\n", " ")
    widths = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    expected = [(change.low, change.high) for change in scores.bits_per_byte().change.iloc[::-1]]
    assert [tuple(width) for width in widths[:3]] == [pytest.approx(pair) for pair in expected]


def test_domains_and_accuracy_state_their_finding(scores: Scores) -> None:
    domains, accuracy = la.plot_domains(scores), la.plot_accuracy(scores)
    assert "Hungarian gains most on" in domains.get_title(loc="left").replace("\n", " ")
    assert (
        accuracy.get_title(loc="left").replace("\n", " ")
        == "Accuracy changed beyond doubt on: Hungarian minimal pairs"
    )


def test_figures_of_rows_tell_their_lengths_and_their_spread() -> None:
    torch.manual_seed(0)
    old = torch.randn(400, 8)
    rows = {"old rows": old, "subword_mean": old[:100] / 2, "random": 2 * old[100:200]}
    norms = la.plot_norms(rows)
    usual, half = (matrix.norm(dim=1).median().item() for matrix in (old, old[:100] / 2))
    title = norms.get_title(loc="left").replace("\n", " ")
    assert (
        title
        == f"Rows by subword mean are {half / usual:.0%} as long as old rows ({half:.2f} against {usual:.2f})"
    )
    title = la.plot_map(rows).get_title(loc="left").replace("\n", " ")
    shares = [int(share) for share in re.findall(r"(\d+)%", title)]
    assert shares[0] == pytest.approx(50, abs=12) and shares[1] == pytest.approx(200, abs=40)


@pytest.mark.parametrize("languages", [("target", "en"), ("target",), ("en",)])
def test_training_is_drawn_for_the_languages_it_had(languages: tuple[str, ...]) -> None:
    steps = [
        {"tokens": 10 * i, "bits_per_byte": {code: 3 - i / 10 for code in languages}}
        for i in range(1, 12)
    ]
    ax = la.plot_training(steps, "th")
    assert len(ax.lines) == 2 * len(languages) and (
        "Thai" in ax.get_title(loc="left").replace("\n", " ")
    ) == ("target" in languages)


def test_a_figure_is_drawn_where_it_is_shown_and_nowhere_else(change: VocabularyChange) -> None:
    plt.close("all")
    la.plot_vocabulary_curve(change, "hu")
    assert plt.get_fignums() == []


def test_figures_draw_into_given_axes(change: VocabularyChange) -> None:
    figure, ax = plt.subplots()
    assert la.plot_vocabulary_curve(change, "hu", ax=ax) is ax
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


def test_the_curve_is_shown_while_a_model_trains_and_goes_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, told = [], []

    class Place:
        def update(self, what: Html) -> None:
            shown.append(str(what))

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Place())
    report = live_curve("hu", told.append, seconds=0.0)
    report({"doing": "reading"})
    for step in (1, 2, 3):
        report(
            {
                "step": step,
                "steps": 3,
                "tokens": 100 * step,
                "bits_per_byte": {"target": 3.0 - step, "en": 1.0},
            }
        )
    assert len(told) == 4 and len(shown) == 3
    assert (
        all("data:image/png" in one and "Training loss" in one for one in shown[:2])
        and shown[2] == ""
    )


def test_what_is_not_known_is_an_empty_cell() -> None:
    assert '<td style="text-align:left"></td>' in str(
        table_html(pd.DataFrame({"change": [None]}, dtype=object))
    )
