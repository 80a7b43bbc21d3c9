"""Figures and controls of notebook 2: an explorer of tokens, and curves of the vocabulary size.

The explorer is plain HTML: tokens open by mouse or keyboard without a script, in a notebook and on
a static page.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import cycle, pairwise
from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..display.figures import GREY, TARGET, beside, finish, new_axes
from ..display.html import TOKEN_COLOURS, Html, render, shown_spaces, visible_piece
from ..display.widgets import Interactive, evenly_spread, listed, new_slider
from ..languages import language_name
from ..tokens import Span, readable, token_spans
from .change import VocabularyChange
from .sizes import VocabularySizes, text_tokens
from .tokenizer_json import Spec

LONGEST = 6_000  # characters that are shown
OPENED = 700  # total tokens up to which each can be opened
PAGE = 1_800  # characters of a page
PRICE = 0.5  # per million tokens, until the reader sets another
YOURS = "your own"


@dataclass(frozen=True)
class TokenFacts:
    """Facts about the tokens of a tokenizer.

    Attributes:
        tokenizer: of the tokens.
        change: of an adapted tokenizer; it gives the new tokens.
    """

    tokenizer: Tokenizer
    change: VocabularyChange | None = None

    @cached_property
    def merges(self) -> dict[str, tuple[str, str, int]]:
        """The two parts and the rank of each merge, by merged token; empty for Unigram."""
        ranked = list(enumerate(Spec.of(self.tokenizer).merges(), start=1))
        # Of several merges to one token the first is applied.
        return {left + right: (left, right, rank) for rank, (left, right) in reversed(ranked)}

    def of(self, index: int) -> dict[str, str]:
        """Return the facts about a token, given its id."""
        surface, facts = str(self.tokenizer.convert_ids_to_tokens(index)), {"id": f"{index:,}"}
        if self.change is not None and index in self.change.added:
            pieces = (self.change.base_text(old) for old in self.change.base_pieces[index])
            facts = {"id": f"{index:,}, new", "was": " + ".join(map(shown_spaces, pieces))}
        if surface in self.merges:
            *sides, rank = self.merges[surface]
            parts = (shown_spaces(readable(self.tokenizer, side)) for side in sides)
            facts["merge"] = f"{' + '.join(parts)} (number {rank:,})"
        return facts


Facts = Mapping[str, TokenFacts]  # by name of the tokenizer


def explore_html(
    facts: Facts, text: str, *, language: str = "", english: str = "", price: float = 0.0
) -> Html:
    """Return a text under several tokenizers, one line each, with counts and costs.

    The lines are aligned where all tokenizers split.

    Args:
        facts: by name of the tokenizer.
        text: to show, up to 6,000 characters; it is escaped.
        language: for the font and direction in the browser.
        english: the same text in English, for parity.
        price: per million tokens, in any currency.
    """
    english = english if max(len(text), len(english)) <= LONGEST else ""
    raw = text[:LONGEST].encode("utf-8", "replace")
    shown = raw.decode("utf-8")
    spans = {name: token_spans(fact.tokenizer, shown) for name, fact in facts.items()}
    opened = sum(map(len, spans.values())) <= OPENED
    tokens = [_tokens(fact, spans[name], raw, opened) for name, fact in facts.items()]
    parts = _stretches(list(spans.values()))
    stretches = [[line[own] for line, own in zip(tokens, each, strict=True)] for each in parts]
    notes = [f"Only the first {LONGEST:,} characters are shown."] if len(text) > LONGEST else []
    if not opened:
        notes.append(f"Tokens of texts with more than {OPENED} of them cannot be opened.")
    sizes = {name: len(token_spans(fact.tokenizer, english)) for name, fact in facts.items()}
    costs = {name: {"tokens": len(spans[name]), "english": size} for name, size in sizes.items()}
    about = {"language": language, "text": shown, "costs": costs, "price": price, "page": PAGE}
    return render("vocabulary/explorer.html.j2", **about, stretches=stretches, notes=notes)


def _stretches(spans: Sequence[Sequence[Span]]) -> list[list[slice]]:
    """Return the tokens of each tokenizer between places where all tokenizers end a token.

    Example:
        >>> one, two = [Span(7, 0, 2)], [Span(3, 0, 1), Span(4, 1, 2)]
        >>> _stretches([one, two])
        [[slice(0, 1, None), slice(0, 2, None)]]
    """
    ends = [[span.end for span in part] for part in spans]
    common = sorted(set.intersection(*map(set, ends))) if spans else []
    places = [[0] * len(spans), *([bisect_right(own, end) for own in ends] for end in common)]
    return [list(map(slice, *between)) for between in pairwise(places)]


def _tokens(fact: TokenFacts, spans: list[Span], raw: bytes, opened: bool) -> list[dict[str, Any]]:
    """Return the tokens for the template: text, colour, and facts if they can be opened."""
    shown: list[dict[str, Any]] = []
    for span, colour in zip(spans, cycle(TOKEN_COLOURS)):
        piece = raw[span.start : span.end]
        more = {"bytes": piece.hex(" ").upper(), **fact.of(span.id)} if opened else None
        shown.append({"text": visible_piece(piece), "colour": colour, "facts": more, "id": span.id})
    return shown


def plot_sizes(sizes: VocabularySizes, *, ax: Axes | None = None) -> Axes:
    """Plot the tokens of held-out text against the number of new tokens, and the knee.

    Args:
        sizes: from `measure_sizes`.
        ax: axes to draw into; new ones by default.
    """
    ax = ax or new_axes()
    table, language = sizes.table, language_name(sizes.language)
    parity = bool(table.parity.notna().all())
    values = table.parity if parity else 1 - table.saved
    ax.plot(table.new_tokens, values, color=TARGET, marker=".")
    ax.axvline(sizes.knee, color=GREY, linestyle=":")
    beside(ax, "knee", sizes.knee, values.max(), (4, -4), va="top", color=GREY)
    unit = f"tokens, as a {'multiple of English' if parity else 'fraction of before'}"
    ax.set(xlabel="new tokens", ylabel=unit, ylim=(0, values.max() * 1.05))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    last, knee = table.iloc[-1], sizes.at(sizes.knee)
    title = f"{last.new_tokens:,.0f} new tokens save {last.saved:.0%} of the {language} tokens on "
    title += f"held-out text; the knee lies at {sizes.knee:,}, with "
    title += f"{knee.saved / max(last.saved, 1e-9):.0%} of the saving"
    return finish(ax, title, note=f"{sizes.texts} texts")


def token_explorer(facts: Facts, samples: dict[str, str], *, parallel: bool = True) -> Interactive:
    """Return controls to type or choose a text and see its tokens; a token opens at a click.

    Args:
        facts: by name of the tokenizer.
        samples: one text per language, by code.
        parallel: whether the samples are translations of the English one, for parity.
    """
    names = [(language_name(code), code) for code in samples]
    first, wide = next(iter(samples)), widgets.Layout(width="95%", height="5em")
    chosen = widgets.Dropdown(options=[*names, (YOURS, YOURS)], value=first, description="text")
    typed = widgets.Textarea(samples[first], description="type here", layout=wide)
    cost = widgets.BoundedFloatText(PRICE, min=0, max=1e6, step=0.1, description="per million")

    def page(text: str, code: str, price: float) -> str:
        english = samples.get("en", "") if parallel and code not in ("", "en") else ""
        return str(explore_html(facts, text, language=code, english=english, price=price))

    def answer() -> str:
        code = chosen.value if samples.get(chosen.value) == typed.value else ""
        return page(typed.value, code, cost.value)

    def choice_for(text: str) -> str:
        return str(chosen.value) if text == samples.get(chosen.value) else YOURS

    # A chosen sample is copied into the text box; a changed text is the reader's own.
    widgets.dlink((chosen, "value"), (typed, "value"), lambda code: samples.get(code, typed.value))
    widgets.dlink((typed, "value"), (chosen, "value"), choice_for)
    static = "".join(page(text, code, PRICE) for code, text in samples.items())
    return Interactive([chosen, typed, cost], answer, static)


def vocabulary_size_widget(
    sizes: VocabularySizes, base: TokenFacts, adapted: TokenFacts, *, text: str = ""
) -> Interactive:
    """Return controls to choose a number of new tokens and see its saving and cost.

    Args:
        sizes: measured on held-out text.
        base: facts about the base tokenizer.
        adapted: facts about the adapted tokenizer, with its change.
        text: initial text of the reader's own.
    """
    numbers = sizes.table.new_tokens.tolist()
    slider = new_slider("new tokens", [(f"{number:,}", number) for number in numbers], sizes.knee)
    wide = widgets.Layout(width="95%", height="4em")
    typed = widgets.Textarea(text, description="your text", layout=wide)
    assert adapted.change is not None
    specs = Spec.of(base.tokenizer), Spec.of(adapted.tokenizer)
    count = lru_cache(maxsize=1)(partial(text_tokens, *specs, adapted.change))

    def say(number: int) -> str:
        counts = count(own) if (own := typed.value).strip() else {0: 1}
        shown = {"row": sizes.at(number), "language": language_name(sizes.language), "text": own}
        now = counts[max(known for known in counts if known <= number)]
        return str(render("vocabulary/size.html.j2", **shown, before=counts[0], now=now, page=PAGE))

    static = listed([say(number) for number in evenly_spread(numbers)])
    return Interactive([typed, slider], lambda: say(slider.value), static)
