"""Which tokens come, which stay out, and which base tokens go.

Sources: leaf pruning, Purason et al., arXiv 2512.03989; giving up the least frequent, Csaki et al.,
arXiv 2311.05741.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import regex

from ..errors import VocabularyError
from ..recipe import GiveUp
from ..tokens import bytes_surface, surfaces_as_words
from .change import changed_sentences
from .merges import learn_merges
from .tokenizer_json import NewToken, Spec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def learn_tokens(
    spec: Spec,
    words: Mapping[str, int],
    wanted: int,
    min_frequency: int,
    max_token_length: int,
    *,
    complete_bytes: bool = False,
    counted: bool = False,
) -> list[NewToken]:
    """Learn tokens for a text, the most useful first.

    Merges are learned on whole characters: those that the base writes in pieces, or not at all, are
    made first, so that no token ends inside of one. In the result a character stands where it saves
    as much as the merges beside it.

    Args:
        spec: the tokenizer to continue.
        words: pre-tokens of the text and how often each occurs.
        wanted: how many to learn at most.
        min_frequency: what occurs less often is not learned.
        max_token_length: characters of the longest token; what is too long all the same,
            `wanted_tokens` drops.
        complete_bytes: begin with the bytes that have no token.
        counted: count the merges also where nothing here depends on it.
    """
    bytes_first = (
        [NewToken(byte, None, 0) for byte in spec.missing_bytes()] if complete_bytes else []
    )
    spec = spec.appended(bytes_first) if bytes_first else spec
    if spec.byte_level and (missing := spec.missing_bytes()):
        words = _without_characters(
            words, missing
        )  # the model would drop such a byte and join what stands beside it
    characters = _characters(spec, words, min_frequency)
    grown = spec.appended(characters)
    merges = learn_merges(
        grown.bare,
        words,
        wanted,
        min_frequency=min_frequency,
        longest=max_token_length,
        boundaries=grown.boundaries,
        rivals=[_saving(character) for character in characters],
        counted=counted or spec.family == "Unigram",
    )
    waiting = iter(characters)
    learned = (
        NewToken(merge.left + merge.right, (merge.left, merge.right), merge.applied)
        if merge
        else next(waiting)
        for merge in merges
    )
    return [*bytes_first, *learned]


def candidates_for(tokens: int) -> int:
    """How many candidates to learn for a number of tokens: some turn out too long, or to do
    harm.
    """
    return 11 * tokens // 10 + 100


def wanted_tokens(tokens: Sequence[NewToken], spec: Spec, max_token_length: int) -> list[NewToken]:
    """Return the tokens without those that are too long, and without all that build on them."""
    too_long = {
        token.surface
        for token in tokens
        if token.parts and len(spec.text(token.surface)) > max_token_length
    }
    return without(tokens, too_long)


def without(tokens: Iterable[NewToken], surfaces: set[str]) -> list[NewToken]:
    """Tokens without some, and without all that build on them, so that the rest stays reachable."""
    gone, left = set(surfaces), []
    for token in tokens:
        if token.surface in gone or gone.intersection(token.parts or ()):
            gone.add(token.surface)
        else:
            left.append(token)
    return left


def _without_characters(words: Mapping[str, int], characters: Sequence[str]) -> Mapping[str, int]:
    """Words cut where some characters stand."""
    cut = regex.compile(f"[{''.join(map(regex.escape, characters))}]+")
    if not cut.search("\n".join(words)):
        return words
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for piece in filter(None, cut.split(word)):
            pieces[piece] += count
    return pieces


def _characters(spec: Spec, words: Mapping[str, int], min_frequency: int) -> list[NewToken]:
    """Tokens for the characters that the vocabulary writes in pieces or not at all, the most useful
    first.

    A byte-level vocabulary merges their bytes from left to right; others take the character as it
    is.
    """
    texts = surfaces_as_words(words) if spec.byte_level else list(words)
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    totals = np.bincount(
        points, weights=np.repeat(list(words.values()), [len(text) for text in texts])
    )
    counts = {chr(point): int(totals[point]) for point in np.flatnonzero(totals).tolist()}
    frequent = {character: count for character, count in counts.items() if count >= min_frequency}
    tokens: dict[str, NewToken] = {}
    if spec.byte_level:
        surfaces = [bytes_surface(character.encode()) for character in frequent]
        encodings = spec.bare.encode_batch(surfaces, add_special_tokens=False)
        for encoding, count in zip(encodings, frequent.values(), strict=True):
            made, *rest = encoding.tokens
            for piece in rest:
                known = tokens.get(made + piece)
                tokens[made + piece] = NewToken(
                    made + piece, (made, piece), count + (known.count if known else 0)
                )
                made += piece
    else:
        tokens = {
            c: NewToken(c, None, count) for c, count in frequent.items() if c not in spec.vocab
        }
    return sorted(
        tokens.values(), key=lambda token: (-_saving(token), len(token.surface), token.surface)
    )


def _saving(character: NewToken) -> int:
    """Tokens that a character saves: a merge one each time, a character that was written as bytes
    all but one.
    """
    pieces = 2 if character.parts else max(2, len(character.surface.encode()))
    return character.count * (pieces - 1)


def keep_contract(
    base: Spec,
    spec: Spec,
    candidates: list[NewToken],
    tokens: int,
    sentences: Mapping[str, Sequence[str]],
    protect: Mapping[str, float],
) -> list[NewToken]:
    """Candidates without those that would change more sentences of protected languages than is
    allowed.

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
    allowed = {
        language: int((1 - protect[language]) * len(lines)) for language, lines in sentences.items()
    }
    # Where none of the candidates fires, no selection of them does.
    suspects = _changed(base.whole, spec.appended(candidates).whole, sentences)
    while True:
        chosen = candidates[:tokens]
        grown = spec.appended(chosen).whole
        over = {
            k: v for k, v in _changed(base.whole, grown, suspects).items() if len(v) > allowed[k]
        }
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


def _changed(
    before: Tokenizer, after: Tokenizer, sentences: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    return {
        language: [lines[index] for index in changed_sentences(before, after, lines)[0]]
        for language, lines in sentences.items()
    }


def _to_drop(
    fired: Mapping[str, Sequence[set[str]]], allowed: Mapping[str, int], worth: Mapping[str, int]
) -> set[str]:
    """The roots to drop: all but those that make the best use of the sentences that may change.

    Greedy: the next to be kept is the root that saves the most for each further sentence it
    changes.
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
        if (
            value < claimed
        ):  # its sentences changed for another's sake meanwhile: it is a better bargain now
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


def choose_leaves(
    spec: Spec,
    used: Mapping[str, int],
    in_target: Mapping[str, int],
    chosen: Sequence[NewToken],
    give_up: GiveUp,
) -> tuple[dict[int, str], dict[int, int]]:
    """Choose base tokens to give up, as many as are chosen to come: no surviving merge needs them.

    The least used goes first; ties go to the token less used in the target language, then to the
    one learned last.

    Args:
        spec: the base tokenizer.
        used: uses of each token in the text that must not suffer.
        in_target: uses in the target language.
        chosen: the tokens that are to come, whose parts must stay.
        give_up: `usage` lets what a token was used for fall to its parts when it goes; `frequency`
            does not.

    Returns:
        Surfaces and own uses of the tokens to give up, by id.
    """
    vocabulary = spec.vocab
    made: dict[str, list[str]] = {}
    needed = Counter(part for token in chosen for part in token.parts or ())
    for left, right in spec.merges():
        made.setdefault(left + right, []).extend((left, right))
        needed.update((left, right))
    if spec.family == "Unigram":
        made = {
            token: []
            for token in vocabulary
            if len(token) > 1 and vocabulary[token] not in spec.boundaries
        }
        needed = Counter()
    uses, target_uses = Counter(used), Counter(in_target)

    def entry(token: str) -> tuple[int, int, int, str]:
        return uses[token], target_uses[token], -vocabulary[token], token

    stay = spec.special.keys() | {
        token for token, index in vocabulary.items() if index in spec.boundaries
    }
    leaves = [
        entry(token)
        for token in made
        if token in vocabulary and token not in stay and not needed[token]
    ]
    heapq.heapify(leaves)
    removed: dict[int, str] = {}
    while leaves and len(removed) < len(chosen):
        of_token, of_target, _, token = heapq.heappop(leaves)
        if (of_token, of_target) != (uses[token], target_uses[token]):
            continue  # an outdated entry
        removed[vocabulary[token]] = token
        for part in made[token]:
            needed[part] -= 1
            if give_up == "usage":
                uses[part] += of_token
                target_uses[part] += of_target
        for part in set(made[token]):
            if not needed[part] and part in made and part not in stay:
                heapq.heappush(leaves, entry(part))
    if len(removed) < len(chosen):
        raise VocabularyError(
            f"{len(chosen)} base tokens were to be replaced, but only {len(removed)} can be given up: "
            "ask for fewer with vocabulary.tokens"
        )
    return removed, {old: used.get(token, 0) for old, token in removed.items()}
