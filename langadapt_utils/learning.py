"""Which tokens a text asks for: characters that are missing, merges learned on its words, less what is not wanted."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import regex

from .errors import VocabularyError
from .fertility import word_spans
from .merges import learn_merges
from .recipe import Forbidden
from .specs import NewToken, Spec
from .tokens import bytes_surface, surface_bytes


def learn_tokens(
    spec: Spec,
    words: Mapping[str, int],
    wanted: int,
    min_frequency: int,
    *,
    complete_bytes: bool = False,
    counted: bool = False,
) -> list[NewToken]:
    """Learn tokens for a text, the most useful first.

    Characters that the base can only write as bytes, or not at all, come in where they save as many tokens as the
    merges beside them; merges build on them.

    Args:
        spec: the tokenizer to continue.
        words: pre-tokens of the text and how often each occurs.
        wanted: how many to learn at most.
        min_frequency: what occurs less often is not learned.
        complete_bytes: begin with the bytes that have no token.
        counted: count the merges also where the family does not need it.
    """
    bytes_first = [NewToken(byte, None, 0) for byte in spec.missing_bytes()] if complete_bytes else []
    characters = [] if spec.byte_level else _missing_characters(spec, words, min_frequency)
    grown = spec.appended([*bytes_first, *characters])
    if grown.byte_level and (missing := grown.missing_bytes()):
        words = _without_characters(words, missing)  # the model would drop such a byte and join what stands beside it
    merges = learn_merges(
        grown.bare,
        words,
        wanted,
        min_frequency=min_frequency,
        boundaries=grown.boundaries,
        counted=counted or not spec.byte_level,
    )
    learned = [NewToken(left + right, (left, right), applied) for left, right, applied in merges]
    if not characters:
        return [*bytes_first, *learned]
    saved = ((-character.count * (len(character.surface.encode()) - 1 or 1), character) for character in characters)
    lowest = np.minimum.accumulate([token.count for token in learned]).tolist()  # a merge comes after its parts
    merged = zip((-count for count in lowest), learned, strict=True)
    return [*bytes_first, *(token for _, token in heapq.merge(saved, merged, key=lambda pair: pair[0]))]


def cut_at_words(words: Mapping[str, int], spec: Spec, language: str) -> dict[str, int]:
    """Cut pre-tokens where the words of a language begin, by its named segmenter.

    Args:
        words: pre-tokens, in the alphabet of the tokenizer.
        spec: the tokenizer.
        language: a code that `word_spans` has a segmenter for.
    """
    cut: Counter[str] = Counter()
    for word, count in words.items():
        text = surface_bytes(word, byte_level=spec.byte_level).decode("utf-8", "replace")
        starts = [0, *(start for start, _ in word_spans(text, language) if text[:start].strip()), len(text)]
        if "\ufffd" in text:  # the pattern itself cut inside a character
            starts = [0, len(text)]
        for start, end in pairwise(starts):
            if spec.byte_level and len(starts) > 2:
                cut[bytes_surface(text[start:end].encode())] += count
            else:
                cut[word[start:end] if len(starts) > 2 else word] += count
    return dict(cut)


def wanted_tokens(
    tokens: Sequence[NewToken], spec: Spec, max_token_length: int, forbid: Sequence[Forbidden]
) -> list[NewToken]:
    """Tokens without those that are too long or forbidden, and without all that build on them.

    Raises:
        VocabularyError: something is forbidden that is not known.
    """
    unknown = set(forbid) - FORBIDDEN.keys()
    if unknown:
        raise VocabularyError(f"cannot forbid '{min(unknown)}': use one of {', '.join(FORBIDDEN)}")

    def wanted(token: NewToken) -> bool:
        text = spec.text(token.surface)
        return len(text) <= max_token_length and not any(FORBIDDEN[name](text) for name in forbid)

    return without(tokens, {token.surface for token in tokens if token.parts and not wanted(token)})


def without(tokens: Iterable[NewToken], surfaces: set[str]) -> list[NewToken]:
    """Tokens without some, and without all that build on them, so that the rest stays reachable."""
    gone, left = set(surfaces), []
    for token in tokens:
        if token.surface in gone or gone.intersection(token.parts or ()):
            gone.add(token.surface)
        else:
            left.append(token)
    return left


def scripts_of(text: str) -> set[str]:
    """The scripts of the letters in a text, by their Unicode codes, such as Latn and Thai."""
    from fontTools.unicodedata import script

    return {script(character) for character in text if character.isalpha()} - {"Zyyy", "Zinh", "Zzzz"}


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


def _missing_characters(spec: Spec, words: Mapping[str, int], min_frequency: int) -> list[NewToken]:
    """Characters that have no token of their own, the most frequent first."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    found = [NewToken(c, None, n) for c, n in counts.items() if c not in spec.vocab and n >= min_frequency]
    return sorted(found, key=lambda token: (-token.count * (len(token.surface.encode()) - 1 or 1), token.surface))


FORBIDDEN: dict[str, Callable[[str], bool]] = {
    "digits": lambda text: any(character.isnumeric() for character in text),
    "mixed_scripts": lambda text: len(scripts_of(text)) > 1,
    "whitespace_runs": lambda text: regex.search(r"\s\s", text) is not None,
}
