"""Growing a vocabulary: continued BPE, extend or replace, an English contract, and trimming.

A change is plain data, made before any tensor is touched. New merges are learned on top of the base merges, so
every new token is reachable and the segmentation of other text is kept.

Source of continued BPE and of leaf pruning: Purason et al., arXiv 2512.03989. Source of `replace`: Csaki et
al., arXiv 2311.05741, which gives up the least frequent base tokens at constant vocabulary size.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import regex

from .audit import AUDITED, audit_vocabulary, changed_sentences, split_sentences
from .changes import Effect, Mode, Price, VocabularyChange
from .errors import VocabularyError
from .fertility import word_spans
from .merges import count_words, learn_merges, token_counts
from .patterns import propose_repair
from .recipe import Forbidden
from .sizing import tokens_by_number
from .specs import NewToken, Spec
from .tokens import BYTE_TOKEN, byte_alphabet, surface_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

GiveUp = Literal["usage", "frequency"]
SENTENCES = 20_000  # of each other language, that show what a change does to it
PROTECTED = 300_000  # sentences of a protected language that are looked at


def extend_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    *,
    tokens: int,
    mode: Mode = "extend",
    others: Mapping[str, Iterable[str]] | None = None,
    protect: Mapping[str, float] | None = None,
    give_up: GiveUp = "usage",
    repair_script: bool = True,
    complete_bytes: bool = False,
    segment: str | None = None,
    forbid: Sequence[Forbidden] = (),
    min_frequency: int = 2,
    max_token_length: int = 16,
) -> VocabularyChange:
    """Give a tokenizer new tokens for a language; the given tokenizer is not changed.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: training text of the target language; read once, as a stream.
        tokens: how many tokens to add.
        mode: `extend` appends them; `replace` gives each the id of a base token that is given up: one that
            no surviving merge needs, the least useful on the text of `others` first. Single characters and
            special tokens stay.
        others: text of other languages, by code: it shows which base tokens are used, and what the change does.
        protect: by language of `others`, the share of its sentences that is to keep its exact ids; tokens that
            break more are not added.
        give_up: for `replace`, `usage` counts for a token also what its uses become once longer tokens are gone;
            `frequency` counts only the token itself, as the paper does.
        repair_script: let combining marks ride with letters in the word pattern, where `texts` need it.
        complete_bytes: give a token to every byte that has none.
        segment: learn inside the words of this language's segmenter, where the pre-tokenizer finds no spaces.
        forbid: tokens not to make: with `digits`, of `mixed_scripts`, with `whitespace_runs`.
        min_frequency: a pair seen less often in `texts` is not merged.
        max_token_length: longer tokens, in characters, are not made.

    Returns:
        The change, audited.

    Raises:
        VocabularyError: another kind of tokenizer, or the text does not support that many tokens.
    """
    protect = dict(protect or {})
    reference = {language: list(lines) for language, lines in (others or {}).items()}
    _check_request(tokens, mode, reference, protect)
    base = Spec.of(tokenizer)
    stream = iter(texts)
    head = list(islice(stream, AUDITED))
    _require_unicode(head)

    repair = propose_repair(tokenizer, head) if repair_script else None
    spec = base.with_pre_tokenizer(repair.pre_tokenizer) if repair else base
    words = count_words(spec.cutter, chain(head, stream))
    if segment:
        words = cut_at_words(words, spec, segment)
    sentences = {
        language: split_sentences(lines, PROTECTED if language in protect else SENTENCES)
        for language, lines in reference.items()
    }
    builder = _Builder(spec, words)
    wanted = (2 if protect or forbid else 1) * tokens + tokens // 10 + 100  # some are not wanted in the end
    kept: list[NewToken] = []
    while len(kept) < tokens:
        learned = learn_tokens(spec, words, wanted, min_frequency, complete_bytes=complete_bytes, counted=bool(protect))
        candidates = _allowed(learned, spec, max_token_length, forbid)
        contract = {language: sentences[language] for language in protect}
        kept = _protected(base, builder, candidates, tokens, contract, protect) if protect else candidates
        if len(kept) < tokens and len(learned) < 0.9 * wanted:
            raise VocabularyError(
                f"{tokens} new tokens were asked, but this text supports only {len(kept)} (pairs seen at least "
                f"{min_frequency} times in {sum(words.values()):,} words): ask for fewer with vocabulary.tokens, give "
                "more text with corpus.target, or loosen what is protected and forbidden"
            )
        wanted *= 3
    chosen = kept[:tokens]
    dropped = len({token.surface for token in candidates[:tokens]} - {token.surface for token in kept})

    removed: dict[int, str] = {}
    lost: dict[int, int] = {}
    if mode == "replace":
        used = [token_counts(spec.bare, count_words(spec.cutter, lines)) for lines in reference.values()]
        removed, lost = choose_leaves(spec, sum(used, Counter()), token_counts(spec.bare, words), chosen, give_up)
    first = max(spec.vocab.values()) + 1
    ids = sorted(removed) if removed else range(first, first + tokens)
    new_tokens = dict(zip(ids, chosen, strict=True))
    added = {new: token.surface for new, token in new_tokens.items()}
    grown = builder.grown(new_tokens, removed=removed.values())
    adapted = grown.around(tokenizer)
    uses = token_counts(grown.bare, words)
    spelled = spell(base, added)

    def count(one: Spec) -> Counter[str]:
        return uses if one is grown else token_counts(one.bare, words)

    change = VocabularyChange(
        tokenizer=adapted,
        mode=mode,
        kept={old: old for old in sorted(spec.vocab.values()) if old not in removed},
        added=added,
        removed=removed,
        spelled=spelled,
        uses={new: uses[surface] for new, surface in added.items()},
        lost=lost,
        unreachable=_unreachable(grown, added),
        joined=repair.joined if repair else "",
        curve=tokens_by_number(spec, grown, added, spelled, count),
        effects={
            language: _effect(tokenizer, adapted, lines, protect.get(language)) for language, lines in sentences.items()
        },
        price=Price(dropped, uses.total(), builder.tokens_with(candidates[:tokens])) if protect else None,
    )
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, head, reference))


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], *, others: Mapping[str, Iterable[str]] | None = None
) -> VocabularyChange:
    """Drop the tokens of scripts that never occur in the given texts, so that the model gets smaller.

    Ids are numbered anew, without gaps. Special tokens, single bytes and characters of scripts in use stay, and so
    does everything that a surviving merge needs.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: text of every language that the model is to keep.
        others: text on which the effect is measured, by language.
    """
    base, head = Spec.of(tokenizer), []
    used: Counter[str] = Counter()
    scripts: set[str] = set()
    stream = iter(texts)
    head = list(islice(stream, AUDITED))
    _require_unicode(head)
    words = count_words(base.cutter, chain(head, stream))
    used = token_counts(base.bare, words)
    for word in words:
        scripts |= scripts_of(base.text(word))
    foreign = {
        token
        for token in base.vocab
        if token not in base.special
        and not used[token]
        and len(token) > 1
        and base.vocab[token] not in base.boundaries
        and (scripts_of(base.text(token)) - scripts or "⟨" in base.text(token))
    }
    # What a surviving merge needs stays; merges run from the longest down.
    for left, right in reversed(list(base.merges())):
        if left + right in base.vocab and left + right not in foreign:
            foreign -= {left, right}
    kept_old = [old for token, old in sorted(base.vocab.items(), key=lambda item: item[1]) if token not in foreign]
    new_ids = {old: new for new, old in enumerate(kept_old)}
    trimmed = base.renumbered(new_ids)
    adapted = trimmed.around(tokenizer)
    change = VocabularyChange(
        tokenizer=adapted,
        mode="trim",
        kept={new: old for old, new in new_ids.items()},
        added={},
        removed={base.vocab[token]: token for token in sorted(foreign, key=base.vocab.__getitem__)},
        spelled={},
        uses={},
        lost={},
        unreachable=(),
        joined="",
        curve={},
        effects={
            language: _effect(tokenizer, adapted, split_sentences(lines, SENTENCES), None, new_ids)
            for language, lines in (others or {}).items()
        },
    )
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, head))


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
    first = max(spec.vocab.values()) + 1
    grown = spec.with_tokens(dict(enumerate([*bytes_first, *characters], first)))
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
    letters = {byte: character for character, byte in byte_alphabet().items()}
    cut: Counter[str] = Counter()
    for word, count in words.items():
        text = surface_bytes(word, byte_level=spec.byte_level).decode("utf-8", "replace")
        starts = [0, *(start for start, _ in word_spans(text, language) if start > 1), len(text)]
        if len(starts) == 2 or "\ufffd" in text:
            cut[word] += count
            continue
        for start, end in pairwise(starts):
            piece = text[start:end]
            cut["".join(letters[byte] for byte in piece.encode()) if spec.byte_level else piece] += count
    return dict(cut)


def choose_leaves(
    spec: Spec, used: Mapping[str, int], in_target: Mapping[str, int], chosen: Sequence[NewToken], give_up: GiveUp
) -> tuple[dict[int, str], dict[int, int]]:
    """Choose base tokens to give up, as many as are chosen to come: no surviving merge needs them.

    The least used goes first; ties go to the token less used in the target language, then to the one learned last.

    Args:
        spec: the base tokenizer.
        used: uses of each token in the text that must not suffer.
        in_target: uses in the target language.
        chosen: the tokens that are to come, whose parts must stay.
        give_up: `usage` lets what a token was used for fall to its parts when it goes; `frequency` does not.

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
        made = {token: [] for token in vocabulary if len(token) > 1 and vocabulary[token] not in spec.boundaries}
        needed = Counter()
    uses, target_uses = Counter(used), Counter(in_target)

    def entry(token: str) -> tuple[int, int, int, str]:
        return uses[token], target_uses[token], -vocabulary[token], token

    stay = spec.special.keys() | {token for token, index in vocabulary.items() if index in spec.boundaries}
    leaves = [entry(token) for token in made if token in vocabulary and token not in stay and not needed[token]]
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


def spell(base: Spec, added: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """The base ids that spell each added token.

    A byte that the base lacks is spelled by all bytes of its kind (ASCII, leading, continuing) that it has; what
    the base does not know at all, by its unknown token.
    """
    encodings = base.bare.encode_batch_fast(list(added.values()), add_special_tokens=False)
    spelled = zip(added.items(), encodings, strict=True)
    return {new: tuple(encoding.ids) or _kin(base, surface) for (new, surface), encoding in spelled}


def scripts_of(text: str) -> set[str]:
    """The scripts of the letters in a text, by their Unicode codes, such as Latn and Thai."""
    from fontTools.unicodedata import script

    return {script(character) for character in text if character.isalpha()} - {"Zyyy", "Zinh", "Zzzz"}


@dataclass(frozen=True)
class _Builder:
    """Grows a spec by tokens, and says what a text costs then."""

    spec: Spec
    words: Mapping[str, int]

    def grown(self, added: Mapping[int, NewToken], removed: Iterable[str] = ()) -> Spec:
        """The spec with new tokens at free ids, and without the removed ones."""
        return self.spec.without(removed).with_tokens(added)

    def appended(self, tokens: Sequence[NewToken]) -> Spec:
        """The spec with new tokens after all ids."""
        return self.grown(dict(enumerate(tokens, max(self.spec.vocab.values()) + 1)))

    def tokens_with(self, tokens: Sequence[NewToken]) -> int:
        """Tokens of the text once these are added."""
        return token_counts(self.appended(tokens).bare, self.words).total()


def _check_request(
    tokens: int, mode: str, reference: Mapping[str, Sequence[str]], protect: Mapping[str, float]
) -> None:
    if tokens < 1:
        raise VocabularyError(f"{tokens} new tokens were asked: ask for at least one")
    if mode not in ("extend", "replace"):
        raise VocabularyError(f"mode '{mode}' is unknown: use extend or replace")
    for language, share in protect.items():
        if not 0 <= share <= 1:
            raise VocabularyError(f"protect['{language}'] is {share}: give a share of sentences from 0 to 1")
        if not reference.get(language):
            raise VocabularyError(
                f"'{language}' is to be protected, but there is no text of it in `others`, only of "
                f"{', '.join(reference) or 'no language'}: give text of it, or leave it out of protect"
            )


def _require_unicode(texts: Iterable[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise VocabularyError(
                f"a text holds a lone surrogate (U+{ord(text[error.start]):04X}), which no UTF-8 file can hold: "
                "read the text again with errors='replace'"
            ) from error


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


def _allowed(
    tokens: Sequence[NewToken], spec: Spec, max_token_length: int, forbid: Sequence[Forbidden]
) -> list[NewToken]:
    """Tokens without those that are not wanted, nor what needs them."""
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


def _protected(
    base: Spec,
    builder: _Builder,
    candidates: list[NewToken],
    tokens: int,
    sentences: Mapping[str, Sequence[str]],
    protect: Mapping[str, float],
) -> list[NewToken]:
    """Candidates without those that change more sentences of protected languages than was allowed.

    A sentence is changed by the first merges that fire in it: those of two base tokens, its roots.
    """
    allowed = {language: int((1 - protect[language]) * len(lines)) for language, lines in sentences.items()}
    # Where none of the candidates fires, no selection of them does.
    suspects = _changed(base.whole, builder.appended(candidates).whole, sentences)
    while True:
        chosen = candidates[:tokens]
        grown = builder.appended(chosen).whole
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


def _effect(
    tokenizer: PreTrainedTokenizerFast,
    adapted: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    protected: float | None,
    new_ids: Mapping[int, int] | None = None,
) -> Effect:
    changed, before, after = changed_sentences(
        tokenizer.backend_tokenizer, adapted.backend_tokenizer, sentences, new_ids
    )
    return Effect(len(sentences), len(changed), before, after, protected)


def _unreachable(grown: Spec, added: Mapping[int, str]) -> tuple[int, ...]:
    encodings = grown.bare.encode_batch_fast(list(added.values()), add_special_tokens=False)
    return tuple(new for new, encoding in zip(added, encodings, strict=True) if encoding.ids != [new])


def _kin(base: Spec, surface: str) -> tuple[int, ...]:
    """What stands for a token that the base cannot spell: the bytes of its kind, or the unknown token."""

    def kind(byte: int) -> int:
        return 0 if byte < 0x80 else 1 if byte < 0xC0 else 2

    raw = surface_bytes(surface, byte_level=base.byte_level)
    singles = {
        surface_bytes(token, byte_level=base.byte_level)[0]: index
        for token, index in base.vocab.items()
        if token not in base.special and (len(token) == 1 if base.byte_level else BYTE_TOKEN.fullmatch(token))
    }
    kin = tuple(index for byte, index in sorted(singles.items()) if kind(byte) == kind(raw[0]))
    if not kin and base.unknown_id is not None:
        kin = (base.unknown_id,)
    return kin or tuple(sorted(singles.values()))


FORBIDDEN: dict[str, Callable[[str], bool]] = {
    "digits": lambda text: any(character.isnumeric() for character in text),
    "mixed_scripts": lambda text: len(scripts_of(text)) > 1,
    "whitespace_runs": lambda text: regex.search(r"\s\s", text) is not None,
}
