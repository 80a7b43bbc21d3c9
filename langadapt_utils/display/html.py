"""Results as HTML: figures with alternative text, tables, coloured tokens; everything escaped."""

import base64
import io
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..errors import LangadaptError
from ..intervals import Interval, percent, sign, with_ends
from ..languages import direction, language_name
from ..sources import source_name
from ..tokens import bytes_as_text, token_spans

TOKEN_COLOURS = ("#dceefb", "#fde9c9", "#e3f1dc", "#f3e1f0")  # pale; borders also separate tokens
LOADER = PackageLoader("langadapt_utils", ".")
TEMPLATES = Environment(loader=LOADER, autoescape=True, undefined=StrictUndefined)
IN_TEMPLATES = direction, language_name, percent, sign, source_name, with_ends
TEMPLATES.globals |= {function.__name__: function for function in IN_TEMPLATES}


class Html(str):
    """A piece of HTML, which Jupyter shows and templates take as it is."""

    _repr_html_ = __html__ = str.__str__


def render(template: str, **values: Any) -> Html:
    """Fill a Jinja template of the package, named by its path; text is escaped, `Html` is not.

    Templates know some functions, such as `language_name`, and need no values for them.
    """
    return Html(TEMPLATES.get_template(template).render(**values).strip())


def show(ax: Axes) -> Html:
    """Return a figure as HTML at twice the screen's resolution.

    The alternative text is the title, which states the finding, and the labels of the axes.

    Args:
        ax: axes of the figure, as the `plot_…` functions return them.
    """
    figure, buffer = ax.figure.get_figure(root=True), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=180, bbox_inches="tight", facecolor="white")
    labels = ", ".join(label for label in (ax.get_xlabel(), ax.get_ylabel()) if label)
    alt = f"{ax.get_title(loc='left').rstrip('.')}. Shown: {labels}.".replace("\n", " ")
    width, data = round(figure.get_size_inches()[0] * 90), base64.b64encode(buffer.getvalue())
    return render("display/figure.html.j2", width=width, data=data.decode(), alt=alt)


def diagram(name: str, stage: int | None = None) -> Html:
    """Return a diagram of the course, which takes the text colour of the page.

    `docs/diagrams.py` draws them.

    Args:
        name: `path` (the five stages), `merges` (how merges spell a word), `embeddings` (matrix and
            LM head), `packed` (documents in a sequence) or `runs` (the three models).
        stage: 1 to 5, coloured in `path`.

    Raises:
        LangadaptError: there is no such diagram.
    """
    folder, file = Path(__file__).with_name("diagrams"), f"{name}-{stage}" if stage else name
    known = {path.stem: path for path in sorted(folder.glob("*.svg"))}
    if file not in known:
        raise LangadaptError(f"there is no diagram '{file}': use one of {', '.join(known)}")
    return Html(known[file].read_text(encoding="utf-8"))


def table_html(table: pd.DataFrame, *, caption: str = "", digits: int = 2) -> Html:
    """Return a data frame as an HTML table, numbers with their confidence intervals.

    Args:
        table: its cells may be numbers, text, `Interval`s or None.
        caption: shown above the table.
        digits: after the decimal point, of numbers without an interval.
    """
    rows = [[_cell(v, digits) for v in row] for row in table.itertuples(index=False, name=None)]
    return render("display/table.html.j2", names=table.columns, rows=rows, caption=caption)


def _cell(value: Any, digits: int) -> str | Html:
    """Return a value as text.

    Example:
        >>> _cell(1234, 2), _cell(0.5, 2), _cell(None, 2), _cell(True, 2)
        ('1,234', '0.50', '', 'yes')
    """
    if isinstance(value, Interval):
        number, _, ends = with_ends(value).partition(" ")
        return Html(f"{number} <small>{ends}</small>")
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def cuts_html(tokenizer: Tokenizer, text: str, *, language: str, label: str = "") -> Html:
    """Return a text with a box per piece that the word pattern cuts.

    A mark that is cut off its letter is shown on a ◌ in a red box.

    Args:
        tokenizer: its pre-tokenizer cuts the text.
        text: to show; it is escaped.
        language: code, for the font and direction in the browser.
        label: shown before the text, with the number of pieces.
    """
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    cuts = pre_tokenizer.pre_tokenize_str(text) if pre_tokenizer else [("", (0, len(text)))]
    pieces = []
    for _, (start, end) in cuts:
        torn = start > 0 and _is_mark(text[start])
        pieces.append({"text": "◌" * torn + shown_spaces(text[start:end]), "torn": torn})
    return render("display/pieces.html.j2", pieces=pieces, language=language, label=label)


def bytes_html(tokenizer: Tokenizer, words: Mapping[str, str]) -> Html:
    """Return words byte by byte: which bytes are a letter (above) and which are a token (below).

    Args:
        tokenizer: splits the words into tokens.
        words: one per language, by code.
    """
    rows = []
    for code, word in words.items():
        letters = [(visible_piece(letter.encode()), len(letter.encode())) for letter in word]
        raw, spans = word.encode(), token_spans(tokenizer, word)
        tokens = [(visible_piece(raw[s.start : s.end]), s.end - s.start) for s in spans]
        rows.append({"code": code, "bytes": len(raw), "letters": letters, "tokens": tokens})
    return render("display/bytes.html.j2", words=rows, colours=TOKEN_COLOURS)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def shown_spaces(text: str) -> str:
    """Return a text with visible spaces."""
    return text.replace(" ", "␣")


def visible_piece(piece: bytes) -> str:
    """Return the bytes of a token as text: spaces and line ends visible, a mark in front on a ◌.

    Example:
        >>> visible_piece(" a\\n".encode()), visible_piece("ั".encode())
        ('␣a⏎', '◌ั')
    """
    text = shown_spaces(bytes_as_text(piece)).replace("\n", "⏎").replace("\t", "⇥")
    return f"◌{text}" if text and _is_mark(text[0]) else text
