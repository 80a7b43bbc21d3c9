"""How many tokens? What every number of new tokens would save and cost, from one training run.

Merges are ordered, so that the tokenizer with n new tokens is the one with all of them, stopped
early.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import AutoConfig

from ..intervals import knee
from ..models import Base, parameter_count
from ..tokens import encode_texts
from .change import VocabularyChange
from .merges import times_applied
from .tokenizer_json import Spec

POINTS, UNIGRAM_POINTS = 60, 10
BYTES_PER_PARAMETER = 2  # rows in bfloat16


@dataclass(frozen=True)
class VocabularySizes:
    """What each number of new tokens saves and costs.

    Attributes:
        table: a row for each number, with the columns `new_tokens`; `tokens` and
            `tokens_per_character` of the target text; `parity` (tokens over those of English for
            the same texts; empty where they are no translations); `saved` (share of the base's
            tokens); `megabytes` (new rows in bfloat16, twice where the head is not tied);
            `compute_per_token` and `speed` (multiply-adds of a forward pass for a token, and
            characters for the same work, both as multiples of the base's).
        knee: the number from which on the curve bends least for what it costs: the point farthest
            from the straight line between its ends (Satopaa et al. 2011, "Finding a Kneedle in a
            haystack").
        language: of the target text.
        texts: how many texts were measured.
    """

    table: pd.DataFrame
    knee: int
    language: str
    texts: int

    def at(self, number: int) -> pd.Series:
        """The row of the number of new tokens nearest to the one given."""
        return self.table.iloc[int(np.argmin(np.abs(self.table.new_tokens.to_numpy() - number)))]


def measure_sizes(
    base: Base,
    change: VocabularyChange,
    texts: Mapping[str, Sequence[str]],
    *,
    language: str,
    parallel: bool = True,
) -> VocabularySizes:
    """Measure what each number of new tokens saves and costs, on text not learned from.

    Args:
        base: the base model, whose shape tells the cost; its weights are not loaded.
        change: a change with all the tokens to consider.
        texts: of the target language and, where `parallel`, of English.
        language: the target language.
        parallel: whether the texts are translations, line by line.
    """
    old, new = Spec.of(base.tokenizer), Spec.of(change.tokenizer)
    counts = {code: text_tokens(old, new, change, *lines) for code, lines in texts.items()}
    numbers = np.array(list(counts[language]))
    tokens = {code: np.array(list(by_number.values())) for code, by_number in counts.items()}
    target = tokens[language]
    config = AutoConfig.from_pretrained(str(base.folder)).get_text_config()
    matrices = 1 if config.tie_word_embeddings else 2
    body = parameter_count(base.folder) - matrices * config.vocab_size * config.hidden_size
    added = numbers * (change.mode == "extend")
    rows = config.vocab_size + added
    work = (body + rows * config.hidden_size) / (body + config.vocab_size * config.hidden_size)
    table = pd.DataFrame(
        {
            "new_tokens": numbers,
            "tokens": target,
            "tokens_per_character": target / sum(map(len, texts[language])),
            "parity": target / tokens["en"] if parallel and "en" in counts else np.nan,
            "saved": 1 - target / target[0],
            "megabytes": added * config.hidden_size * matrices * BYTES_PER_PARAMETER / 1e6,
            "compute_per_token": work,
            "speed": target[0] / target / work,
        }
    )
    bend = int(numbers[knee(numbers, target)])
    return VocabularySizes(table, bend, language, len(texts[language]))


def tokens_by_number(
    base: Spec,
    grown: Spec,
    added: Mapping[int, str],
    spelled: Mapping[int, Sequence[int]],
    count: Callable[[Spec], Mapping[str, int]],
) -> dict[int, int]:
    """Count the tokens of a text with none, with more and more, and with all added tokens.

    For BPE one encoding with all of them tells it: a merge saves one token wherever it is applied,
    also as a step on the way to a later one; a character saves the bytes that spelled it, but one.
    Unigram pieces compete with each other, so that fewer numbers are tried, each by itself.

    Args:
        base: before the change; with `replace`, the tokens given up are gone for every number.
        grown: after the change.
        added: new id to surface, in order of learning.
        spelled: new id to the old ids that spell it.
        count: how often each token stands in the text, for a tokenizer.
    """
    points = UNIGRAM_POINTS if grown.family == "Unigram" else POINTS
    numbers = [0]
    if added:
        numbers += np.unique(np.geomspace(1, len(added), points).round().astype(int)).tolist()
    if grown.family == "Unigram":
        specs = {number: _with_first(base, grown, added, number) for number in numbers}
        return {number: sum(count(spec).values()) for number, spec in specs.items()}
    counts, parts = count(grown), {left + right: (left, right) for left, right in grown.merges()}
    merges = [parts[surface] for surface in added.values() if surface in parts]
    applied = times_applied(counts, merges)
    pieces = [2 if surface in parts else len(spelled[new]) for new, surface in added.items()]
    saved = [applied[s] * (n - 1) for s, n in zip(added.values(), pieces, strict=True)]
    return {number: sum(counts.values()) + sum(saved[number:]) for number in numbers}


def text_tokens(base: Spec, adapted: Spec, change: VocabularyChange, *texts: str) -> dict[int, int]:
    """Return the tokens of some texts by the number of new tokens."""

    def count(spec: Spec) -> Counter[str]:
        encodings = encode_texts(spec.whole, texts, offsets=True)
        return Counter(token for encoding in encodings for token in encoding.tokens)

    return tokens_by_number(base, adapted, change.added, change.base_pieces, count)


def _with_first(base: Spec, grown: Spec, added: Mapping[int, str], number: int) -> Spec:
    """A Unigram tokenizer with only the first of its added pieces."""
    if number == len(added):
        return grown
    pieces, all_pieces = list(base.data["model"]["vocab"]), grown.data["model"]["vocab"]
    for new in sorted(list(added)[:number]):
        pieces[new : new + 1] = [all_pieces[new]]
    return Spec({**grown.data, "model": {**grown.data["model"], "vocab": pieces}}, grown.family)
