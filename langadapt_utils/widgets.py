"""Controls for notebooks: each takes results, makes sense before the first click, and has a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by papermill, on a static page.
A control that lives hides it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from .display.html import Html, show
from .display.widgets import interactive, listed, new_slider
from .intervals import percent, restored
from .languages import language_name
from .sweeping import BEFORE

if TYPE_CHECKING:
    from .display.widgets import Interactive
    from .sweeping import Sweep
    from .training import Report


def sweep_widget(sweep: Sweep, recorded: Mapping[str, Mapping[str, Any]] | None = None) -> Interactive:
    """Choose a point of a sweep or dial and read what both languages are at.

    Args:
        sweep: of this run.
        recorded: sweeps recorded with the project, by name.
    """
    sentences = sweep_sentences(sweep, recorded)
    slider = new_slider("point", list(sentences), next(iter(sentences)))
    return interactive([slider], lambda: sentences[slider.value], listed(list(sentences.values())))


def sweep_sentences(sweep: Sweep, recorded: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """What there is to say of each point of a sweep, as HTML; points of recorded ones name their recording."""
    front, sentences = sweep.front(), {}
    tables = {"": sweep.summary()}
    tables |= {name: restored(content["summary"]) for name, content in (recorded or {}).items()}
    for name, table in tables.items():
        for arm, rows in table[table.arm != BEFORE].groupby("arm", sort=False):
            parts = [
                f"{escape(language_name(row.language))} {row.bits_per_byte.value:.3f} bits per byte, "
                f"{percent(row.change)}"
                for row in rows.itertuples()
            ]
            best = " Nothing else here beats it in both languages." if not name and arm in front else ""
            title = f"{arm} ({name})" if name else arm
            sentences[title] = f"<b>{escape(title)}</b>: {'; '.join(parts)}.{best}"
    return sentences


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
