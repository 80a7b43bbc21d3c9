"""Controls for notebooks: each takes results, makes sense before the first click, and has a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by papermill, on a static page.
A control that lives hides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from .display.widgets import interactive, listed, new_slider
from .intervals import percent, restored
from .languages import language_name
from .sweeping import BEFORE

if TYPE_CHECKING:
    from .display.widgets import Interactive
    from .sweeping import Sweep


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
