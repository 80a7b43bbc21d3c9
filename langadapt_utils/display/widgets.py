"""Controls for notebooks, each with a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by
papermill, on a static page. A control that lives hides it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from .html import Html

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget

TWIN_LINES = 8  # of a slider's answers, that its static twin shows


@dataclass(frozen=True)
class Interactive:
    """Controls and what stands in their place where there is no kernel; Jupyter shows the one or
    the other.

    Attributes:
        controls: the live widget.
        twin: the static HTML.
    """

    controls: VBox
    twin: Html

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.twin)
        display(self.controls, exclude=["text/plain"])  # which would stand beside the twin


def new_slider(name: str, options: Sequence[Any], value: Any) -> Widget:
    """Return a slider over options, as wide as a cell."""
    import ipywidgets as widgets

    wide = widgets.Layout(width="90%")
    return widgets.SelectionSlider(options=options, value=value, description=name, layout=wide)


def interactive(
    controls: Sequence[Widget],
    answer: Callable[[], str],
    twin: str,
    *,
    observed: Sequence[Widget] | None = None,
) -> Interactive:
    """Controls above their answer, which is made anew when one of them, or of those to be observed,
    changes.
    """
    import ipywidgets as widgets

    name = f"la-twin-{hashlib.sha256(twin.encode('utf-8', 'replace')).hexdigest()[:12]}"
    hidden = f"<style>#{name}{{display:none}}</style>"

    def made() -> str:
        try:
            return hidden + answer()
        except Exception as error:  # there is no cell here that could fail
            return (
                f'{hidden}<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'
            )

    below = widgets.HTML(made())
    for control in controls if observed is None else observed:
        control.observe(lambda _: setattr(below, "value", made()), names="value")
    return Interactive(widgets.VBox([*controls, below]), Html(f'<div id="{name}">{twin}</div>'))


def evenly_spread(options: Sequence[Any]) -> list[Any]:
    """At most so many options, evenly spread, the ends among them."""
    if len(options) <= TWIN_LINES:
        return list(options)
    step = (len(options) - 1) / (TWIN_LINES - 1)
    return [options[round(step * place)] for place in range(TWIN_LINES)]


def listed(lines: Sequence[str]) -> str:
    """Return lines of HTML as a list."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
