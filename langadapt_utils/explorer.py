"""Looking at tokens: a text under several tokenizers, aligned, with what is known of each token behind a click.

Everything is plain HTML: tokens open by mouse or keyboard with no script, in a notebook as well as on a static page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import torch

from .changes import VocabularyChange
from .display.html import TOKEN_COLOURS, Html, shown_spaces, visible_piece
from .languages import RIGHT_TO_LEFT
from .specs import Spec
from .tokens import Span, readable, token_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
        change: that made it, where it is an adapted one: it tells which tokens are new and what spells them.
        rows: embedding rows by token id, of shape (tokens, dimensions); neighbours are looked up in them.
    """

    tokenizer: PreTrainedTokenizerFast
    change: VocabularyChange | None = None
    rows: torch.Tensor | None = None
    _nearest: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @cached_property
    def merges(self) -> dict[str, tuple[str, str, int]]:
        """By surface: the two tokens that it is merged from, and which merge that is. Empty for Unigram."""
        spec = Spec.of(self.tokenizer)
        if spec.family == "Unigram":
            return {}
        ranked = list(enumerate(spec.merges(), start=1))  # of several merges to one token the first is applied
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
        near = (self.directions[new] @ self.directions.T).topk(NEIGHBOURS + 1, dim=1).indices.tolist()
        self._nearest.update(
            {index: [other for other in found if other != index] for index, found in zip(new, near, strict=True)}
        )

    def of(self, index: int) -> dict[str, str]:
        """What there is to say of a token, by its id."""
        surface = str(self.tokenizer.convert_ids_to_tokens(index))
        facts = {"id": f"{index:,}"}
        if self.change is not None and index in self.change.added:
            pieces = (self.change.base_text(old) for old in self.change.spelled[index])
            facts = {"id": f"{index:,}, new", "was": " + ".join(map(shown_spaces, pieces))}
        if surface in self.merges:
            left, right, rank = self.merges[surface]
            sides = " + ".join(shown_spaces(readable(self.tokenizer, side)) for side in (left, right))
            facts["merge"] = f"{sides} (number {rank:,})"
        if index in self._nearest:
            near = (shown_spaces(readable(self.tokenizer, other)) for other in self._nearest[index][:NEIGHBOURS])
            facts["neighbours"] = ", ".join(near)
        return facts


def explore_html(
    facts: Mapping[str, TokenFacts], text: str, *, language: str = "", english: str = "", price: float = 0.0
) -> Html:
    """A text under tokenizers, one line each, cut at the places where all of them cut; and what it costs.

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
        stretches.append(f'<span class="la-stretch">{"".join(f"<span>{line}</span>" for line in lines)}</span>')
    direction = "rtl" if language in RIGHT_TO_LEFT else "ltr"
    body = f'<div class="la-page" lang="{escape(language)}" dir="{direction}">{"".join(stretches)}</div>'
    notes = [f"Only the first {LONGEST:,} characters are shown."] if len(text) > LONGEST else []
    notes += [] if opened else [f"Tokens of texts with more than {OPENED} of them cannot be opened."]
    return Html(STYLE + _costs(facts, spans, shown, english, price) + body + "".join(f"<p>{n}</p>" for n in notes))


def neighbour_table(
    methods: Mapping[str, torch.Tensor], old: torch.Tensor, change: VocabularyChange, *, tokens: Sequence[int]
) -> pd.DataFrame:
    """The old tokens whose rows are nearest to those of new tokens, by cosine, under each method.

    Args:
        methods: rows of new tokens in the order of `change.added`, of shape (new tokens, dimensions), by method.
        old: rows of the base, of shape (old tokens, dimensions).
        change: of the vocabulary.
        tokens: new ids to look at.

    Returns:
        A row a token and method: `token`, `method`, `neighbours`.
    """
    places = {new: place for place, new in enumerate(change.added)}
    known = torch.tensor(sorted({*change.kept.values(), *change.removed}))  # other rows only pad the matrix
    directions = torch.nn.functional.normalize(old[known].float(), dim=1)
    rows = []
    for method, matrix in methods.items():
        chosen = torch.nn.functional.normalize(matrix[[places[new] for new in tokens]].float(), dim=1)
        near = known[(chosen @ directions.T).topk(NEIGHBOURS, dim=1).indices].tolist()
        for new, found in zip(tokens, near, strict=True):
            rows.append([change.text(new), method, [change.base_text(index) for index in found]])
    return pd.DataFrame(rows, columns=["token", "method", "neighbours"])


def _stretches(spans: Sequence[Sequence[Span]]) -> list[list[range]]:
    """Which tokens of each tokenizer lie between neighbouring places where all of them end a token."""
    ends = sorted(set.intersection(*({span.end for span in part} for part in spans))) if spans else []
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
    facts: Mapping[str, TokenFacts], spans: Mapping[str, Sequence[Span]], text: str, english: str, price: float
) -> str:
    """A table of what the text costs under each tokenizer."""
    size = len(text.encode())
    head = ["", "tokens", "bytes a token", *(["parity"] if english else []), *(["a page costs"] if price else [])]
    rows = []
    for name, fact in facts.items():
        count = len(spans[name])
        cells = [escape(name), f"{count:,}", f"{size / count:.2f}" if count else "–"]
        if english:
            reference = len(token_spans(fact.tokenizer, english))
            cells.append(f"{count / reference:.2f} times English" if reference else "–")
        if price:
            cells.append(f"{count / len(text) * PAGE * price / 1e6:,.4f}" if text else "–")
        rows.append("".join(f'<td style="text-align:left;padding-right:2em">{cell}</td>' for cell in cells))
    counted = f"<p>{len(text):,} characters, {size:,} bytes</p>"
    header = "".join(f'<th style="text-align:left;padding-right:2em">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"{counted}<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
