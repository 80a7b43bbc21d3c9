import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

from langadapt_utils.display import figures
from langadapt_utils.training.views import plot_training

STEPS = [{"tokens": 10, "bits_per_byte": {"target": 2.5}}]


def test_a_figure_is_drawn_where_it_is_shown_and_nowhere_else() -> None:
    plt.close("all")
    plot_training(STEPS, "hu")
    assert plt.get_fignums() == []


def test_figures_draw_into_given_axes() -> None:
    figure, ax = plt.subplots()
    assert plot_training(STEPS, "hu", ax=ax) is ax
    plt.close(figure)


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


THAI_FIGURE = """
from langadapt_utils.display.figures import finish, new_axes
from langadapt_utils.display.html import show
ax = new_axes()
ax.plot([0, 1], [0, 1], label="ภาษาไทย")
ax.set_yticks([0, 1], ["น้ำ", "ő"])
ax.set_xlabel("โทเค็น")
ax.text(0, 0.5, "ก")
ax.legend()
show(finish(ax, "ภาษาไทย costs more", note="หมายเหตุ"))
"""


def test_thai_figures_are_quiet_where_no_font_is_cached(tmp_path: Path) -> None:
    """As on a fresh machine. The runner fills the cache of fonts before the first notebook."""
    folders = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
    environment = os.environ | dict.fromkeys(folders, str(tmp_path))
    command = [sys.executable, "-c", THAI_FIGURE]
    fresh, cached = (
        subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2)
    )
    assert (fresh.returncode, cached.returncode) == (0, 0), fresh.stderr
    assert "findfont" not in fresh.stderr and cached.stderr == ""
    assert list(tmp_path.rglob("fontlist-*.json"))


UNKNOWN = {"Devanagari": "भाषा", "Tamil": "மொழி", "Tibetan": "སྐད"}


@pytest.mark.parametrize("script", UNKNOWN)
def test_letters_that_no_font_has_are_said_and_not_drawn_as_boxes(
    script: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(figures.font_manager.fontManager, "ttflist", [])
    ax = figures.new_axes()
    ax.text(0, 0.5, UNKNOWN[script][0] + "a")
    figures.finish(ax, f"{UNKNOWN[script]} costs more")
    texts = [text.get_text() for text in ax.figure.findobj(figures.Text)]
    assert f"letters that no font of this system has ({script})" in " ".join(texts)
    assert "?a" in texts and not any(set(UNKNOWN[script]) & set(text) for text in texts)
    ax.figure.canvas.draw()
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


def test_a_font_of_the_system_is_taken_where_it_has_the_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Font:
        name, fname = "Made for this", "made.ttf"

    monkeypatch.setattr(figures.font_manager.fontManager, "ttflist", [Font])
    letters = figures._letters_of
    monkeypatch.setattr(
        figures, "_letters_of", lambda path: set("भाषा") if path == "made.ttf" else letters(path)
    )
    ax = figures.finish(figures.new_axes(), "भाषा costs more")
    assert "भाषा" in ax.get_title(loc="left")
    assert "Made for this" in ax.title.get_fontfamily() and len(ax.figure.texts) == 0
