import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from langadapt_utils.display.html import cuts_html, show, table_html
from langadapt_utils.intervals import Interval


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


def test_a_shown_figure_has_alternative_text() -> None:
    _, ax = plt.subplots()
    ax.set_title("A <finding>", loc="left")
    ax.set_xlabel("tokens")
    html = str(show(ax))
    assert 'alt="A &lt;finding&gt;. Shown: tokens."' in html
    assert "data:image/png;base64," in html


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


def test_what_is_not_known_is_an_empty_cell() -> None:
    assert '<td style="text-align:left"></td>' in str(
        table_html(pd.DataFrame({"change": [None]}, dtype=object))
    )


@given(text=st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40))
@settings(deadline=None)
def test_cut_pieces_show_the_whole_text(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    parsed = _Text(cuts_html(tokenizer, text, language="hu"))
    shown = parsed.text.replace(" ", "").replace("◌", "")
    assert shown == text.replace(" ", "␣").replace("◌", "")
    assert parsed.tags <= {"p", "span"}


def test_language_and_direction_are_said(tokenizer: PreTrainedTokenizerFast) -> None:
    assert 'lang="ar" dir="rtl"' in str(cuts_html(tokenizer, "سلام", language="ar"))
    assert 'lang="th" dir="ltr"' in str(cuts_html(tokenizer, "ไทย", language="th", label="base"))


def test_a_mark_that_a_cut_tears_off_stands_on_a_circle(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    parsed = _Text(cuts_html(tokenizer, "กิน <b>", language="th", label="cuts & marks"))
    pieces = [
        piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("กิน <b>")
    ]
    assert "◌ิ" in parsed.text and parsed.tags == {"p", "b", "br", "span"}
    assert f"cuts & marks {len(pieces)} pieces, 1 marks cut off" in parsed.text
