import matplotlib.pyplot as plt
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb

from langadapt_utils.display import figures
from langadapt_utils.display.html import show
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


def test_of_a_letter_that_no_font_has_matplotlib_warns() -> None:
    ax = figures.finish(figures.new_axes(), "\U0001fbe8 costs more")
    assert not [name for name in ax.title.get_fontfamily() if name.startswith("Last Resort")]
    with pytest.warns(UserWarning, match="missing from font"):
        show(ax)


def test_dollar_signs_are_no_formulas() -> None:
    """Names of files may have them."""
    ax = figures.finish(figures.new_axes(), "ár $a_{b$, $5$")
    show(ax)  # a formula that is no formula would raise an error
    assert not any(text.get_parse_math() for text in ax.figure.findobj(figures.Text))


def test_a_font_that_has_no_bold_letters_is_drawn_without_a_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    families = ["DejaVu Sans", "cmr10"]
    with rc_context({"font.family": families, "axes.formatter.use_mathtext": True}):
        show(figures.finish(figures.new_axes(), "Hungarian takes 2.1 tokens per word"))
    assert not caplog.messages


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
