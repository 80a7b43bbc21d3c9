"""Which tokens a text asks for: characters that are missing, merges learned on its words, less what is not wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import regex

from .errors import VocabularyError
from .languages import scripts_of, word_spans
from .merges import learn_merges
from .recipe import Forbidden
from .specs import NewToken, Spec
from .tokens import bytes_surface, surface_bytes, surfaces_as_words


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

    Merges are learned on whole characters: those that the base writes in pieces, or not at all, are made first, so
    that no token ends inside of one. In the result a character stands where it saves as much as the merges beside it.

    Args:
        spec: the tokenizer to continue.
        words: pre-tokens of the text and how often each occurs.
        wanted: how many to learn at most.
        min_frequency: what occurs less often is not learned.
        max_token_length: characters of the longest token; what is too long all the same, `wanted_tokens` drops.
        complete_bytes: begin with the bytes that have no token.
        counted: count the merges also where nothing here depends on it.
    """
    bytes_first = [NewToken(byte, None, 0) for byte in spec.missing_bytes()] if complete_bytes else []
    spec = spec.appended(bytes_first) if bytes_first else spec
    if spec.byte_level and (missing := spec.missing_bytes()):
        words = _without_characters(words, missing)  # the model would drop such a byte and join what stands beside it
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
        NewToken(merge.left + merge.right, (merge.left, merge.right), merge.applied) if merge else next(waiting)
        for merge in merges
    )
    return [*bytes_first, *learned]


def candidates_for(tokens: int) -> int:
    """How many candidates to learn for a number of tokens: some turn out too long, or to do harm."""
    return 11 * tokens // 10 + 100


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
    """Tokens for the characters that the vocabulary writes in pieces or not at all, the most useful first.

    A byte-level vocabulary merges their bytes from left to right; others take the character as it is.
    """
    texts = surfaces_as_words(words) if spec.byte_level else list(words)
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    totals = np.bincount(points, weights=np.repeat(list(words.values()), [len(text) for text in texts]))
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
                tokens[made + piece] = NewToken(made + piece, (made, piece), count + (known.count if known else 0))
                made += piece
    else:
        tokens = {c: NewToken(c, None, count) for c, count in frequent.items() if c not in spec.vocab}
    return sorted(tokens.values(), key=lambda token: (-_saving(token), len(token.surface), token.surface))


def _saving(character: NewToken) -> int:
    """Tokens that a character saves: a merge one each time, a character that was written as bytes all but one."""
    pieces = 2 if character.parts else max(2, len(character.surface.encode()))
    return character.count * (pieces - 1)


FORBIDDEN: dict[str, Callable[[str], bool]] = {
    "digits": lambda text: any(character.isnumeric() for character in text),
    "mixed_scripts": lambda text: len(scripts_of(text)) > 1,
    "whitespace_runs": lambda text: regex.search(r"\s\s", text) is not None,
}
