"""A contract with other languages: at least a share of their sentences keeps its exact ids.

Merges learned on one language can fire in text of another, in names above all. Those that break too much are left out.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .audit import changed_sentences
from .errors import VocabularyError
from .learning import without
from .specs import NewToken, Spec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def keep_contract(
    base: Spec,
    spec: Spec,
    candidates: list[NewToken],
    tokens: int,
    sentences: Mapping[str, Sequence[str]],
    protect: Mapping[str, float],
) -> list[NewToken]:
    """Candidates without those that would change more sentences of protected languages than is allowed.

    A sentence is changed by the first merges that fire in it, those of two base tokens: its roots.

    Args:
        base: the tokenizer before any change.
        spec: the tokenizer that grows, perhaps with a repaired word pattern.
        candidates: tokens in order of their use, each with its count.
        tokens: how many of them are to be added.
        sentences: of each protected language.
        protect: by language, the share of its sentences that is to keep its ids.

    Raises:
        VocabularyError: sentences change for another reason than new tokens.
    """
    allowed = {language: int((1 - protect[language]) * len(lines)) for language, lines in sentences.items()}
    # Where none of the candidates fires, no selection of them does.
    suspects = _changed(base.whole, spec.appended(candidates).whole, sentences)
    while True:
        chosen = candidates[:tokens]
        grown = spec.appended(chosen).whole
        over = {k: v for k, v in _changed(base.whole, grown, suspects).items() if len(v) > allowed[k]}
        if not over:
            return candidates
        roots = _roots(chosen)
        fired = {
            language: [
                {root for token in encoding.tokens for root in roots.get(token, ())}
                for encoding in grown.encode_batch(lines, add_special_tokens=False)
            ]
            for language, lines in over.items()
        }
        guilty = _to_drop(fired, allowed, _worth(chosen, roots))
        if not guilty:
            worst = max(over, key=lambda language: len(over[language]))
            raise VocabularyError(
                f"{len(over[worst]):,} of {len(sentences[worst]):,} sentences in '{worst}' change whatever tokens are "
                f"left out, more than protect['{worst}'] = {protect[worst]} allows: set repair_script=False, or a "
                "lower share"
            )
        candidates = without(candidates, guilty)


def _changed(before: Tokenizer, after: Tokenizer, sentences: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {
        language: [lines[index] for index in changed_sentences(before, after, lines)[0]]
        for language, lines in sentences.items()
    }


def _to_drop(fired: Mapping[str, Sequence[set[str]]], allowed: Mapping[str, int], worth: Mapping[str, int]) -> set[str]:
    """The roots to drop: all but those that make the best use of the sentences that may change.

    Greedy: the next to be kept is the root that saves the most for each further sentence it changes.
    """
    touched: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for language, lines in fired.items():
        for index, roots in enumerate(lines):
            for root in roots:
                touched[root].append((language, index))
    changed: set[tuple[str, int]] = set()
    left = dict(allowed)
    dropped = set()
    heap = [(-worth[root] / len(sentences), root) for root, sentences in touched.items()]
    heapq.heapify(heap)
    while heap:
        claimed, root = heapq.heappop(heap)
        fresh = [sentence for sentence in touched[root] if sentence not in changed]
        value = -worth[root] / max(len(fresh), 1)
        if value < claimed:  # its sentences changed for another's sake meanwhile: it is a better bargain now
            heapq.heappush(heap, (value, root))
            continue
        costs = Counter(language for language, _ in fresh)
        if all(cost <= left[language] for language, cost in costs.items()):
            changed.update(fresh)
            for language, cost in costs.items():
                left[language] -= cost
        else:
            dropped.add(root)
    return dropped


def _roots(tokens: Sequence[NewToken]) -> dict[str, set[str]]:
    """For each new token, the merges of base tokens (or the characters) that it is made from."""
    roots: dict[str, set[str]] = {}
    for token in tokens:
        inherited = set().union(*(roots.get(part, set()) for part in token.parts or ()))
        new_parts = [part for part in token.parts or () if part in roots]
        roots[token.surface] = inherited if new_parts else {token.surface}
    return roots


def _worth(tokens: Sequence[NewToken], roots: Mapping[str, set[str]]) -> Counter[str]:
    """What each root saves in the target text, with all that is built on it."""
    worth: Counter[str] = Counter()
    for token in tokens:
        for root in roots[token.surface]:
            worth[root] += token.count
    return worth
