"""Controls for notebooks: each takes a result, never a model, and makes sense before the first click."""

from __future__ import annotations

import time
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
    import ipywidgets as widgets

    numbers = sizes.table.new_tokens.tolist()
    slider = widgets.SelectionSlider(
        options=[(f"{number:,}", number) for number in numbers],
        value=sizes.knee,
        description="new tokens",
        layout=widgets.Layout(width="90%"),
    )
    answer = widgets.HTML(vocabulary_size_sentence(sizes, sizes.knee))

    def update(event: dict[str, Any]) -> None:
        answer.value = vocabulary_size_sentence(sizes, event["new"])

    slider.observe(update, names="value")
    return widgets.VBox([slider, answer])


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
    import ipywidgets as widgets

    arms = [arm for arm in dict.fromkeys(dial.table.arm) if arm != BEFORE]
    sentences = {arm: dial_sentence(dial, arm) for arm in arms}
    slider = widgets.SelectionSlider(
        options=arms, value=arms[-1], description="weights", layout=widgets.Layout(width="90%")
    )
    answer = widgets.HTML(sentences[arms[-1]])
    slider.observe(lambda event: setattr(answer, "value", sentences[event["new"]]), names="value")
    return widgets.VBox([slider, answer])


def dial_sentence(dial: Sweep, arm: str) -> str:
    """What the dial says of one of its points, as HTML."""
    table = dial.summary()
    parts = [
        f"{escape(language_name(row.language))} {row.bits_per_byte.value:.3f} bits per byte "
        f"({row.change.value:+.1%} against the base)"
        for row in table[table.arm == arm].itertuples()
    ]
    best = " Nothing else on the dial beats it in both." if arm in dial.front() else ""
    return f"<b>{escape(arm)}</b>: {', '.join(parts)}.{best}"


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
