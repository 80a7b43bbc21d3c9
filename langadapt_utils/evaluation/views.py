"""Figures and controls of notebook 5: changes of bits per byte, and generated text."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes

from .. import hardware
from ..display.figures import GREY, beside, colour_of, finish, new_axes
from ..display.html import Html, render
from ..display.widgets import Interactive, new_slider
from ..intervals import Interval, percent
from ..languages import language_name
from ..models import Models
from ..sources import source_name
from .generation import replies, sampled
from .scores import Scores


def plot_changes(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """Plot how much bits per byte changed on held-out documents, with confidence intervals.

    Languages other than the target and English are grey.

    Args:
        scores: of a base and an adapted model.
        ax: axes to draw into; new ones by default.
    """
    table = scores.bits_per_byte()
    ax, rows = ax or new_axes(rows=len(table)), table.iloc[::-1]
    for height, (change, code) in enumerate(zip(rows.change, rows.language, strict=True)):
        colour = colour_of(code) if code in (scores.target, "en") else GREY
        ax.plot([change.low, change.high], [height, height], color=colour, linewidth=2)
        ax.plot(change.value, height, "o" if code == "en" else "D", color=colour)
        beside(ax, f"{change.value:+.1%}", change.value, height, (0, 6), ha="center", fontsize=8)
    names = [f"{language_name(r.language)}\n{source_name(r.source)}" for r in rows.itertuples()]
    ax.set_yticks(range(len(names)), names)
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter("{x:+.0%}")
    ax.axvline(0, color=GREY, linewidth=1)
    unit = "change of bits per byte (95 % interval; left is better)"
    ax.set(xlabel=unit, ylim=(-0.6, len(names) - 0.3))
    gain = table[table.language == scores.target].iloc[0].change
    worst = max(table[table.language == "en"].change, key=lambda change: change.value)
    title = f"{language_name(scores.target)} {_moved(gain)}, English at worst {_moved(worst)}"
    return finish(ax, title)


def findings_table(scores: Scores) -> Html:
    """Return a table with one row per test: the change with its 95 % interval, and the verdict.

    Args:
        scores: of a base and an adapted model.
    """
    return render("evaluation/findings.html.j2", findings=scores.findings())


def samples_html(samples: Sequence[Mapping[str, Any]]) -> Html:
    """Return what the models generated after the first words of held-out documents, side by side.

    Args:
        samples: those of `Scores`, or some of them.
    """
    return render("evaluation/samples.html.j2", samples=samples)


def talk_widget(models: Models, scores: Scores) -> Interactive:
    """Return controls to write a prompt and read the answers of all models side by side.

    Args:
        models: by name.
        scores: of these models; its samples are shown until you write a prompt.
    """
    typed = widgets.Text(description="prompt", continuous_update=False, layout={"width": "95%"})
    temperature = new_slider("temperature", [0.0, 0.3, 0.7, 1.0], 0.7)
    length = new_slider("tokens", [25, 50, 100, 200], 50)
    chat = widgets.Checkbox(False, description="answer, as in a chat")
    static = str(samples_html(scores.samples))

    def answer() -> str:
        options = sampled(temperature.value) | {"chat": chat.value}
        parts = {n: (b.model.to(hardware.device()), b.tokenizer) for n, b in models.items()}
        asked = [typed.value], length.value
        written = {name: replies(*part, *asked, **options)[0] for name, part in parts.items()}
        return str(render("evaluation/replies.html.j2", replies=written))

    controls = [typed, temperature, length, chat]
    return Interactive(controls, lambda: answer() if typed.value else static, static)


def _moved(change: Interval) -> str:
    """Return a change as a phrase.

    Example:
        >>> _moved(Interval(-0.1, -0.2, -0.05, 9))
        'falls by 10.0% [-20.0%, -5.0%]'
    """
    return f"{'falls' if change.value < 0 else 'rises'} by {percent(change).lstrip('+-')}"
