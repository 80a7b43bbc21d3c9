"""Growing a vocabulary: continued BPE, extend or replace, an English contract, and trimming.

A change is plain data, made before any tensor is touched. New merges are learned on top of the base
merges, so every new token is reachable and the segmentation of other text is kept.

Source of continued BPE and of leaf pruning: Purason et al., arXiv 2512.03989. Source of `replace`:
Csaki et al., arXiv 2311.05741, which gives up the least frequent base tokens at constant vocabulary
size.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from ..errors import VocabularyError
from ..languages import scripts_of
from ..recipe import GiveUp
from ..tokens import BYTE_TOKEN, surface_bytes
from .audit import audit_vocabulary
from .change import (
    AUDITED,
    Effect,
    Mode,
    ProtectionCost,
    VocabularyChange,
    changed_sentences,
    split_sentences,
)
from .merges import token_counts
from .patterns import propose_repair
from .select import candidates_for, choose_leaves, keep_contract, learn_tokens, wanted_tokens
from .sizes import tokens_by_number
from .tokenizer_json import NewToken, Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
    min_frequency: int = 2,
    max_token_length: int = 16,
) -> VocabularyChange:
    """Give a tokenizer new tokens for a language; the given tokenizer is not changed.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: training text of the target language; read once, as a stream.
        tokens: how many tokens to add.
        mode: `extend` appends them; `replace` gives each the id of a base token that is given up:
            one that no surviving merge needs, the least useful on the text of `others` first.
            Single characters and special tokens stay.
        others: text of other languages, by code: it shows which base tokens are used, and what the
            change does.
        protect: by language of `others`, the share of its sentences that is to keep its exact ids;
            tokens that break more are not added.
        give_up: for `replace`, `usage` counts for a token also what its uses become once longer
            tokens are gone; `frequency` counts only the token itself, as the paper does.
        repair_script: let combining marks ride with letters in the word pattern, where `texts` need
            it.
        complete_bytes: give a token to every byte that has none.
        min_frequency: a pair seen less often in `texts` is not merged.
        max_token_length: longer tokens, in characters, are not made.

    Returns:
        The change, audited.

    Raises:
        VocabularyError: another kind of tokenizer, or the text does not support that many tokens.
    """
    protect = dict(protect or {})
    reference = {language: list(_unicode(lines)) for language, lines in (others or {}).items()}
    _check_request(tokens, mode, reference, protect)
    base = Spec.of(tokenizer)
    stream = _unicode(texts)
    head = list(islice(stream, AUDITED))

    repair = propose_repair(tokenizer, head) if repair_script else None
    spec = base.with_pre_tokenizer(repair.pre_tokenizer) if repair else base
    words = spec.count_words(chain(head, stream))
    sentences = {
        language: split_sentences(lines, PROTECTED if language in protect else SENTENCES)
        for language, lines in reference.items()
    }

    def learn(wanted: int) -> list[NewToken]:
        learned = learn_tokens(
            spec,
            words,
            wanted,
            min_frequency,
            max_token_length,
            complete_bytes=complete_bytes,
            counted=bool(protect),
        )
        return wanted_tokens(learned, spec, max_token_length)

    def allow(candidates: list[NewToken]) -> list[NewToken]:
        contract = {language: sentences[language] for language in protect}
        return (
            keep_contract(base, spec, candidates, tokens, contract, protect)
            if protect
            else candidates
        )

    wanted = candidates_for(tokens)
    candidates = learn(wanted)
    allowed = allow(candidates)
    while len(allowed) < tokens and len(more := learn(wanted := 3 * wanted)) > len(candidates):
        candidates, allowed = more, allow(more)
    if len(allowed) < tokens:
        raise VocabularyError(
            f"{tokens} new tokens were asked, but this text supports only {len(allowed)} (pairs seen at least "
            f"{min_frequency} times in {sum(words.values()):,} words): ask for fewer with vocabulary.tokens, give "
            "more text with corpus.target, or loosen what is protected and forbidden"
        )
    chosen = allowed[:tokens]

    removed, lost = dict[int, str](), dict[int, int]()
    if mode == "replace":
        used = [token_counts(spec.bare, spec.count_words(lines)) for lines in reference.values()]
        removed, lost = choose_leaves(
            spec, sum(used, Counter()), token_counts(spec.bare, words), chosen, give_up
        )
    first = max(spec.vocab.values()) + 1
    new_tokens = dict(zip(sorted(removed) or range(first, first + tokens), chosen, strict=True))
    grown = spec.without(removed.values()).with_tokens(new_tokens)
    adapted = grown.around(tokenizer)
    added = {new: token.surface for new, token in new_tokens.items()}
    spelled = spell(base, added)
    uses = token_counts(grown.bare, words)
    cost = None
    if protect:
        unprotected = token_counts(spec.appended(candidates[:tokens]).bare, words).total()
        cost = ProtectionCost(
            len(set(candidates[:tokens]) - set(allowed)), uses.total(), unprotected
        )

    def count(one: Spec) -> Counter[str]:
        return uses if one is grown else token_counts(one.bare, words)

    change = VocabularyChange(
        tokenizer=adapted,
        mode=mode,
        new_to_old={old: old for old in sorted(spec.vocab.values()) if old not in removed},
        added=added,
        removed=removed,
        base_pieces=spelled,
        added_counts={new: uses[surface] for new, surface in added.items()},
        lost=lost,
        unreachable=_unreachable(grown, added),
        pattern_repair=repair.joined if repair else "",
        curve=tokens_by_number(spec, grown, added, spelled, count),
        effects={
            language: _effect(tokenizer, adapted, lines, protect.get(language))
            for language, lines in sentences.items()
        },
        protection_cost=cost,
    )
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, head, reference))


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    *,
    others: Mapping[str, Iterable[str]] | None = None,
) -> VocabularyChange:
    """Drop the tokens of scripts that never occur in the given texts, so that the model gets
    smaller.

    Ids are numbered anew, without gaps. Special tokens, single bytes and characters of scripts in
    use stay, and so does everything that a surviving merge needs.

    Args:
        tokenizer: a fast tokenizer: byte-level BPE, SentencePiece BPE, or Unigram.
        texts: text of every language that the model is to keep.
        others: text on which the effect is measured, by language.
    """
    base = Spec.of(tokenizer)
    stream = _unicode(texts)
    head = list(islice(stream, AUDITED))
    words = base.count_words(chain(head, stream))
    used = token_counts(base.bare, words)
    scripts = set().union(*(scripts_of(base.text(word)) for word in words))
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
    kept_old = [
        old
        for token, old in sorted(base.vocab.items(), key=lambda item: item[1])
        if token not in foreign
    ]
    new_ids = {old: new for new, old in enumerate(kept_old)}
    trimmed = base.renumbered(new_ids)
    adapted = trimmed.around(tokenizer)
    change = VocabularyChange(
        tokenizer=adapted,
        mode="trim",
        new_to_old={new: old for old, new in new_ids.items()},
        removed={base.vocab[token]: token for token in sorted(foreign, key=base.vocab.__getitem__)},
        effects={
            language: _effect(tokenizer, adapted, split_sentences(lines, SENTENCES), None, new_ids)
            for language, lines in (others or {}).items()
        },
    )
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, head))


def spell(base: Spec, added: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """The base ids that spell each added token.

    A byte that the base lacks is spelled by all bytes of its kind (ASCII, leading, continuing) that
    it has; what the base does not know at all, by its unknown token.
    """
    encodings = base.bare.encode_batch_fast(list(added.values()), add_special_tokens=False)
    spelled = zip(added.items(), encodings, strict=True)
    return {new: tuple(encoding.ids) or _kin(base, surface) for (new, surface), encoding in spelled}


def _check_request(
    tokens: int, mode: str, reference: Mapping[str, Sequence[str]], protect: Mapping[str, float]
) -> None:
    if tokens < 1:
        raise VocabularyError(f"{tokens} new tokens were asked: ask for at least one")
    if mode not in ("extend", "replace"):
        raise VocabularyError(f"mode '{mode}' is unknown: use extend or replace")
    for language, share in protect.items():
        if not 0 <= share <= 1:
            raise VocabularyError(
                f"protect['{language}'] is {share}: give a share of sentences from 0 to 1"
            )
        if not reference.get(language):
            raise VocabularyError(
                f"'{language}' is to be protected, but there is no text of it in `others`, only of "
                f"{', '.join(reference) or 'no language'}: give text of it, or leave it out of protect"
            )


def _unicode(texts: Iterable[str]) -> Iterator[str]:
    """The texts, each looked at before it is used."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise VocabularyError(
                f"a text holds a lone surrogate (U+{ord(text[error.start]):04X}), which no UTF-8 file can hold: "
                "read the text again with errors='replace'"
            ) from error
        yield text


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
    return tuple(
        new for new, encoding in zip(added, encodings, strict=True) if encoding.ids != [new]
    )


def _kin(base: Spec, surface: str) -> tuple[int, ...]:
    """What stands for a token that the base cannot spell: the bytes of its kind, or the unknown
    token.
    """

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
