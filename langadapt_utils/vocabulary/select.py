"""Select the tokens to add, the candidates to drop, and the base tokens to replace.

Sources: leaf pruning, Purason et al., arXiv 2512.03989; replacing the least frequent, Csaki et al.,
arXiv 2311.05741.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import gt

import numpy as np
import regex
from tokenizers import Tokenizer

from ..errors import VocabularyError
from ..languages import Shares, Texts
from ..recipe import GiveUp
from ..tokens import as_words, bytes_surface, encode_texts
from .change import changed_sentences
from .merges import SEPARATOR, Counts, NewToken, NewTokens, learn_merges
from .tokenizer_json import Spec


def learn_tokens(
    spec: Spec,
    words: Counts,
    wanted: int,
    *,
    min_frequency: int,
    max_token_length: int,
    complete_bytes: bool = False,
    counted: bool = False,
) -> NewTokens:
    """Learn tokens for a text, the most useful first.

    Merges are learned on complete characters, so that no token ends inside one. Characters without
    a base token are added first, and then ranked among the merges by the tokens that they save.
    Tokens that are too long, that join more digits than any base token, or that read like a special
    token are dropped.

    Args:
        spec: the tokenizer to continue.
        words: pre-tokens of the text and their counts.
        wanted: maximum number of tokens.
        min_frequency: pairs and characters that occur less often are not learned.
        max_token_length: in characters.
        complete_bytes: whether to begin with the bytes without a token.
        counted: whether to count the uses of each merge if they are not needed here.
    """
    first = [NewToken(byte, None, 0) for byte in spec.missing_bytes()] if complete_bytes else []
    spec = spec.appended(first) if first else spec
    if spec.byte_level and (missing := spec.missing_bytes()):
        # The model would drop such a byte and join its neighbours.
        words = _cut_at(words, missing)
    characters = _characters(spec, words, min_frequency)
    grown = spec.appended(characters)
    saves, count = list(map(_saving, characters)), counted or spec.family == "Unigram"
    given = words, wanted, grown.boundaries, saves, min_frequency, max_token_length
    merges = learn_merges(grown.bare, *given, counted=count)
    waiting = iter(characters)  # None among the merges marks the place of the next character
    learned = [merge or next(waiting) for merge in merges]
    texts = {token.surface: spec.text(token.surface) for token in learned if token.parts}
    unwanted = {
        surface
        for surface, text in texts.items()
        if len(text) > max_token_length
        or text.strip() in spec.special
        or any(map(gt, spec.digits(surface), spec.most_digits))
    }
    return without([*first, *learned], unwanted)


def candidates_for(tokens: int) -> int:
    """Return the number of candidates to learn for a number of tokens; some will be dropped.

    Example:
        >>> candidates_for(1_000)
        1200
    """
    return 11 * tokens // 10 + 100


def without(tokens: Iterable[NewToken], surfaces: set[str]) -> NewTokens:
    """Return the tokens without some, and without tokens that build on them.

    Example:
        >>> ab, abc = NewToken("ab", ("a", "b"), 9), NewToken("abc", ("ab", "c"), 5)
        >>> without([ab, abc], {"ab"})
        []
    """
    removed, left = set(surfaces), []
    for token in tokens:
        if token.surface in removed or removed.intersection(token.parts or ()):
            removed.add(token.surface)
        else:
            left.append(token)
    return left


def _cut_at(words: Counts, characters: Sequence[str]) -> Counts:
    """Return words split at some characters, with their counts.

    Example:
        >>> dict(_cut_at({"a-b": 2, "b": 1}, ["-"]))
        {'a': 2, 'b': 3}
    """
    cut = regex.compile(f"[{''.join(map(regex.escape, characters))}]+")
    if not cut.search("\n".join(words)):
        return words
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for piece in filter(None, cut.split(word)):
            pieces[piece] += count
    return pieces


def _characters(spec: Spec, words: Counts, min_frequency: int) -> NewTokens:
    """Return tokens for characters without a token of their own, the most useful first."""
    texts = as_words(words) if spec.byte_level else list(words)
    counts = _character_counts(texts, list(words.values()))
    frequent = {c: n for c, n in counts.items() if n >= min_frequency and c != SEPARATOR}
    if spec.byte_level:
        tokens = _merged_from_bytes(spec, frequent)
    else:
        tokens = [NewToken(c, None, n) for c, n in frequent.items() if c not in spec.vocab]
    return sorted(tokens, key=lambda t: (-_saving(t), len(t.surface), t.surface))


def _character_counts(texts: Sequence[str], weights: Sequence[int]) -> dict[str, int]:
    """Return the count of each character in texts with counts.

    Example:
        >>> _character_counts(["ab", "b"], [2, 1])
        {'a': 2, 'b': 3}
    """
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    totals = np.bincount(points, weights=np.repeat(weights, [len(text) for text in texts]))
    return {chr(point): int(totals[point]) for point in np.flatnonzero(totals).tolist()}


def _merged_from_bytes(spec: Spec, counts: Counts) -> NewTokens:
    """Return the merges that build characters from their bytes, from left to right.

    The bytes E0 B8 81 of a Thai letter become E0+B8, then E0B8+81. A merge that two characters
    share counts for both.
    """
    merges = Counter[tuple[str, str]]()
    surfaces = [bytes_surface(character.encode()) for character in counts]
    encodings = spec.bare.encode_batch(surfaces, add_special_tokens=False)
    for encoding, count in zip(encodings, counts.values(), strict=True):
        made, *rest = encoding.tokens
        for piece in rest:
            merges[made, piece] += count
            made += piece
    return [NewToken("".join(parts), parts, count) for parts, count in merges.items()]


def _saving(character: NewToken) -> int:
    """Return the tokens that a character saves: one per merge, or all bytes except one.

    Example:
        >>> _saving(NewToken("ก", None, 10)), _saving(NewToken("ab", ("a", "b"), 10))
        (20, 10)
    """
    return character.count * (1 if character.parts else max(1, len(character.surface.encode()) - 1))


def protected_candidates(
    base: Spec, spec: Spec, candidates: NewTokens, tokens: int, sentences: Texts, protect: Shares
) -> NewTokens:
    """Drop candidates until enough sentences in protected languages keep their ids.

    Greedy rule: allow the merge that saves the most tokens per additional changed sentence, until
    no more sentences may change. Drop the rest, and repeat with the merges that now apply.

    Args:
        base: the tokenizer before any change.
        spec: the tokenizer to extend, with its repaired word pattern.
        candidates: tokens with counts, the most useful first.
        tokens: number of tokens to add.
        sentences: by protected language.
        protect: fraction of sentences that keep their ids, by language.

    Raises:
        VocabularyError: too many sentences change for another reason than new tokens.
    """
    allowed = {code: int((1 - protect[code]) * len(lines)) for code, lines in sentences.items()}
    suspects = sentences
    if spec.family != "Unigram":  # whose scores depend on the other new tokens
        # A sentence without any candidate cannot change.
        suspects = _changed(base.inside.whole, spec.appended(candidates).inside.whole, sentences)
    while True:
        chosen = candidates[:tokens]
        grown = spec.appended(chosen).inside.whole
        changed = _changed(base.inside.whole, grown, suspects)
        over = {code: lines for code, lines in changed.items() if len(lines) > allowed[code]}
        if not over:
            return candidates
        roots, fired = _roots(chosen), dict[str, list[set[str]]]()  # by language, then sentence
        for code, lines in over.items():
            read = (encoding.tokens for encoding in encode_texts(grown, lines, offsets=True))
            fired[code] = [{root for t in tokens for root in roots.get(t, ())} for tokens in read]
        worth = Counter[str]()  # tokens that each root saves in the target, with tokens built on it
        for token in chosen:
            worth.update(dict.fromkeys(roots[token.surface], token.count))
        if not (harmful := _to_drop(fired, allowed, worth)):
            worst = max(over, key=lambda code: len(over[code]))
            share = f"{len(over[worst]):,} of {len(sentences[worst]):,} sentences in '{worst}'"
            remedy = f"lower protect['{worst}'] = {protect[worst]}, or set repair_script=False"
            raise VocabularyError(f"{share} change even without new tokens: {remedy}")
        candidates = without(candidates, harmful)


def _changed(before: Tokenizer, after: Tokenizer, sentences: Texts) -> dict[str, list[str]]:
    return {code: changed_sentences(before, after, lines)[0] for code, lines in sentences.items()}


def _to_drop(fired: Mapping[str, Sequence[set[str]]], allowed: Counts, worth: Counts) -> set[str]:
    """Return the roots to drop: all except those that save most per sentence that may change.

    Example:
        >>> fired = {"en": [{"a"}, {"b"}, {"b"}]}
        >>> _to_drop(fired, {"en": 1}, {"a": 5, "b": 9})
        {'b'}
    """
    touched: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for code, lines in fired.items():
        for index, roots in enumerate(lines):
            for root in roots:
                touched[root].append((code, index))
    changed, dropped, left = set[tuple[str, int]](), set[str](), Counter(allowed)
    heap = [(-worth[root] / len(places), root) for root, places in touched.items()]
    heapq.heapify(heap)
    while heap:
        claimed, root = heapq.heappop(heap)
        fresh = [place for place in touched[root] if place not in changed]
        value = -worth[root] / max(len(fresh), 1)
        if value < claimed:  # another root has changed its sentences: they no longer count
            heapq.heappush(heap, (value, root))
            continue
        costs = Counter(code for code, _ in fresh)
        if costs <= left:
            changed.update(fresh)
            left.subtract(costs)
        else:
            dropped.add(root)
    return dropped


def _roots(tokens: Sequence[NewToken]) -> dict[str, set[str]]:
    """Return the roots of each new token: the merges of base tokens, or characters, that it needs.

    Example:
        >>> _roots([NewToken("ab", ("a", "b"), 9), NewToken("abc", ("ab", "c"), 5)])
        {'ab': {'ab'}, 'abc': {'ab'}}
    """
    roots: dict[str, set[str]] = {}
    for token in tokens:
        new = [roots[part] for part in token.parts or () if part in roots]
        roots[token.surface] = set().union(*new) if new else {token.surface}
    return roots


def choose_leaves(
    spec: Spec, used: Counts, in_target: Counts, chosen: Sequence[NewToken], give_up: GiveUp
) -> tuple[dict[int, str], dict[int, int]]:
    """Choose base tokens to replace, one per new token, that no remaining merge needs.

    The least used token is first. Ties go to the token with fewer uses in the target language, then
    to the one that was learned last.

    Args:
        spec: the base tokenizer.
        used: uses of each token in the reference text.
        in_target: uses in the target language.
        chosen: tokens to add; their parts stay.
        give_up: `usage` adds the uses of a removed token to its parts; `frequency` does not.

    Returns:
        Spelling and uses of the tokens to replace, by id.
    """
    vocabulary, uses, target_uses = spec.vocab, Counter(used), Counter(in_target)
    parts, needed = _parts_of(spec, chosen)

    def entry(token: str) -> tuple[int, int, int, str]:
        return uses[token], target_uses[token], -vocabulary[token], token

    leaves = [entry(token) for token in parts if not needed[token]]
    heapq.heapify(leaves)
    removed: dict[int, str] = {}
    while leaves and len(removed) < len(chosen):
        of_token, of_target, _, token = heapq.heappop(leaves)
        if (of_token, of_target) != (uses[token], target_uses[token]):
            continue  # an outdated entry
        removed[vocabulary[token]] = token
        needed.subtract(parts[token])
        for part in parts[token] if give_up == "usage" else ():
            uses[part] += of_token
            target_uses[part] += of_target
        for part in set(parts[token]):
            if not needed[part] and part in parts:
                heapq.heappush(leaves, entry(part))
    if len(removed) < len(chosen):
        problem = f"only {len(removed)} base tokens can be replaced, not {len(chosen)}"
        raise VocabularyError(f"{problem}: lower vocabulary.tokens")
    return removed, {old: used.get(token, 0) for old, token in removed.items()}


def _parts_of(spec: Spec, chosen: Sequence[NewToken]) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return the parts of each removable token, and how often each token is needed as a part."""
    stay = {token for token, index in spec.vocab.items() if index in spec.boundaries}
    if spec.family == "Unigram":
        return {t: [] for t in spec.vocab if len(t) > 1 and t not in stay}, Counter()
    parts: dict[str, list[str]] = {}
    needed = Counter(part for token in chosen for part in token.parts or ())
    for left, right in spec.merges():
        needed.update((left, right))
        if left + right in spec.vocab and left + right not in stay:
            parts.setdefault(left + right, []).extend((left, right))
    return parts, needed
