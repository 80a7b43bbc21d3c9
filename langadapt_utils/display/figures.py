"""One style for all figures: fonts, colours, titles."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from fontTools.unicodedata import script, script_name
from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

# From the colour-blind-safe palette of Okabe and Ito, the orange darkened until it can be read as
# text (WCAG AA).
ENGLISH, TARGET, GREY = "#0072B2", "#BD5200", "#6e6e6e"
# A legend beside the figure.
LEGEND: dict[str, Any] = {"frameon": False, "loc": "center left", "bbox_to_anchor": (1, 0.5)}


def new_axes(rows: int = 6) -> Axes:
    """Return axes of a figure that pyplot does not know: a notebook shows it where `show` does."""
    ax: Axes = Figure(figsize=(7, max(2.2, 1.2 + 0.38 * rows))).subplots()
    return ax


@cache
def _fonts() -> dict[str, set[str]]:
    """The letters of matplotlib's own font, and of one with Thai letters, by name."""
    (path,) = (files("fontpkg_noto_sans_thai") / "files").iterdir()
    with as_file(path) as thai:
        font_manager.fontManager.addfont(thai)
        names = *rcParams["font.family"], font_manager.FontProperties(fname=str(thai)).get_name()
        found = {n: font_manager.findfont(font_manager.FontProperties(family=[n])) for n in names}
        return {name: _letters_of(path) for name, path in found.items()}


@cache
def _letters_of(path: str) -> set[str]:
    """Return the characters that a font has."""
    return set(map(chr, FT2Font(path).get_charmap()))


def set_fonts(figure: Any) -> None:
    """Give the texts of a figure fonts that have their letters; say where this system has none."""
    texts = figure.findobj(Text)
    families, known = list(_fonts()), set().union(*_fonts().values())
    missing = {c for text in texts for c in text.get_text() if not c.isspace()} - known
    for font in font_manager.fontManager.ttflist if missing else ():
        if found := missing & _letters_of(font.fname):
            families.append(font.name)
            missing -= found
    for text in texts:
        text.set_fontfamily(families)
        if missing.intersection(text.get_text()):
            text.set_text("".join("?" if c in missing else c for c in text.get_text()))
    if missing:
        scripts = ", ".join(sorted({script_name(script(letter)) for letter in missing}))
        note = f"? stands for letters that no font of this system has ({scripts}): install one"
        figure.text(0, -0.04, note, fontsize=8, fontfamily=families)


def beside(
    ax: Axes, text: str, x: float, y: float, points: tuple[float, float], **style: Any
) -> None:
    """Write a text beside a data point, `points` to its right and above it, in points."""
    ax.annotate(text, (x, y), xytext=points, textcoords="offset points", **style)


def finish(ax: Axes, title: str, *, note: str = "") -> Axes:
    """Set the title, which states the finding, and the fonts; take the frame away."""
    # Not bold: the Thai font has one weight, and matplotlib warns where it has to replace another.
    ax.set_title(textwrap.fill(title, 76), loc="left", x=0, fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    if note:
        ax.set_xlabel(f"{ax.get_xlabel()} · {note}")
    set_fonts(ax.figure)
    return ax


def colour_of(language: str) -> str:
    """Return the colour of a language: one for English, one for the target."""
    return ENGLISH if language == "en" else TARGET


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of the last tenth of the values at each place.

    Example:
        >>> running_mean([float(i) for i in range(20)])[:4]
        [0.0, 0.5, 1.5, 2.5]
    """
    width = max(1, len(values) // 10)
    last = [values[max(0, i - width + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in last]
