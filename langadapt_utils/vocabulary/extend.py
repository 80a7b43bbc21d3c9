"""Extend a tokenizer: continued BPE, modes `extend` and `replace`, protection of English.

A change is plain data, made before any tensor changes. New merges continue the base merges, so
every new token is reachable and other text keeps its tokens.

Sources: continued BPE and leaf pruning, Purason et al., arXiv 2512.03989; `replace`, Csaki et al.,
arXiv 2311.05741, who replace the least frequent base tokens.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import regex
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..errors import VocabularyError
from ..languages import Shares
from ..recipe import GiveUp
from ..tokens import spread
from .audit import Others, audit_vocabulary
from .change import Mode, ProtectionCost, VocabularyChange, changed_sentences, split_sentences
from .merges import NewTokens, token_counts
from .patterns import propose_repair
from .select import candidates_for, choose_leaves, learn_tokens, protected_candidates
from .tokenizer_json import Spec, one_of

SENTENCES = 20_000  # per other language, to count the effect of a change
PROTECTED = 300_000  # sentences per protected language


def extend_vocabulary(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    tokens: int,
    mode: Mode = "extend",
    others: Others | None = None,
    protect: Shares | None = None,
    give_up: GiveUp = "usage",
    repair_script: bool = True,
    complete_bytes: bool = False,
    min_frequency: int = 2,
    max_token_length: int = 16,
) -> VocabularyChange:
    """Return a change that adds tokens of a language; the given tokenizer does not change.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: training text of the target language. Those of an iterator are kept in memory.
        tokens: number of tokens to add.
        mode: `extend` appends tokens. `replace` gives each new token the id of the least useful
            base token that no remaining merge needs; characters and special tokens stay.
        others: text in other languages, by code; it shows which base tokens they use.
        protect: fraction of sentences in `others` that keep their exact ids, by language.
        give_up: rule of `replace`: `usage` or `frequency`, as in `choose_leaves`.
        repair_script: whether to keep combining marks with letters, if `texts` need it.
        complete_bytes: whether to add a token for every byte without one.
        min_frequency: a pair that occurs less often is not merged.
        max_token_length: of new tokens, in characters.

    Raises:
        VocabularyError: the tokenizer is of another kind, or the text supports too few tokens.
    """
    reference = {language: _readable_again(texts) for language, texts in (others or {}).items()}
    _check_request(tokens, mode, reference, protect or {})
    lines = _readable_again(texts)
    head = list(_unicode(spread(lines)))

    base = Spec.of(tokenizer)
    repair = propose_repair(tokenizer, head, chain(*reference.values())) if repair_script else None
    spec = base.with_pre_tokenizer(repair.pre_tokenizer) if repair else base
    words = spec.count_words(_unicode(lines))
    growth = _Growth(tokenizer, base, spec, words, reference, protect or {}, tokens, mode, give_up)
    limits = {"min_frequency": min_frequency, "max_token_length": max_token_length}
    candidates, allowed = growth.select(complete_bytes=complete_bytes, **limits)
    if len(allowed) < tokens:
        rule = f"pairs seen at least {min_frequency} times in {sum(words.values()):,} words"
        problem = f"the text supports only {len(allowed)} new tokens, not {tokens} ({rule})"
        remedy = "lower vocabulary.tokens or vocabulary.protect_english, or give more text"
        if base.missing_bytes() and not complete_bytes:
            remedy = "add tokens for all bytes, which the base lacks, with complete_bytes=True"
        raise VocabularyError(f"{problem}: {remedy}")
    pattern = repair.joined + repair.inside or r"\p{L}" if repair else ""
    change = replace(growth.build(candidates, allowed), pattern_repair=pattern)
    return replace(change, audit=audit_vocabulary(tokenizer, change, head, reference))


@dataclass(frozen=True)
class _Growth:
    """The inputs of a change: tokenizer, repaired word pattern, and counted text."""

    tokenizer: Tokenizer
    base: Spec
    spec: Spec
    words: Mapping[str, int]  # of the target language
    reference: Others
    protect: Shares
    tokens: int  # to add
    mode: Mode
    give_up: GiveUp

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """Sentences in other languages, to count the effect of the change."""
        most = {code: PROTECTED if code in self.protect else SENTENCES for code in self.reference}
        prefixed = self.base.inside is not self.base
        # As before a text, some tokenizers put a space after a token that was added.
        given = {"before": " ", "apart": one_of(self.base.found_first)} if prefixed else {}
        return {
            code: list(_unicode(split_sentences(lines, most[code], **given)))
            for code, lines in self.reference.items()
        }

    def select(self, **limits: Any) -> tuple[NewTokens, NewTokens]:
        """Learn more and more candidates until enough of them are allowed; return both lists.

        Args:
            limits: of `learn_tokens`.
        """
        candidates = allowed = NewTokens()
        wanted = candidates_for(self.tokens)
        while len(allowed) < self.tokens:
            more = learn_tokens(self.spec, self.words, wanted, counted=bool(self.protect), **limits)
            if len(more) <= len(candidates):
                break
            candidates, allowed, wanted = more, self._allowed(more), 3 * wanted
        return candidates, allowed

    def build(self, candidates: NewTokens, allowed: NewTokens) -> VocabularyChange:
        """Return the change that adds the first allowed tokens, without its audit."""
        spec, chosen = self.spec, allowed[: self.tokens]
        removed, lost = self._given_up(chosen) if self.mode == "replace" else ({}, {})
        first = max(spec.vocab.values()) + 1
        free = sorted(removed) or range(first, first + self.tokens)
        new_tokens = dict(zip(free, chosen, strict=True))
        grown = spec.without(removed.values()).with_tokens(new_tokens)
        backends = self.base.inside.whole, grown.inside.whole
        added = {new: token.surface for new, token in new_tokens.items()}
        pieces, counts = base_pieces(self.base, added), token_counts(grown.bare, self.words)
        # No text produces a token whose own text is merged otherwise, or contains an added token of
        # the base, which is found before merging.
        own, hidden = base_pieces(grown, added), regex.compile(one_of(grown.found_first)).search

        cost = None
        if self.protect:
            unprotected = candidates[: self.tokens]
            without = token_counts(spec.appended(unprotected).bare, self.words).total()
            cost = ProtectionCost(len({*unprotected} - {*allowed}), counts.total(), without)

        return VocabularyChange(
            tokenizer=grown.around(self.tokenizer),
            mode=self.mode,
            new_to_old={old: old for old in sorted(spec.vocab.values()) if old not in removed},
            added=added,
            removed=removed,
            base_pieces=pieces,
            added_counts={new: counts[surface] for new, surface in added.items()},
            lost=lost,
            unreachable=tuple(n for n in added if own[n] != (n,) or hidden(grown.text(added[n]))),
            effects={
                code: changed_sentences(*backends, lines, self.protect.get(code))[1]
                for code, lines in self.sentences.items()
            },
            protection_cost=cost,
        )

    def _allowed(self, candidates: NewTokens) -> NewTokens:
        if not self.protect:
            return candidates
        sentences = {code: self.sentences[code] for code in self.protect}
        specs = self.base, self.spec
        return protected_candidates(*specs, candidates, self.tokens, sentences, self.protect)

    def _given_up(self, chosen: NewTokens) -> tuple[dict[int, str], dict[int, int]]:
        """Return the base tokens to replace, and their uses in the reference text."""
        words = map(self.spec.count_words, self.reference.values())
        used = sum((token_counts(self.spec.bare, counts) for counts in words), Counter[str]())
        in_target = token_counts(self.spec.bare, self.words)
        return choose_leaves(self.spec, used, in_target, chosen, self.give_up)


def base_pieces(base: Spec, added: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """Return the base ids that spell each added token.

    A byte without a base token is spelled by all base bytes of its kind (ASCII, leading,
    continuing); an unknown character by the unknown token.
    """
    encodings = base.bare.encode_batch_fast(list(added.values()), add_special_tokens=False)
    found = zip(added.items(), encodings, strict=True)
    return {new: tuple(own.ids) or _substitutes(base, surface) for (new, surface), own in found}


def _check_request(tokens: int, mode: str, reference: Others, protect: Shares) -> None:
    if tokens < 1:
        raise VocabularyError(f"vocabulary.tokens is {tokens}: set it to at least 1")
    if mode not in ("extend", "replace"):
        raise VocabularyError(f"mode '{mode}' is unknown: use extend or replace")
    for code, share in protect.items():
        if not 0 <= share <= 1:
            raise VocabularyError(f"protect['{code}'] is {share}: give a fraction from 0 to 1")
        if not any(True for _ in reference.get(code, ())):
            known = ", ".join(reference) or "no language"
            problem = f"protect names '{code}', but `others` has text only in {known}"
            raise VocabularyError(f"{problem}: add text in '{code}', or remove it from protect")


def _readable_again(texts: Iterable[str]) -> Iterable[str]:
    """Return texts that can be read more than once; those of an iterator are kept in memory."""
    return list(_unicode(texts)) if isinstance(texts, Iterator) else texts


def _unicode(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts; raise an error for a text that is not valid Unicode."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            problem = f"a text has a lone surrogate (U+{ord(text[error.start]):04X})"
            raise VocabularyError(f"{problem}: read it with errors='replace'") from error
        yield text


def _substitutes(base: Spec, surface: str) -> tuple[int, ...]:
    """Return the base ids that represent a token that the base cannot spell."""
    kind = partial(bisect_right, (0x80, 0xC0))  # ASCII, continuing, leading
    names, vocab = base.byte_names, base.vocab
    singles = {names[name]: vocab[name] for name in vocab.keys() & names.keys() - base.special}
    first = kind(base.raw(surface)[0])
    alike = tuple(index for byte, index in sorted(singles.items()) if kind(byte) == first)
    unknown = () if base.unknown_id is None else (base.unknown_id,)
    return alike or unknown or tuple(sorted(singles.values()))
