"""What must hold of a tokenizer, and of a change to one, counted on real text."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from ..models import load_tokenizer, name_portable_class
from ..tokens import surface_bytes
from .change import AUDITED, EXCERPT, Check, VocabularyChange
from .patterns import find_cuts
from .tokenizer_json import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RARELY = 20  # a token used less often than this in its training text will hardly be learned
SHOWN = 5  # examples of a finding
ENGLISH_GROWTH = 0.001  # tokens of other languages that `extend` may cost, as a share
REPLACE_GROWTH = 0.003  # the same for `replace`, which takes tokens away


def excerpts(texts: Iterable[str]) -> list[str]:
    """The beginnings of the first texts, enough for an audit."""
    return [text[:EXCERPT] for text in islice(texts, AUDITED)]


def lint_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str] = ()
) -> tuple[Check, ...]:
    """What is wrong with a tokenizer as it stands, before anything is changed.

    Args:
        tokenizer: a fast tokenizer of a family that can be extended.
        texts: text to compare encodings on; a built-in line of several scripts where none is given.
    """
    spec, sample = Spec.of(tokenizer), excerpts(texts) or ["Hello, árvíz 123\n\tสวัสดี 🙂"]
    checks = []
    missing = [surface_bytes(token, byte_level=spec.byte_level) for token in spec.missing_bytes()]
    checks.append(
        Check(
            "every byte has a token",
            not missing,
            f"{len(missing)} of 256 have none"
            + (f": {b''.join(missing).hex(' ').upper()}" if missing else ""),
        )
    )
    wrong = [
        name
        for name, index in _inserted(
            json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"]
        )
        if tokenizer.convert_tokens_to_ids(name) != index
    ]
    checks.append(
        Check(
            "the post-processor inserts tokens of this vocabulary", not wrong, _some(wrong, "wrong")
        )
    )
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    named = set(regex.findall(r"<\|[^|<>\s]+\|>", template))
    unknown = sorted(token for token in named if token not in spec.vocab)
    checks.append(
        Check(
            "the chat template speaks of tokens that exist", not unknown, _some(unknown, "unknown")
        )
    )
    twins = _twins(spec)
    checks.append(Check("no two tokens stand for the same text", not twins, _some(twins, "pairs")))
    checks.append(_same_after_saving(tokenizer, sample))
    return tuple(checks)


def audit_vocabulary(
    base: PreTrainedTokenizerFast,
    change: VocabularyChange,
    texts: Sequence[str],
    others: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Check, ...]:
    """Check on real text that a change is what it says and harms nothing else.

    Args:
        base: the tokenizer before the change.
        change: what was done.
        texts: text of the target language.
        others: text of languages that must not suffer, by code.
    """
    adapted, spec, old_spec = change.tokenizer, Spec.of(change.tokenizer), Spec.of(base)
    texts = excerpts(texts)
    sample = [*texts, *(text for lines in (others or {}).values() for text in excerpts(lines))]
    checks: list[Check] = []

    def check(claim: str, passed: bool, detail: str) -> None:
        checks.append(Check(claim, bool(passed), detail))

    check(
        "every added token can be produced",
        not change.unreachable,
        f"{len(change.added):,} added, {len(change.unreachable)} unreachable",
    )
    nothing = [token for new, token in change.added.items() if not change.base_pieces.get(new)]
    wrong = _misspelled(old_spec, change)
    check(
        "every added token is spelled by base tokens",
        not nothing and not wrong,
        _some(wrong, "misspelled"),
    )

    twins = sorted(set(_twins(spec)) - set(_twins(old_spec)))
    check("no added token stands for the text of another", not twins, _some(twins, "do"))

    before, after = base.get_vocab(), adapted.get_vocab()
    new_id = {old: new for new, old in change.new_to_old.items()}
    moved = [
        t for t, i in before.items() if i not in change.removed and after.get(t) != new_id.get(i)
    ]
    renumbered = sum(new != old for new, old in change.new_to_old.items())
    check(
        "all other tokens keep their ids"
        if change.mode != "trim"
        else "all other tokens are where they should be",
        not moved and (change.mode == "trim" or not renumbered),
        f"{len(change.new_to_old):,} kept, {len(moved)} lost, {len(change.removed):,} given up",
    )
    if change.mode == "replace":
        check(
            "the vocabulary keeps its size",
            len(before) == len(after),
            f"{len(before):,} → {len(after):,}",
        )

    same = (
        base.special_tokens_map == adapted.special_tokens_map
        and base.chat_template == adapted.chat_template
    )
    specials = [
        (base.added_tokens_decoder[i].content, new_id[i]) for i in base.added_tokens_decoder
    ]
    same = same and all(adapted.convert_tokens_to_ids(name) == index for name, index in specials)
    check("special tokens and chat template are untouched", same, f"{len(specials)} special tokens")
    clash = [token for token in change.added.values() if spec.text(token).strip() in spec.special]
    check("no added token looks like a special token", not clash, _some(clash, "do"))

    pairs = zip(_round_trips(base, sample), _round_trips(adapted, sample), strict=True)
    lost = sum(old and not new for old, new in pairs)
    check(
        "text comes back from its tokens as before",
        not lost,
        f"{lost} of {len(sample):,} texts do not",
    )
    checks.append(_same_after_saving(adapted, sample))

    if change.added:
        counts = [_count_tokens(tokenizer, texts) for tokenizer in (base, adapted)]
        unknown = [
            _count_tokens(tokenizer, texts, only=tokenizer.unk_token_id)
            for tokenizer in (base, adapted)
        ]
        check(
            "the target language takes fewer tokens, or fewer unknown ones",
            counts[1] < counts[0] or unknown[1] < unknown[0],
            f"{counts[0]:,} → {counts[1]:,}"
            + (f", unknown {unknown[0]:,} → {unknown[1]:,}" if any(unknown) else ""),
        )
    allowed = REPLACE_GROWTH if change.mode == "replace" else ENGLISH_GROWTH
    for language, effect in change.effects.items():
        growth = effect.tokens_after / max(1, effect.tokens_before) - 1
        check(
            f"text in {language} takes at most {allowed:.1%} more tokens",
            growth <= allowed,
            f"{effect.tokens_before:,} → {effect.tokens_after:,} ({growth:+.2%})",
        )
        if effect.protected is not None:
            check(
                f"{effect.protected:.2%} of the sentences in {language} keep their ids",
                effect.kept >= effect.protected,
                f"{effect.kept:.3%} of {effect.sentences:,} do" + _price(change),
            )
    if change.repaired:
        cuts, clusters = find_cuts(adapted, texts)
        check(
            "the repaired word pattern keeps letters and marks together",
            not cuts,
            f"{cuts.total()} of {clusters:,} cut",
        )
        bad = [text for text in sample if _cut_otherwise(base, adapted, text)]
        check(
            "the repaired word pattern cuts all other text as before", not bad, _some(bad, "differ")
        )
    return tuple(checks)


def describe_added(change: VocabularyChange) -> dict[str, Any]:
    """What is worth a look among the added tokens, with no verdict.

    Returns:
        `rarely_used` (below 20 uses in the training text), `fragments` (no whole characters),
        `longest`, `examples`: each a list of readable tokens; the first two sorted by uses.
    """
    by_use = sorted(change.added, key=lambda new: change.added_counts.get(new, 0))
    texts = {new: change.text(new) for new in change.added}
    return {
        "rarely_used": [texts[new] for new in by_use if change.added_counts.get(new, 0) < RARELY],
        "fragments": [texts[new] for new in by_use if "⟨" in texts[new]],
        "longest": sorted(texts.values(), key=len, reverse=True)[: 4 * SHOWN],
        "examples": [
            texts[new] for new in list(change.added)[:: max(1, len(change.added) // (4 * SHOWN))]
        ],
    }


def _price(change: VocabularyChange) -> str:
    if change.protection_cost is None:
        return ""
    more = change.protection_cost.tokens / change.protection_cost.tokens_unprotected - 1
    return f"; {change.protection_cost.dropped:,} tokens left out for it, the target takes {more:+.2%} tokens"


def _misspelled(spec: Spec, change: VocabularyChange) -> list[str]:
    """Added tokens whose base ids spell something else; what the base cannot spell is left out."""
    surfaces = {
        index: surface_bytes(token, byte_level=spec.byte_level)
        for token, index in spec.vocab.items()
    }
    missing = set(spec.missing_bytes())
    return [
        change.text(new)
        for new, ids in change.base_pieces.items()
        if spec.unknown_id not in ids
        and not missing & set(change.added[new])
        and b"".join(surfaces[i] for i in ids)
        != surface_bytes(change.added[new], byte_level=spec.byte_level)
    ]


def _same_after_saving(tokenizer: PreTrainedTokenizerFast, sample: Sequence[str]) -> Check:
    """Saved and read back by `transformers` and by `tokenizers`, a tokenizer must give the same
    ids.
    """
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        name_portable_class(Path(folder))
        again = load_tokenizer(Path(folder))
        plain = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    sample = list(sample)
    ids = [
        tokenizer(sample)["input_ids"],
        again(sample)["input_ids"],
        [e.ids for e in plain.encode_batch(sample)],
    ]
    differing = sum(not (now == later == bare) for now, later, bare in zip(*ids, strict=True))
    return Check(
        "saved and loaded, it gives the same ids",
        not differing,
        f"{differing} of {len(sample):,} texts differ",
    )


def _twins(spec: Spec) -> list[str]:
    """Texts that two tokens stand for. A byte of SentencePiece is no twin of the character it
    is.
    """
    by_text: dict[bytes, list[str]] = defaultdict(list)
    for token in spec.vocab:
        if token not in spec.special and not (token.startswith("<0x") and not spec.byte_level):
            by_text[surface_bytes(token, byte_level=spec.byte_level)].append(token)
    return [spec.text(tokens[0]) for tokens in by_text.values() if len(tokens) > 1]


def _inserted(post: Any) -> list[tuple[str, int]]:
    """Tokens that a post-processor inserts, with the ids that it inserts for them."""
    if isinstance(post, dict):
        if set(post) == {"id", "ids", "tokens"}:
            return list(zip(post["tokens"], post["ids"], strict=True))
        return [pair for value in post.values() for pair in _inserted(value)]
    if isinstance(post, list):
        if len(post) == 2 and isinstance(post[0], str) and isinstance(post[1], int):
            return [(post[0], post[1])]
        return [pair for value in post for pair in _inserted(value)]
    return []


def _cut_otherwise(
    base: PreTrainedTokenizerFast, adapted: PreTrainedTokenizerFast, text: str
) -> bool:
    """Whether two word patterns cut a text differently that has no mark or joiner in it."""
    if regex.search(r"[\p{M}\p{Join_Control}]", text):
        return False
    old, new = (t.backend_tokenizer.pre_tokenizer.pre_tokenize_str for t in (base, adapted))
    return bool(old(text) != new(text))


def _round_trips(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[bool]:
    backend = tokenizer.backend_tokenizer
    ids = [
        encoding.ids
        for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)
    ]
    decoded = backend.decode_batch(ids, skip_special_tokens=False)
    return [text == again for text, again in zip(texts, decoded, strict=True)]


def _count_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, only: int | None = -1
) -> int:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return sum(
        len(encoding.ids) if only == -1 else encoding.ids.count(only) for encoding in encodings
    )


def _some(items: Sequence[str], what: str) -> str:
    return f"{len(items)} {what}" + (f": {', '.join(map(repr, items[:SHOWN]))}" if items else "")
