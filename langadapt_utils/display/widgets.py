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
    """Controls, and what stands in their place where there is no kernel; Jupyter shows one.

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
    """Put controls above their answer, which is made anew when one of them changes.

    Args:
        controls: shown in this order.
        answer: makes HTML of what the controls hold.
        twin: HTML that stands in their place where there is no kernel.
        observed: the controls whose change is answered; all by default.
    """
    import ipywidgets as widgets

    name = f"la-twin-{hashlib.sha256(twin.encode('utf-8', 'replace')).hexdigest()[:12]}"
    hidden = f"<style>#{name}{{display:none}}</style>"
    below = widgets.HTML(hidden + _safely(answer))
    for control in controls if observed is None else observed:
        control.observe(lambda _: setattr(below, "value", hidden + _safely(answer)), names="value")
    return Interactive(widgets.VBox([*controls, below]), Html(f'<div id="{name}">{twin}</div>'))


def _safely(answer: Callable[[], str]) -> str:
    """Return the answer, or its error as HTML: there is no cell here that could fail."""
    try:
        return answer()
    except Exception as error:
        return f'<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'


def evenly_spread(options: Sequence[Any]) -> list[Any]:
    """Return at most eight options, evenly spread, the ends among them.

    Example:
        >>> evenly_spread(range(0, 80, 10)), evenly_spread([1, 2])
        ([0, 10, 20, 30, 40, 50, 60, 70], [1, 2])
    """
    if len(options) <= TWIN_LINES:
        return list(options)
    step = (len(options) - 1) / (TWIN_LINES - 1)
    return [options[round(step * place)] for place in range(TWIN_LINES)]


def listed(lines: Sequence[str]) -> str:
    """Return lines of HTML as a list."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
