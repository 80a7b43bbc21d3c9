"""One style for all figures: fonts, colours, titles."""

import textwrap
from functools import cache
from typing import Any

from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

# From the colour-blind-safe palette of Okabe and Ito; the orange is darker, so that text in it is
# readable (WCAG AA).
ENGLISH, TARGET, GREY = "#0072B2", "#BD5200", "#6e6e6e"
Offset = tuple[float, float]  # to the right and up


def new_axes(rows: int = 6, width: float = 7) -> Axes:
    """Return axes of a figure that is not registered with pyplot; only `show` displays it."""
    return Figure(figsize=(width, max(2.2, 1.2 + 0.38 * rows))).subplots()


@cache
def _letters_of(path: str) -> set[str]:
    """Return the characters that a font has."""
    return set(map(chr, FT2Font(path).get_charmap()))


def set_fonts(figure: Any) -> None:
    """Set the fonts of the texts in a figure, so that installed fonts cover all letters.

    For a letter that no font has, matplotlib warns and draws a box that shows the script.
    """
    texts, families = figure.findobj(Text), list(rcParams["font.family"])
    known = _letters_of(font_manager.findfont(font_manager.FontProperties(family=families)))
    missing = {c for text in texts for c in text.get_text() if not c.isspace()} - known
    for font in font_manager.fontManager.ttflist if missing else ():
        found = missing & _letters_of(font.fname)
        if found and not font.name.startswith("Last Resort"):
            families.append(font.name)
            missing -= found
    for text in texts:
        text.set_fontfamily(families)
        text.set_parse_math(False)  # names of files may have dollar signs


def beside(ax: Axes, text: str, x: float, y: float, points: Offset, **style: Any) -> None:
    """Write a text beside a data point; `points` is the offset to the right and up, in points."""
    ax.annotate(text, (x, y), xytext=points, textcoords="offset points", **style)


def finish(ax: Axes, title: str, *, note: str = "") -> Axes:
    """Set the title, which states the finding, and the fonts; remove the frame."""
    # Not bold: many fonts have one weight, and matplotlib warns where it has to replace another.
    line = round(11 * ax.figure.get_figure(root=True).get_figwidth())  # letters
    ax.set_title(textwrap.fill(title, line), loc="left", x=0, fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    if note:
        ax.set_xlabel(f"{ax.get_xlabel()} · {note}")
    set_fonts(ax.figure)
    return ax


def colour_of(language: str) -> str:
    """Return the colour of English or of another language."""
    return ENGLISH if language == "en" else TARGET
