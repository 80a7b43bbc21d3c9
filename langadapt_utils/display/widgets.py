"""Controls for notebooks, each with a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by
papermill, on a static page. A control that lives hides it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from ipywidgets import Widget

from .html import Html

TWIN_LINES = 8  # how many of a slider's answers its static twin shows


class Interactive:
    """Controls above their answer, and what stands in their place where there is no kernel.

    Attributes:
        controls: the live widget; its last child holds the answer.
        twin: the static HTML.

    Args:
        controls: shown in this order.
        answer: returns HTML for the present values of the controls.
        twin: HTML that stands in their place where there is no kernel.

    Example:
        >>> slider = new_slider("number", [1, 2], 1)
        >>> shown = Interactive([slider], lambda: f"{slider.value} of 2", "1 of 2")
        >>> slider.value = 2
        >>> shown.controls.children[-1].value.endswith("2 of 2")
        True
    """

    def __init__(self, controls: Sequence[Widget], answer: Callable[[], str], twin: str) -> None:
        name = f"la-twin-{hashlib.sha256(twin.encode('utf-8', 'replace')).hexdigest()[:12]}"
        self._answer, self._hide_twin = answer, f"<style>#{name}{{display:none}}</style>"
        self._below = widgets.HTML()
        self.controls = widgets.VBox([*controls, self._below])
        self.twin = Html(f'<div id="{name}">{twin}</div>')
        for control in controls:
            control.observe(self._renew, names="value")
        self._renew()

    def _renew(self, _: object = None) -> None:
        """Show the answer, or its error: there is no cell here that could fail."""
        try:
            text = self._answer()
        except Exception as error:
            text = f'<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'
        self._below.value = self._hide_twin + text

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.twin)
        display(self.controls, exclude=["text/plain"])  # which would stand beside the twin


def new_slider(name: str, options: Sequence[Any], value: Any) -> Widget:
    """Return a slider over options, as wide as a cell."""
    shape = {"description": name, "layout": {"width": "90%"}}
    return widgets.SelectionSlider(options=options, value=value, **shape)


def choose_page(name: str, pages: Mapping[str, str]) -> Interactive:
    """Return a slider that shows one of some pages of HTML, by their titles.

    Example:
        >>> slider, answer = choose_page("number", {"one": "1", "two": "2"}).controls.children
        >>> slider.value = "two"
        >>> answer.value.endswith("2")
        True
    """
    slider = new_slider(name, list(pages), next(iter(pages)))
    twin = listed(evenly_spread(list(pages.values())))
    return Interactive([slider], lambda: pages[slider.value], twin)


def evenly_spread(options: Sequence[Any]) -> list[Any]:
    """Return at most eight options, evenly spread, the ends among them.

    Example:
        >>> evenly_spread(range(0, 80, 10)), evenly_spread([1, 2])
        ([0, 10, 20, 30, 40, 50, 60, 70], [1, 2])
    """
    last, count = len(options) - 1, min(TWIN_LINES, len(options))
    return [options[round(last * index / max(1, count - 1))] for index in range(count)]


def listed(lines: Sequence[str]) -> str:
    """Return lines of HTML as a list."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
