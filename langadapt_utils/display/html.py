"""Results as HTML: figures with alternative text, tables, coloured tokens; everything escaped."""

from __future__ import annotations

import base64
import io
import unicodedata
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from ..intervals import Interval, with_ends
from ..languages import direction
from ..tokens import bytes_as_text, token_spans

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from transformers import PreTrainedTokenizerFast

TOKEN_COLOURS = ("#dceefb", "#fde9c9", "#e3f1dc", "#f3e1f0")  # pale, told apart by borders as well


@dataclass(frozen=True)
class Html:
    """A piece of HTML that Jupyter shows."""

    text: str

    def _repr_html_(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text

    __html__ = __str__  # templates take it as it is


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("langadapt_utils", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


def render(template: str, **values: Any) -> Html:
    """Fill a Jinja template of the package, named by its path; text is escaped, `Html` is not."""
    return Html(_templates().get_template(template).render(**values).strip())


def show(ax: Axes, *, alt: str = "", caption: str = "") -> Html:
    """A figure as an HTML element with alternative text, drawn at twice the screen's resolution.

    Args:
        ax: of the figure.
        alt: what a reader who cannot see it must know; by default its title, which states the
            finding, and what its axes show.
        caption: shown below.
    """
    figure, buffer = ax.figure.get_figure(root=True), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=180, bbox_inches="tight", facecolor="white")
    labels = ", ".join(label for label in (ax.get_xlabel(), ax.get_ylabel()) if label)
    alt = alt or f"{ax.get_title(loc='left')}. Shown: {labels}.".replace("\n", " ")
    width = round(figure.get_size_inches()[0] * 90)
    data = base64.b64encode(buffer.getvalue()).decode()
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    image = f'<img style="width:{width}px;max-width:100%" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return Html(f'<figure style="margin:1em 0">{image}{note}</figure>')


def table_html(table: pd.DataFrame, *, caption: str = "", digits: int = 2) -> Html:
    """A data frame as an HTML table; estimates with their intervals."""

    def cell(value: Any) -> str:
        if isinstance(value, Interval):
            number, _, ends = with_ends(value).partition(" ")
            return f"{number} <small>{ends}</small>"
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return "–" if value != value else f"{value:,.{digits}f}"
        return f"{value:,}" if isinstance(value, int) else escape(str(value))

    left = 'style="text-align:left"'  # Jupyter's own style sets everything to the right
    head = "".join(
        f"<th {left}>{escape(str(name).replace('_', ' '))}</th>" for name in table.columns
    )
    rows = "".join(
        "<tr>" + "".join(f"<td {left}>{cell(value)}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    title = f"<caption {left}>{escape(caption)}</caption>" if caption else ""
    return Html(f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def tokens_html(
    tokenizer: PreTrainedTokenizerFast, text: str, *, language: str, label: str = ""
) -> Html:
    """A text with its tokens coloured in turn; bytes that are no character by themselves stand as
    ⟨E0⟩.

    Args:
        tokenizer: what cuts the text.
        text: shown escaped.
        language: for the browser's choice of font and direction.
        label: stands before it, with the number of tokens.
    """
    raw, pieces = text.encode(), []
    spans = token_spans(tokenizer, text)
    for index, span in enumerate(spans):
        shown = escape(visible_piece(raw[span.start : span.end]))
        style = f"background:{TOKEN_COLOURS[index % len(TOKEN_COLOURS)]};color:#111;border-left:1px solid #777;padding:1px"
        pieces.append(f'<span style="{style}" title="token {span.id}">{shown}</span>')
    return _paragraph("".join(pieces), language, label, f"{len(spans)} tokens", line_height=2)


def cuts_html(
    tokenizer: PreTrainedTokenizerFast, text: str, *, language: str, label: str = ""
) -> Html:
    """A text as its word pattern cuts it, before any merge; a combining mark cut off its letter
    stands on a red ◌.

    Args:
        tokenizer: whose pre-tokenizer cuts the text.
        text: shown escaped.
        language: for the browser's choice of font and direction.
        label: stands before it, with the number of pieces.
    """
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    spans = (
        [span for _, span in pre_tokenizer.pre_tokenize_str(text)]
        if pre_tokenizer
        else [(0, len(text))]
    )
    pieces, torn = [], 0
    for start, end in spans:
        piece = text[start:end]
        cut_off = start > 0 and unicodedata.category(piece[0]).startswith("M")
        torn += cut_off
        border, ground = ("#b00020", "#fde7ea") if cut_off else ("#999", "#f6f6f6")
        shown = escape(("◌" if cut_off else "") + piece.replace(" ", "␣"))
        style = f"border:1px solid {border};background:{ground};color:#111;border-radius:3px;padding:1px 3px"
        pieces.append(f'<span style="{style}">{shown}</span>')
    counted = f"{len(spans)} pieces, {torn} marks cut off"
    return _paragraph(" ".join(pieces), language, label, counted, line_height=2.2)


def _paragraph(spans: str, language: str, label: str, counted: str, *, line_height: float) -> Html:
    """Coloured spans as running text of a language, under a label and what was counted."""
    heading = f"<b>{escape(label)}</b> {counted}<br>" if label else ""
    body = f'<span lang="{escape(language)}" dir="{direction(language)}">{spans}</span>'
    return Html(f'<p style="line-height:{line_height};overflow-wrap:anywhere">{heading}{body}</p>')


def shown_spaces(text: str) -> str:
    """A token inside a sentence: its spaces visible."""
    return text.replace(" ", "␣")


def visible_piece(piece: bytes) -> str:
    """The bytes of a token as text: spaces and line ends visible, a combining mark at the front on
    a ◌.

    Example:
        >>> visible_piece(" a\\n".encode()), visible_piece("ั".encode())
        ('␣a⏎', '◌ั')
    """
    text = shown_spaces(bytes_as_text(piece)).replace("\n", "⏎").replace("\t", "⇥")
    return f"◌{text}" if text and unicodedata.category(text[0]).startswith("M") else text
