"""Notebook 2 in figures and controls: tokens that open at a click, curves of the vocabulary
size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from ..display.figures import GREY, TARGET, finish, new_axes
from ..display.html import TOKEN_COLOURS, Html, shown_spaces, visible_piece
from ..display.widgets import evenly_spread, interactive, listed, new_slider
from ..languages import RIGHT_TO_LEFT, language_name
from ..tokens import Span, readable, token_spans
from .change import VocabularyChange
from .sizes import VocabularySizes, sentence_tokens
from .tokenizer_json import Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from transformers import PreTrainedTokenizerFast

    from ..display.widgets import Interactive

LONGEST = 6_000  # characters that are shown
OPENED = 700  # tokens in all, up to which each can be opened
COMPARED = 64  # different tokens of a text whose neighbours are shown
NEIGHBOURS = 5
PAGE = 1_800  # characters of a page
STYLE = """<style>
.la-page:has(details[open]){padding-bottom:10em}
.la-stretch{display:inline-block;vertical-align:top;margin:0 1px 10px 0}
.la-stretch>span{display:block;white-space:nowrap;line-height:1.9}
.la-token{display:inline-block;position:relative;color:#111;border-left:1px solid #777;padding:0 1px}
.la-token summary{display:inline;list-style:none;cursor:pointer}
.la-token summary::-webkit-details-marker{display:none}
.la-token summary:focus-visible{outline:2px solid #0072B2}
.la-token>div{position:absolute;z-index:9;top:1.9em;left:0;min-width:15em;max-width:24em;white-space:normal;
line-height:1.5;background:#fff;color:#111;border:1px solid #555;border-radius:4px;padding:6px 10px;font-size:13px}
</style>"""


@dataclass(frozen=True)
class TokenFacts:
    """What is known of the tokens of one tokenizer.

    Attributes:
        tokenizer: of the tokens.
        change: that made it, where it is an adapted one: it tells which tokens are new and what
            spells them.
        rows: embedding rows by token id, of shape (tokens, dimensions); neighbours are looked up in
            them.
    """

    tokenizer: PreTrainedTokenizerFast
    change: VocabularyChange | None = None
    rows: torch.Tensor | None = None
    _nearest: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @cached_property
    def merges(self) -> dict[str, tuple[str, str, int]]:
        """By surface: the two tokens that it is merged from, and which merge that is. Empty for
        Unigram.
        """
        spec = Spec.of(self.tokenizer)
        if spec.family == "Unigram":
            return {}
        ranked = list(
            enumerate(spec.merges(), start=1)
        )  # of several merges to one token the first is applied
        return {left + right: (left, right, rank) for rank, (left, right) in reversed(ranked)}

    @cached_property
    def directions(self) -> torch.Tensor | None:
        """Rows of length one, without those that only pad the matrix."""
        if self.rows is None:
            return None
        tokens = max(self.tokenizer.get_vocab().values()) + 1
        return torch.nn.functional.normalize(self.rows[:tokens].detach().float(), dim=1)

    def look_up(self, ids: Sequence[int]) -> None:
        """Find the nearest rows of tokens, all at once; those found before are remembered."""
        new = [index for index in dict.fromkeys(ids) if index not in self._nearest][:COMPARED]
        if self.directions is None or not new:
            return
        near = (
            (self.directions[new] @ self.directions.T).topk(NEIGHBOURS + 1, dim=1).indices.tolist()
        )
        self._nearest.update(
            {
                index: [other for other in found if other != index]
                for index, found in zip(new, near, strict=True)
            }
        )

    def of(self, index: int) -> dict[str, str]:
        """What there is to say of a token, by its id."""
        surface = str(self.tokenizer.convert_ids_to_tokens(index))
        facts = {"id": f"{index:,}"}
        if self.change is not None and index in self.change.added:
            pieces = (self.change.base_text(old) for old in self.change.base_pieces[index])
            facts = {"id": f"{index:,}, new", "was": " + ".join(map(shown_spaces, pieces))}
        if surface in self.merges:
            left, right, rank = self.merges[surface]
            sides = " + ".join(
                shown_spaces(readable(self.tokenizer, side)) for side in (left, right)
            )
            facts["merge"] = f"{sides} (number {rank:,})"
        if index in self._nearest:
            near = (
                shown_spaces(readable(self.tokenizer, other))
                for other in self._nearest[index][:NEIGHBOURS]
            )
            facts["neighbours"] = ", ".join(near)
        return facts


def explore_html(
    facts: Mapping[str, TokenFacts],
    text: str,
    *,
    language: str = "",
    english: str = "",
    price: float = 0.0,
) -> Html:
    """A text under tokenizers, one line each, cut at the places where all of them cut; and what it
    costs.

    Args:
        facts: of each tokenizer, by its name.
        text: any; shown escaped, up to 6,000 characters.
        language: for the browser's choice of font and direction.
        english: the same text in English, for parity.
        price: of a million tokens, in any currency.
    """
    english = english if max(len(text), len(english)) <= LONGEST else ""
    shown, raw = text[:LONGEST], text[:LONGEST].encode("utf-8", "replace")
    shown = raw.decode("utf-8")
    spans = {name: token_spans(fact.tokenizer, shown) for name, fact in facts.items()}
    opened = sum(map(len, spans.values())) <= OPENED
    for name, fact in facts.items() if opened else ():
        fact.look_up([span.id for span in spans[name]])
    stretches = []
    for parts in _stretches(list(spans.values())):
        lines = (
            "".join(_token(fact, spans[name][place], place, raw, opened) for place in part)
            for (name, fact), part in zip(facts.items(), parts, strict=True)
        )
        stretches.append(
            f'<span class="la-stretch">{"".join(f"<span>{line}</span>" for line in lines)}</span>'
        )
    direction = "rtl" if language in RIGHT_TO_LEFT else "ltr"
    body = f'<div class="la-page" lang="{escape(language)}" dir="{direction}">{"".join(stretches)}</div>'
    notes = [f"Only the first {LONGEST:,} characters are shown."] if len(text) > LONGEST else []
    notes += (
        [] if opened else [f"Tokens of texts with more than {OPENED} of them cannot be opened."]
    )
    return Html(
        STYLE
        + _costs(facts, spans, shown, english, price)
        + body
        + "".join(f"<p>{n}</p>" for n in notes)
    )


def _stretches(spans: Sequence[Sequence[Span]]) -> list[list[range]]:
    """Which tokens of each tokenizer lie between neighbouring places where all of them end a
    token.
    """
    ends = (
        sorted(set.intersection(*({span.end for span in part} for part in spans))) if spans else []
    )
    places = [0] * len(spans)
    stretches: list[list[range]] = []
    for end in ends:
        stretches.append([])
        for number, part in enumerate(spans):
            begin = places[number]
            while places[number] < len(part) and part[places[number]].end <= end:
                places[number] += 1
            stretches[-1].append(range(begin, places[number]))
    return stretches


def _token(fact: TokenFacts, span: Span, place: int, raw: bytes, opened: bool) -> str:
    piece = raw[span.start : span.end]
    text = escape(visible_piece(piece))
    style = f'style="background:{TOKEN_COLOURS[place % len(TOKEN_COLOURS)]}"'
    if not opened:
        return f'<span class="la-token" {style} title="token {span.id}">{text}</span>'
    said = {"bytes": " ".join(f"{byte:02X}" for byte in piece), **fact.of(span.id)}
    lines = "<br>".join(f"<b>{name}</b> {escape(value)}" for name, value in said.items())
    return f'<details class="la-token" name="la" {style}><summary>{text}</summary><div>{lines}</div></details>'


def _costs(
    facts: Mapping[str, TokenFacts],
    spans: Mapping[str, Sequence[Span]],
    text: str,
    english: str,
    price: float,
) -> str:
    """A table of what the text costs under each tokenizer."""
    size = len(text.encode())
    head = [
        "",
        "tokens",
        "bytes a token",
        *(["parity"] if english else []),
        *(["a page costs"] if price else []),
    ]
    rows = []
    for name, fact in facts.items():
        count = len(spans[name])
        cells = [escape(name), f"{count:,}", f"{size / count:.2f}" if count else "–"]
        if english:
            reference = len(token_spans(fact.tokenizer, english))
            cells.append(f"{count / reference:.2f} times English" if reference else "–")
        if price:
            cells.append(f"{count / len(text) * PAGE * price / 1e6:,.4f}" if text else "–")
        rows.append(
            "".join(f'<td style="text-align:left;padding-right:2em">{cell}</td>' for cell in cells)
        )
    counted = f"<p>{len(text):,} characters, {size:,} bytes</p>"
    header = "".join(f'<th style="text-align:left;padding-right:2em">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"{counted}<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def plot_token_counts(counts: Mapping[str, int], language: str, *, ax: Axes | None = None) -> Axes:
    """Tokens of one text under several tokenizers.

    Args:
        counts: by name; the first is the reference.
        language: name of the text's language.
        ax: to draw into.
    """
    ax = ax or new_axes(rows=len(counts))
    names = list(counts)
    shares = {name: count / counts[names[0]] for name, count in counts.items()}
    bars = ax.barh(names[::-1], [shares[name] for name in names[::-1]], color=TARGET, height=0.65)
    ax.bar_label(bars, fmt="{:.2f}", padding=3)
    ax.set_xlabel(f"{language} tokens, as a share of those with {names[0]}")
    ax.set_xlim(0, 1.12)
    said = ", ".join(f"{1 - shares[name]:.0%} with {name}" for name in names[1:])
    return finish(ax, f"{language} tokens saved: {said}")


def plot_vocabulary_curve(
    change: VocabularyChange, language: str, *, ax: Axes | None = None
) -> Axes:
    """Tokens of the target training text against the number of new tokens."""
    ax = ax or new_axes()
    numbers, tokens = list(change.curve), list(change.curve.values())
    share = [count / tokens[0] for count in tokens]
    ax.plot(numbers, share, color=TARGET, marker=".")
    ax.set_xlabel("new tokens")
    ax.set_ylabel("tokens of the text, as a share of before")
    ax.set_ylim(0, 1.05)
    found = change.savings()
    return finish(
        ax,
        f"{found['new_tokens']:,} new tokens save {found['saved']:.0%} of the {language_name(language)} tokens; "
        f"the first half of them saves {found['by_first_half']:.0%} of that",
    )


def plot_sizes(sizes: VocabularySizes, *, ax: Axes | None = None) -> Axes:
    """Tokens of held-out target text against the number of new tokens, with the knee of the
    curve.
    """
    ax = ax or new_axes()
    table, language = sizes.table, language_name(sizes.language)
    parity = bool(table.parity.notna().all())
    values = table.parity if parity else 1 - table.saved
    ax.plot(table.new_tokens, values, color=TARGET, marker=".")
    knee = sizes.at(sizes.knee)
    ax.axvline(sizes.knee, color=GREY, linestyle=":")
    ax.annotate(
        "knee",
        (sizes.knee, values.max()),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=GREY,
    )
    ax.set_xlabel("new tokens")
    ax.set_ylabel(
        "tokens, as a multiple of English" if parity else "tokens of the text, as a share of before"
    )
    ax.set_ylim(0, values.max() * 1.05)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    last = table.iloc[-1]
    return finish(
        ax,
        f"{last.new_tokens:,.0f} new tokens save {last.saved:.0%} of the {language} tokens on held-out text; "
        f"the knee lies at {sizes.knee:,}, with {knee.saved / max(last.saved, 1e-9):.0%} of the saving",
        note=f"{sizes.texts} texts",
    )


YOURS = "your own"


def token_explorer(
    facts: Mapping[str, TokenFacts],
    samples: Mapping[str, str],
    *,
    parallel: bool = True,
    price: float = 0.5,
) -> Interactive:
    """Type or pick a text and see its tokens under each tokenizer; a click on a token opens what is
    known of it.

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
    typed = widgets.Textarea(
        samples[first], description="type here", layout=wide, continuous_update=True
    )
    cost = widgets.BoundedFloatText(price, min=0, max=1e6, step=0.1, description="per million")

    def reference(code: str) -> str:
        return samples.get("en", "") if parallel and code not in ("", "en") else ""

    def answer() -> str:
        code = chosen.value if samples.get(chosen.value) == typed.value else ""
        return str(
            explore_html(
                facts, typed.value, language=code, english=reference(code), price=cost.value
            )
        )

    def picked(event: dict[str, Any]) -> None:
        if event["new"] in samples:
            typed.value = samples[event["new"]]

    def wrote(event: dict[str, Any]) -> None:
        if event["new"] != samples.get(chosen.value):
            chosen.value = YOURS

    twin = [
        explore_html(facts, text, language=code, english=reference(code), price=price)
        for code, text in samples.items()
    ]
    chosen.observe(picked, names="value")
    typed.observe(wrote, names="value")
    controls = [chosen, typed, cost]  # what is chosen changes what is typed, which is answered
    return interactive(controls, answer, "".join(map(str, twin)), observed=[typed, cost])


def vocabulary_size_widget(
    sizes: VocabularySizes,
    base: TokenFacts | None = None,
    adapted: TokenFacts | None = None,
    *,
    text: str = "",
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
    typed = widgets.Textarea(
        text, description="your text", layout=widgets.Layout(width="95%", height="4em")
    )
    if base is None or adapted is None or adapted.change is None:
        count = None
    else:
        count = lru_cache(maxsize=1)(partial(sentence_tokens, base.tokenizer, adapted.change))

    def say(number: int) -> str:
        on_text = (
            _own_text(count(typed.value), number, typed.value)
            if count and typed.value.strip()
            else ""
        )
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


def _own_text(by_number: Mapping[int, int], number: int, text: str) -> str:
    """What a number of new tokens means for a text, as HTML."""
    before, now = by_number[0], by_number[max(one for one in by_number if one <= number)]
    return (
        f"<br>Your text: <b>{now:,} tokens</b> instead of {before:,}; a page of {PAGE:,} characters takes "
        f"{now / len(text) * PAGE:,.0f}, and a context of 2,048 tokens holds {len(text) / now * 2048:,.0f} characters."
    )
