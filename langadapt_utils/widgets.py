"""Controls for notebooks: each takes results, makes sense before the first click, and has a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by papermill, on a static page.
A control that lives hides it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from html import escape
from typing import TYPE_CHECKING, Any

from .explorer import PAGE, TokenFacts, explore_html
from .intervals import percent, restored
from .languages import language_name
from .render import Html, show, shown_spaces
from .sizing import VocabularySizes, sentence_tokens
from .sweeping import BEFORE

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import VBox, Widget

    from .sweeping import Sweep
    from .training import Report

TWIN_LINES = 8  # of a slider's answers, that its static twin shows
YOURS = "your own"


@dataclass(frozen=True)
class Interactive:
    """Controls and what stands in their place where there is no kernel; Jupyter shows the one or the other.

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


def token_explorer(
    facts: Mapping[str, TokenFacts],
    samples: Mapping[str, str],
    *,
    parallel: bool = True,
    price: float = 0.5,
) -> Interactive:
    """Type or pick a text and see its tokens under each tokenizer; a click on a token opens what is known of it.

    Args:
        facts: of each tokenizer, by its name.
        samples: a text in each language, by code.
        parallel: whether they are translations of the English one, so that parity can be told.
        price: of a million tokens, to begin with.
    """
    import ipywidgets as widgets

    first = next(iter(samples))
    names = [(language_name(code), code) for code in samples]
    chosen = widgets.Dropdown(options=[*names, (YOURS, YOURS)], value=first, description="text")
    wide = widgets.Layout(width="95%", height="5em")
    typed = widgets.Textarea(samples[first], description="type here", layout=wide, continuous_update=True)
    cost = widgets.BoundedFloatText(price, min=0, max=1e6, step=0.1, description="per million")

    def reference(code: str) -> str:
        return samples.get("en", "") if parallel and code not in ("", "en") else ""

    def answer() -> str:
        code = chosen.value if samples.get(chosen.value) == typed.value else ""
        return str(explore_html(facts, typed.value, language=code, english=reference(code), price=cost.value))

    def picked(event: dict[str, Any]) -> None:
        if event["new"] in samples:
            typed.value = samples[event["new"]]

    def wrote(event: dict[str, Any]) -> None:
        if event["new"] != samples.get(chosen.value):
            chosen.value = YOURS

    twin = [
        explore_html(facts, text, language=code, english=reference(code), price=price) for code, text in samples.items()
    ]
    chosen.observe(picked, names="value")
    typed.observe(wrote, names="value")
    controls = [chosen, typed, cost]  # what is chosen changes what is typed, which is answered
    return _interactive(controls, answer, "".join(map(str, twin)), observed=[typed, cost])


def vocabulary_size_widget(
    sizes: VocabularySizes, base: TokenFacts | None = None, adapted: TokenFacts | None = None, *, text: str = ""
) -> Interactive:
    """Choose a number of new tokens and read what it saves and costs, also on a text of your own.

    Args:
        sizes: measured on held-out text.
        base: the base tokenizer; without it no text can be typed.
        adapted: the adapted tokenizer, with its change.
        text: to begin with.
    """
    import ipywidgets as widgets

    options = [(f"{number:,}", number) for number in sizes.table.new_tokens.tolist()]
    slider = _slider("new tokens", options, sizes.knee)
    typed = widgets.Textarea(text, description="your text", layout=widgets.Layout(width="95%", height="4em"))
    if base is None or adapted is None or adapted.change is None:
        count = None
    else:
        count = lru_cache(maxsize=1)(partial(sentence_tokens, base.tokenizer, adapted.change))

    def say(number: int) -> str:
        on_text = _own_text(count(typed.value), number, typed.value) if count and typed.value.strip() else ""
        return vocabulary_size_sentence(sizes, number) + on_text

    numbers = [number for _, number in options]
    twin = _listed([say(number) for number in _some(numbers)])
    return _interactive([typed, slider] if count else [slider], lambda: say(slider.value), twin)


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


def neighbours_widget(table: pd.DataFrame) -> Interactive:
    """Choose a new token and see which old tokens its row is nearest to, under each method.

    Args:
        table: as `neighbour_table` gives it.
    """
    import ipywidgets as widgets

    tokens = list(dict.fromkeys(table.token))
    chosen = widgets.Dropdown(options=[(shown_spaces(token), token) for token in tokens], description="new token")

    def say(token: str) -> str:
        lines = "".join(
            f'<tr><th style="text-align:left;padding-right:2em">{escape(row.method.replace("_", " "))}</th>'
            f'<td style="text-align:left">{escape(", ".join(map(shown_spaces, row.neighbours)))}</td></tr>'
            for row in table[table.token == token].itertuples()
        )
        return f"<b>{escape(shown_spaces(token))}</b><table>{lines}</table>"

    return _interactive([chosen], lambda: say(chosen.value), "".join(say(token) for token in _some(tokens)))


def sweep_widget(sweep: Sweep, recorded: Mapping[str, Mapping[str, Any]] | None = None) -> Interactive:
    """Choose a point of a sweep or dial and read what both languages are at.

    Args:
        sweep: of this run.
        recorded: sweeps recorded with the project, by name.
    """
    sentences = sweep_sentences(sweep, recorded)
    slider = _slider("point", list(sentences), next(iter(sentences)))
    return _interactive([slider], lambda: sentences[slider.value], _listed(list(sentences.values())))


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


def _own_text(by_number: Mapping[int, int], number: int, text: str) -> str:
    """What a number of new tokens means for a text, as HTML."""
    before, now = by_number[0], by_number[max(one for one in by_number if one <= number)]
    return (
        f"<br>Your text: <b>{now:,} tokens</b> instead of {before:,}; a page of {PAGE:,} characters takes "
        f"{now / len(text) * PAGE:,.0f}, and a context of 2,048 tokens holds {len(text) / now * 2048:,.0f} characters."
    )


def _slider(name: str, options: Sequence[Any], value: Any) -> Widget:
    import ipywidgets as widgets

    wide = widgets.Layout(width="90%")
    return widgets.SelectionSlider(options=options, value=value, description=name, layout=wide)


def _interactive(
    controls: Sequence[Widget], answer: Callable[[], str], twin: str, *, observed: Sequence[Widget] | None = None
) -> Interactive:
    """Controls above their answer, which is made anew when one of them, or of those to be observed, changes."""
    import ipywidgets as widgets

    name = f"la-twin-{hashlib.sha256(twin.encode('utf-8', 'replace')).hexdigest()[:12]}"
    hidden = f"<style>#{name}{{display:none}}</style>"

    def made() -> str:
        try:
            return hidden + answer()
        except Exception as error:  # there is no cell here that could fail
            return f'{hidden}<p role="alert"><b>{type(error).__name__}</b>: {escape(str(error))}</p>'

    below = widgets.HTML(made())
    for control in controls if observed is None else observed:
        control.observe(lambda _: setattr(below, "value", made()), names="value")
    return Interactive(widgets.VBox([*controls, below]), Html(f'<div id="{name}">{twin}</div>'))


def _some(options: Sequence[Any]) -> list[Any]:
    """At most so many options, evenly spread, the ends among them."""
    if len(options) <= TWIN_LINES:
        return list(options)
    step = (len(options) - 1) / (TWIN_LINES - 1)
    return [options[round(step * place)] for place in range(TWIN_LINES)]


def _listed(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


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
