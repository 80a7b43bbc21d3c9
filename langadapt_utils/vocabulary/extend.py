"""Give a tokenizer new tokens: continued BPE, extend or replace, with English protected.

A change is plain data, made before any tensor is touched. New merges are learned on top of the base
merges, so every new token is reachable and other text keeps its segmentation.

Source of continued BPE and of leaf pruning: Purason et al., arXiv 2512.03989. Source of `replace`:
Csaki et al., arXiv 2311.05741, which gives up the least frequent base tokens at constant size.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import regex
from transformers import PreTrainedTokenizerFast

from ..errors import VocabularyError
from ..files import Spooled
from ..recipe import GiveUp
from ..tokens import BYTE_TOKEN, spread, surface_bytes
from .audit import audit_vocabulary
from .change import Mode, ProtectionCost, VocabularyChange, effect_on, split_sentences
from .merges import token_counts
from .patterns import propose_repair
from .select import candidates_for, choose_leaves, learn_tokens, protected_candidates
from .sizes import tokens_by_number
from .tokenizer_json import NewToken, Spec, one_of

SENTENCES = 20_000  # of each other language, that show what a change does to it
PROTECTED = 300_000  # sentences of a protected language that are looked at


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause Python's collector, which would walk the million objects of a large vocabulary again
    and again.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@without_collector()
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
    min_frequency: int = 2,
    max_token_length: int = 16,
) -> VocabularyChange:
    """Give a tokenizer new tokens for a language; the given tokenizer is not changed.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: training text of the target language; what can be read only once is kept in a
            temporary file meanwhile.
        tokens: how many tokens to add.
        mode: `extend` appends them; `replace` gives each the id of the least useful base token
            that no surviving merge needs. Single characters and special tokens stay.
        others: text of other languages, by code: shows which base tokens are used there.
        protect: by language, the fraction of its sentences in `others` that keep their exact ids.
        give_up: for `replace`: `usage` or `frequency`, as `choose_leaves` takes it.
        repair_script: let combining marks ride with letters, where `texts` need it.
        complete_bytes: give a token to every byte that has none.
        min_frequency: a pair that occurs less often is not merged.
        max_token_length: of new tokens, in characters.

    Raises:
        VocabularyError: another kind of tokenizer, or the text does not support that many tokens.
    """
    reference = {language: list(_unicode(lines)) for language, lines in (others or {}).items()}
    _check_request(tokens, mode, reference, protect or {})
    lines = Spooled(texts) if isinstance(texts, Iterator) else texts
    head = list(_unicode(spread(lines)))

    base = Spec.of(tokenizer)
    repair = propose_repair(tokenizer, head, chain(*reference.values())) if repair_script else None
    spec = base.with_pre_tokenizer(repair.pre_tokenizer) if repair else base
    words = spec.count_words(_unicode(lines))
    growth = _Growth(tokenizer, base, spec, words, reference, dict(protect or {}))
    learn = partial(
        learn_tokens,
        spec,
        words,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
        complete_bytes=complete_bytes,
        counted=bool(protect),
    )
    candidates, allowed = growth.select(tokens, learn)
    if len(allowed) < tokens:
        raise _too_few(tokens, len(allowed), min_frequency, sum(words.values()))
    change = growth.build(tokens, candidates, allowed, mode, give_up)
    change = dataclasses.replace(change, pattern_repair=repair.kept if repair else "")
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, head, reference))


@dataclass(frozen=True)
class _Growth:
    """A tokenizer that grows: before any change, with its repaired pattern, and what it reads."""

    tokenizer: PreTrainedTokenizerFast
    base: Spec
    spec: Spec
    words: Mapping[str, int]  # of the target language
    reference: Mapping[str, Sequence[str]]  # texts of other languages
    protect: Mapping[str, float]

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """The sentences of the other languages that show what the change does."""
        most = {code: PROTECTED if code in self.protect else SENTENCES for code in self.reference}
        return {code: split_sentences(self.reference[code], most[code]) for code in most}

    def select(
        self, tokens: int, learn: Callable[[int], list[NewToken]]
    ) -> tuple[list[NewToken], list[NewToken]]:
        """Learn candidates, more each time, until enough of them are allowed; return both."""
        wanted = candidates_for(tokens)
        candidates = learn(wanted)
        allowed = self._allowed(candidates, tokens)
        while len(allowed) < tokens and len(more := learn(wanted := 3 * wanted)) > len(candidates):
            candidates, allowed = more, self._allowed(more, tokens)
        return candidates, allowed

    def build(
        self,
        tokens: int,
        candidates: list[NewToken],
        allowed: list[NewToken],
        mode: Mode,
        give_up: GiveUp,
    ) -> VocabularyChange:
        """Return the change that adds the first allowed tokens, not audited yet."""
        spec, chosen = self.spec, allowed[:tokens]
        removed, lost = self._given_up(chosen, give_up) if mode == "replace" else ({}, {})
        first = max(spec.vocab.values()) + 1
        new_tokens = dict(zip(sorted(removed) or range(first, first + tokens), chosen, strict=True))
        grown = spec.without(removed.values()).with_tokens(new_tokens)
        adapted = grown.around(self.tokenizer)
        added = {new: token.surface for new, token in new_tokens.items()}
        pieces, counts = base_pieces(self.base, added), token_counts(grown.bare, self.words)

        def count(other: Spec) -> Counter[str]:
            return counts if other is grown else token_counts(other.bare, self.words)

        return VocabularyChange(
            tokenizer=adapted,
            mode=mode,
            new_to_old={old: old for old in sorted(spec.vocab.values()) if old not in removed},
            added=added,
            removed=removed,
            base_pieces=pieces,
            added_counts={new: counts[surface] for new, surface in added.items()},
            lost=lost,
            unreachable=_unreachable(grown, added),
            curve=tokens_by_number(spec, grown, added, pieces, count),
            effects={
                code: effect_on(self.tokenizer, adapted, lines, self.protect.get(code))
                for code, lines in self.sentences.items()
            },
            protection_cost=self._cost(candidates[:tokens], allowed, counts.total()),
        )

    def _allowed(self, candidates: list[NewToken], tokens: int) -> list[NewToken]:
        if not self.protect:
            return candidates
        sentences = {language: self.sentences[language] for language in self.protect}
        return protected_candidates(
            self.base, self.spec, candidates, tokens, sentences, self.protect
        )

    def _given_up(
        self, chosen: list[NewToken], give_up: GiveUp
    ) -> tuple[dict[int, str], dict[int, int]]:
        """Return the base tokens that make room, and how often the reference text used them."""
        words = map(self.spec.count_words, self.reference.values())
        used = sum((token_counts(self.spec.bare, counts) for counts in words), Counter[str]())
        in_target = token_counts(self.spec.bare, self.words)
        return choose_leaves(self.spec, used, in_target, chosen, give_up)

    def _cost(
        self, unprotected: list[NewToken], allowed: list[NewToken], tokens: int
    ) -> ProtectionCost | None:
        if not self.protect:
            return None
        without = token_counts(self.spec.appended(unprotected).bare, self.words).total()
        return ProtectionCost(len(set(unprotected) - set(allowed)), tokens, without)


def base_pieces(base: Spec, added: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """Return the base ids that spell each added token.

    A byte that the base lacks is spelled by all bytes of its kind (ASCII, leading, continuing) that
    it has; what the base does not know at all, by its unknown token.
    """
    encodings = base.bare.encode_batch_fast(list(added.values()), add_special_tokens=False)
    return {
        new: tuple(encoding.ids) or _kin(base, surface)
        for (new, surface), encoding in zip(added.items(), encodings, strict=True)
    }


def _check_request(
    tokens: int, mode: str, reference: Mapping[str, Sequence[str]], protect: Mapping[str, float]
) -> None:
    if tokens < 1:
        raise VocabularyError(f"{tokens} new tokens were asked: ask for at least one")
    if mode not in ("extend", "replace"):
        raise VocabularyError(f"mode '{mode}' is unknown: use extend or replace")
    for code, share in protect.items():
        if not 0 <= share <= 1:
            raise VocabularyError(f"protect['{code}'] is {share}: give a fraction from 0 to 1")
        if not reference.get(code):
            raise VocabularyError(
                f"'{code}' is to be protected, but there is no text of it in `others`, only of "
                f"{', '.join(reference) or 'no language'}: give some, or leave it out of protect"
            )


def _too_few(tokens: int, possible: int, min_frequency: int, words: int) -> VocabularyError:
    return VocabularyError(
        f"{tokens} new tokens were asked, but this text supports only {possible} (pairs seen at "
        f"least {min_frequency} times in {words:,} words): ask for fewer with vocabulary.tokens, "
        "give more text with corpus.target, or lower vocabulary.protect_english"
    )


def _unicode(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts, each checked before it is used."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise VocabularyError(
                f"a text holds a lone surrogate (U+{ord(text[error.start]):04X}), which no UTF-8 "
                "file can hold: read the text again with errors='replace'"
            ) from error
        yield text


def _unreachable(grown: Spec, added: Mapping[int, str]) -> tuple[int, ...]:
    """Return the added tokens that no text gives: what is merged holds no token found before."""
    pieces, found = base_pieces(grown, added), grown.found_first
    hidden = regex.compile(one_of(found)).search if found else lambda text: None
    return tuple(n for n in added if pieces[n] != (n,) or hidden(grown.text(added[n])))


def _kin(base: Spec, surface: str) -> tuple[int, ...]:
    """Return what stands for a token that the base cannot spell."""

    def kind(byte: int) -> int:
        return 0 if byte < 0x80 else 1 if byte < 0xC0 else 2

    raw = surface_bytes(surface, byte_level=base.byte_level)
    singles = {
        surface_bytes(token, byte_level=base.byte_level)[0]: index
        for token, index in base.vocab.items()
        if token not in base.special
        and (len(token) == 1 if base.byte_level else BYTE_TOKEN.fullmatch(token))
    }
    kin = tuple(index for byte, index in sorted(singles.items()) if kind(byte) == kind(raw[0]))
    if not kin and base.unknown_id is not None:
        kin = (base.unknown_id,)
    return kin or tuple(sorted(singles.values()))
