"""Controls for notebooks: each takes a result, never a model, and makes sense before the first click."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .corpus import language_name
from .render import Html, show
from .sizing import VocabularySizes
from .sweeping import BEFORE

if TYPE_CHECKING:
    from ipywidgets import VBox

    from .sweeping import Sweep
    from .training import Report


def vocabulary_size_widget(sizes: VocabularySizes) -> VBox:
    """Choose a number of new tokens and read what it saves and costs."""
    numbers = [(f"{number:,}", number) for number in sizes.table.new_tokens.tolist()]
    return _slider("new tokens", numbers, sizes.knee, lambda number: vocabulary_size_sentence(sizes, number))


def vocabulary_size_sentence(sizes: VocabularySizes, number: int) -> str:
    """What the widget says of a number of new tokens, as HTML."""
    row, language = sizes.at(number), escape(language_name(sizes.language))
    parity = f", {row.parity:.2f} times as many as English" if row.parity == row.parity else ""
    return (
        f"<b>{int(row.new_tokens):,} new tokens</b>: {language} takes {row.saved:.0%} fewer tokens than before"
        f"{parity}. "
        f"The new rows take {row.megabytes:,.1f} MB in bfloat16; a token costs {row.compute_per_token:.2f} times the "
        f"work, and the same work writes {row.speed:.2f} times as many characters."
    )


def dial_widget(dial: Sweep) -> VBox:
    """Turn from the start to the adapted model, and read what both languages are at."""
    sentences = dial_sentences(dial)
    return _slider("weights", list(sentences), list(sentences)[-1], sentences.__getitem__)


def dial_sentences(dial: Sweep) -> dict[str, str]:
    """What the dial says of each of its points, as HTML."""
    table, front = dial.summary(), dial.front()
    sentences = {}
    for arm, rows in table[table.arm != BEFORE].groupby("arm", sort=False):
        parts = [
            f"{escape(language_name(row.language))} {row.bits_per_byte.value:.3f} bits per byte "
            f"({row.change.value:+.1%} against the base)"
            for row in rows.itertuples()
        ]
        best = " Nothing else on the dial beats it in both." if arm in front else ""
        sentences[arm] = f"<b>{escape(arm)}</b>: {', '.join(parts)}.{best}"
    return sentences


def _slider(name: str, options: Sequence[Any], value: Any, say: Callable[[Any], str]) -> VBox:
    """A slider over options, and below it what is to be said of the one it stands at."""
    import ipywidgets as widgets

    slider = widgets.SelectionSlider(options=options, value=value, description=name, layout=widgets.Layout(width="90%"))
    answer = widgets.HTML(say(value))
    slider.observe(lambda event: setattr(answer, "value", say(event["new"])), names="value")
    return widgets.VBox([slider, answer])


def live_curve(target: str, report: Report, *, seconds: float = 15.0) -> Report:
    """Show the loss of each language while a model trains.

    Args:
        target: the target language.
        report: what else is told of each record, such as `Workspace.reporter`.
        seconds: between drawings; nothing is drawn in a run that is shorter.

    Returns:
        To be given to `train` as `report`.
    """
    from IPython.display import display

    from .plots import plot_training

    place, steps, drawn = display(Html(""), display_id=True), [], time.monotonic()

    def reported(record: dict[str, Any]) -> None:
        nonlocal drawn
        report(record)
        if "step" in record:
            steps.append(record)
            if record["step"] == record["steps"]:
                place.update(Html(""))  # the notebook draws the whole curve next
            elif time.monotonic() - drawn > seconds:
                drawn = time.monotonic()
                place.update(show(plot_training(steps, target)))

    return reported
