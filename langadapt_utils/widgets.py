"""Controls for notebooks: each takes results, makes sense before the first click, and has a static twin.

The twin is plain HTML that stands where no kernel answers: on GitHub, in a notebook run by papermill, on a static page.
A control that lives hides it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache, partial
from html import escape
from typing import TYPE_CHECKING, Any

from .display.html import Html, show, shown_spaces
from .display.widgets import evenly_spread, interactive, listed, new_slider
from .explorer import PAGE, TokenFacts, explore_html
from .intervals import percent, restored
from .languages import language_name
from .sizing import VocabularySizes, sentence_tokens
from .sweeping import BEFORE

if TYPE_CHECKING:
    import pandas as pd

    from .display.widgets import Interactive
    from .sweeping import Sweep
    from .training import Report

YOURS = "your own"


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
    return interactive(controls, answer, "".join(map(str, twin)), observed=[typed, cost])


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
    slider = new_slider("new tokens", options, sizes.knee)
    typed = widgets.Textarea(text, description="your text", layout=widgets.Layout(width="95%", height="4em"))
    if base is None or adapted is None or adapted.change is None:
        count = None
    else:
        count = lru_cache(maxsize=1)(partial(sentence_tokens, base.tokenizer, adapted.change))

    def say(number: int) -> str:
        on_text = _own_text(count(typed.value), number, typed.value) if count and typed.value.strip() else ""
        return vocabulary_size_sentence(sizes, number) + on_text

    numbers = [number for _, number in options]
    twin = listed([say(number) for number in evenly_spread(numbers)])
    return interactive([typed, slider] if count else [slider], lambda: say(slider.value), twin)


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

    return interactive([chosen], lambda: say(chosen.value), "".join(say(token) for token in evenly_spread(tokens)))


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


def _own_text(by_number: Mapping[int, int], number: int, text: str) -> str:
    """What a number of new tokens means for a text, as HTML."""
    before, now = by_number[0], by_number[max(one for one in by_number if one <= number)]
    return (
        f"<br>Your text: <b>{now:,} tokens</b> instead of {before:,}; a page of {PAGE:,} characters takes "
        f"{now / len(text) * PAGE:,.0f}, and a context of 2,048 tokens holds {len(text) / now * 2048:,.0f} characters."
    )


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
