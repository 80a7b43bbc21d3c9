"""One style for all figures: fonts, colours, titles, dots with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# From the colour-blind-safe palette of Okabe and Ito, the orange darkened until it can be read as
# text (WCAG AA).
ENGLISH, TARGET, GREY = "#0072B2", "#BD5200", "#6e6e6e"


def new_axes(rows: int = 6) -> Axes:
    """Axes of a figure that pyplot does not know, so that a notebook shows it only where `show` is
    called.
    """
    from matplotlib.figure import Figure

    ax: Axes = Figure(figsize=(7, max(2.2, 1.2 + 0.38 * rows))).subplots()
    return ax


@cache
def _fonts() -> list[str]:
    """Matplotlib's own font, and one with Thai letters for what that lacks."""
    from matplotlib import font_manager, rcParams

    (path,) = (files("fontpkg_noto_sans_thai") / "files").iterdir()
    with as_file(path) as thai:
        font_manager.fontManager.addfont(thai)
        return [*rcParams["font.family"], font_manager.FontProperties(fname=str(thai)).get_name()]


def dots_with_intervals(
    ax: Axes,
    names: Sequence[str],
    rows: pd.DataFrame,
    *,
    percent: bool = False,
    target: str | None = None,
) -> None:
    """A dot with its interval a row; the numbers stand beside it. Other languages than the two are
    grey.
    """
    for place, (estimate, code) in enumerate(zip(rows.bits_per_byte, rows.language, strict=True)):
        colour = colour_of(code) if target in (None, code) or code == "en" else GREY
        ax.plot([estimate.low, estimate.high], [place] * 2, color=colour, linewidth=2)
        ax.plot(estimate.value, place, "o" if code == "en" else "D", color=colour)
        label = f"{estimate.value:+.1%}" if percent else f"{estimate.value:.2f}"
        beside(ax, label, estimate.value, place, (0, 6), ha="center", fontsize=8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.3)
    ax.margins(x=0.12)
    if percent:
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")


def box(
    ax: Axes, left: float, right: float, top: float, text: str, colour: str, *, fontsize: float
) -> None:
    """A box with text in it, a third of a row high."""
    ax.barh(
        top,
        right - left,
        height=0.32,
        left=left,
        align="edge",
        color=colour,
        edgecolor=GREY,
        linewidth=0.8,
    )
    ax.text((left + right) / 2, top + 0.16, text, ha="center", va="center", fontsize=fontsize)


def beside(
    ax: Axes, text: str, x: float, y: float, points: tuple[float, float], **style: Any
) -> None:
    """Write a text at an offset in points from a place in the figure."""
    ax.annotate(text, (x, y), xytext=points, textcoords="offset points", **style)


def finish(ax: Axes, title: str, *, note: str = "") -> Axes:
    """Set the title, which states the finding, and the fonts; take the frame away."""
    from matplotlib.text import Text

    # Not bold: the Thai font has one weight, and matplotlib warns where it has to replace another.
    ax.set_title(textwrap.fill(title, 76), loc="left", x=0, fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    if note:
        ax.set_xlabel(f"{ax.get_xlabel()} · {note}")
    for text in ax.figure.findobj(Text):
        text.set_fontfamily(_fonts())
    return ax


def colour_of(language: str) -> str:
    """Return the colour of a language: one for English, one for the target."""
    return ENGLISH if language == "en" else TARGET


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of the last tenth of the values at each place."""
    width = max(1, len(values) // 10)
    return [
        sum(values[max(0, i - width + 1) : i + 1]) / len(values[max(0, i - width + 1) : i + 1])
        for i in range(len(values))
    ]
