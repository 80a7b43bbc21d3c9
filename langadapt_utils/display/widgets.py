"""Controls for notebooks, each with a static copy.

The copy is plain HTML. It is shown where no kernel runs: on GitHub, in a notebook run by papermill,
on a static page. A live control hides it.
"""

import hashlib
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from ipywidgets import Widget

from .html import Html

STATIC_LINES = 8  # answers of a slider that its static copy shows


class Interactive:
    """Controls above their answer, with a static copy for pages without a kernel.

    Attributes:
        controls: the live widget; its last child contains the answer.
        static: the static copy.

    Args:
        controls: shown in this order.
        answer: returns HTML for the current values of the controls.
        static: HTML that is shown without a kernel.

    Example:
        >>> slider = new_slider("number", [1, 2], 1)
        >>> shown = Interactive([slider], lambda: f"{slider.value} of 2", "1 of 2")
        >>> slider.value = 2
        >>> shown.controls.children[-1].value.endswith("2 of 2")
        True
    """

    def __init__(self, controls: Sequence[Widget], answer: Callable[[], str], static: str) -> None:
        name = f"la-static-{hashlib.sha256(static.encode('utf-8', 'replace')).hexdigest()[:12]}"
        self._answer, self._hide_static = answer, f"<style>#{name}{{display:none}}</style>"
        self._below = widgets.HTML()
        self.controls = widgets.VBox([*controls, self._below])
        self.static = Html(f'<div id="{name}">{static}</div>')
        for control in controls:
            control.observe(self._renew, names="value")
        self._renew()

    def _renew(self, _: object = None) -> None:
        """Show the answer, or the error, because no cell runs that could show it."""
        try:
            text = self._answer()
        except Exception as error:
            text = f'<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'
        self._below.value = self._hide_static + text

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.static)
        display(self.controls, exclude=["text/plain"])  # which the static copy replaces


def new_slider(name: str, options: Sequence[Any], value: Any) -> Widget:
    """Return a slider over options that is as wide as a cell."""
    shape = {"description": name, "layout": {"width": "90%"}}
    return widgets.SelectionSlider(options=options, value=value, **shape)


def evenly_spread(options: Sequence[Any]) -> list[Any]:
    """Return at most eight options, evenly spread, the ends among them.

    Example:
        >>> evenly_spread(range(0, 80, 10)), evenly_spread([1, 2])
        ([0, 10, 20, 30, 40, 50, 60, 70], [1, 2])
    """
    last, count = len(options) - 1, min(STATIC_LINES, len(options))
    return [options[round(last * index / max(1, count - 1))] for index in range(count)]


def listed(lines: Sequence[str]) -> str:
    """Return lines of HTML as a list."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
