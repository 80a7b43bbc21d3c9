"""Growing a vocabulary: script repair, continued BPE, extend or replace, and an audit that must pass.

A change is plain data, made before any tensor is touched. New merges are learned on top of the base
merges, so every new token is reachable and the segmentation of other text is kept.

Source of continued BPE and of leaf pruning: Purason et al., arXiv 2512.03989. Source of `replace`: Csaki et
al., arXiv 2311.05741, which gives up the least frequent base tokens at constant vocabulary size.
"""

from __future__ import annotations

import copy
import dataclasses
import heapq
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import VocabularyError
from .sources import load_tokenizer, name_portable_class

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Mode = Literal["extend", "replace"]
Spelling = tuple[int, ...]  # base token ids that spell a token
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LETTER, MARK = r"\p{L}", r"\p{M}"
AUDITED = 1_000  # texts of each language that an audit encodes
BATCH = 1_000  # texts handed to the Rust tokenizer at once
FIRST_SYMBOL = 0x10000  # base tokens are renamed to single characters from here on


@dataclass(frozen=True)
class Check:
    """One line of an audit: a claim, whether it holds, and what was counted."""

    claim: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class VocabularyChange:
    """What an adapted tokenizer has that its base had not, and the other way round.

    `kept` and `spelled` speak of two numberings: new ids are rows of the adapted model, old ids are rows of
    the base model.
    """

    tokenizer: PreTrainedTokenizerFast
    mode: Mode
    kept: dict[int, int]  # new id -> old id
    added: dict[int, str]  # new id -> surface, in order of learning
    removed: dict[int, str]  # old id -> surface
    spelled: dict[int, tuple[int, ...]]  # new id -> the old ids that spell it, never empty
    unreachable: tuple[int, ...]  # added ids that no text can produce; an audit with any fails
    repaired: bool  # the word pattern was changed
    curve: dict[int, int]  # number of new tokens -> tokens of the target training text
    english_changed: dict[str, int]  # English training words: "words", and "resegmented" among them
    audit: tuple[Check, ...] = field(default=())

    @property
    def size(self) -> int:
        """Ids of the adapted tokenizer, the highest plus one."""
        return max(max(self.kept), max(self.added, default=0)) + 1

    def audit_table(self) -> pd.DataFrame:
        """The audit as a table."""
        import pandas as pd

        return pd.DataFrame([[c.claim, c.passed, c.detail] for c in self.audit], columns=["claim", "passed", "detail"])

    def save(self, folder: Path) -> None:
        """Write the tokenizer in Hugging Face layout and the change as `change.json`."""
        self.tokenizer.save_pretrained(folder)
        name_portable_class(Path(folder))
        plain = {
            "mode": self.mode,
            "added": self.added,
            "removed": self.removed,
            "kept": {new: old for new, old in self.kept.items() if new != old},
            "kept_same_id": [new for new, old in self.kept.items() if new == old],
            "spelled": self.spelled,
            "unreachable": self.unreachable,
            "repaired": self.repaired,
            "curve": self.curve,
            "english_changed": self.english_changed,
            "audit": [vars(check) for check in self.audit],
        }
        Path(folder, "change.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> VocabularyChange:
        """Read what `save` wrote."""
        plain = json.loads(Path(folder, "change.json").read_text(encoding="utf-8"))
        kept = {**{new: new for new in plain["kept_same_id"]}, **_int_keys(plain["kept"])}
        return cls(
            tokenizer=load_tokenizer(Path(folder)),
            mode=plain["mode"],
            kept=kept,
            added=_int_keys(plain["added"]),
            removed=_int_keys(plain["removed"]),
            spelled={new: tuple(old) for new, old in _int_keys(plain["spelled"]).items()},
            unreachable=tuple(plain["unreachable"]),
            repaired=plain["repaired"],
            curve=_int_keys(plain["curve"]),
            english_changed=plain["english_changed"],
            audit=tuple(Check(**check) for check in plain["audit"]),
        )


def extend_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    *,
    tokens: int,
    mode: Mode = "extend",
    english: Iterable[str] = (),
    repair_script: bool = True,
    min_frequency: int = 2,
    max_token_bytes: int = 48,
) -> VocabularyChange:
    """Give a tokenizer new tokens for a language; the given tokenizer is not changed.

    Args:
        tokenizer: a fast byte-level BPE tokenizer (GPT-2, SmolLM2, Llama 3, Qwen).
        texts: training text of the target language.
        tokens: how many tokens to add.
        mode: `extend` appends them; `replace` gives each the id of a base token that is given up: one that
            no surviving merge needs, the least used on `english` first. Single bytes and special tokens stay.
        english: English text that shows which base tokens are used and on which the change must be harmless.
        repair_script: let combining marks ride with letters in the word pattern, where `texts` need it.
        min_frequency: a pair seen less often in `texts` is not merged.
        max_token_bytes: longer tokens are not made.

    Returns:
        The change, audited.

    Raises:
        VocabularyError: another kind of tokenizer, or the text does not support that many tokens.
    """
    texts, english = list(texts), list(english)
    if mode not in ("extend", "replace"):
        raise VocabularyError(f"mode '{mode}' is unknown: use extend or replace")
    base = json.loads(tokenizer.backend_tokenizer.to_str())
    _require_byte_level_bpe(base)
    adapted = copy.deepcopy(base)
    for token in adapted["added_tokens"]:  # an added token outside of the model's vocabulary would be renumbered
        adapted["model"]["vocab"].setdefault(token["content"], token["id"])
    repaired = repair_script and cuts_clusters(tokenizer, texts[:AUDITED])
    if repaired:
        adapted["pre_tokenizer"] = repair_pattern(base["pre_tokenizer"])
        repaired = adapted["pre_tokenizer"] != base["pre_tokenizer"]

    bare = _bare(base)
    words = _words(adapted, texts)
    merges = learn_merges(bare, words, 2 * tokens + 100, min_frequency)
    chosen = _distinct(merges, {i: t for t, i in base["model"]["vocab"].items()}, max_token_bytes)[:tokens]
    if len(chosen) < tokens:
        raise VocabularyError(
            f"{tokens} new tokens were asked, but this text supports only {len(chosen)} (pairs seen at least "
            f"{min_frequency} times in {sum(len(text.encode()) for text in texts):,} bytes): ask for fewer "
            "with vocabulary.tokens, or give more text with corpus.target"
        )

    english_words = _words(base, english)
    first_free = max(tokenizer.get_vocab().values()) + 1
    if mode == "extend":
        removed: dict[int, str] = {}
        new_ids = list(range(first_free, first_free + tokens))
    else:
        needed = {part for pair in chosen for part in pair}
        removed = _least_used_leaves(base, english_words, words, tokens, needed)
        new_ids = sorted(removed)
    spec_model = adapted["model"]
    for surface in removed.values():
        del spec_model["vocab"][surface]
    spec_model["merges"] = [m for m in spec_model["merges"] if "".join(m) in spec_model["vocab"]]
    for new_id, (left, right) in zip(new_ids, chosen, strict=True):
        spec_model["vocab"][left + right] = new_id
        spec_model["merges"].append([left, right])

    added = {new_id: left + right for new_id, (left, right) in zip(new_ids, chosen, strict=True)}
    spelled = {new: tuple(e.ids) for new, e in zip(added, bare.encode_batch(list(added.values())), strict=True)}
    rebuilt = _rebuilt(tokenizer, adapted)
    grown = _bare(adapted)
    change = VocabularyChange(
        tokenizer=rebuilt,
        mode=mode,
        kept={old: old for old in sorted(tokenizer.get_vocab().values()) if old not in removed},
        added=added,
        removed=removed,
        spelled=spelled,
        unreachable=tuple(
            new for new, e in zip(added, grown.encode_batch(list(added.values())), strict=True) if e.ids != [new]
        ),
        repaired=repaired,
        curve=_curve(bare, grown, words, chosen),
        english_changed=_resegmented(bare, grown, english_words),
    )
    return dataclasses.replace(change, audit=audit_vocabulary(tokenizer, change, texts, english))


def audit_vocabulary(
    base: PreTrainedTokenizerFast, change: VocabularyChange, texts: Sequence[str], english: Sequence[str]
) -> tuple[Check, ...]:
    """Check on real text that a change is what it says and harms nothing else.

    Args:
        base: the tokenizer before the change.
        change: what was done.
        texts: text of the target language.
        english: text whose segmentation must not suffer.
    """
    adapted, sample = change.tokenizer, [*texts[:AUDITED], *english[:AUDITED]]
    checks = []

    def check(claim: str, passed: bool, detail: str) -> None:
        checks.append(Check(claim, bool(passed), detail))

    check(
        "every added token can be produced",
        not change.unreachable,
        f"{len(change.added):,} added, {len(change.unreachable)} unreachable",
    )

    old_surface = {i: t for t, i in base.get_vocab().items()}
    misspelled = [
        new for new, old in change.spelled.items() if "".join(old_surface[i] for i in old) != change.added[new]
    ]
    check(
        "every added token is spelled by base tokens",
        not misspelled and set(change.spelled) == set(change.added),
        f"{len(misspelled)} misspelled",
    )

    before, after = base.get_vocab(), adapted.get_vocab()
    moved = [t for t, i in before.items() if i not in change.removed and after.get(t) != i]
    check(
        "all other tokens keep their ids",
        not moved,
        f"{len(change.kept):,} kept, {len(moved)} moved, {len(change.removed):,} given up",
    )
    if change.mode == "replace":
        check(
            "the vocabulary keeps its size", len(before) == len(after), f"{len(before):,} before, {len(after):,} after"
        )

    same = base.special_tokens_map == adapted.special_tokens_map and base.chat_template == adapted.chat_template
    same = same and base.added_tokens_decoder == adapted.added_tokens_decoder
    check("special tokens and chat template are untouched", same, f"{len(base.added_tokens_decoder)} special tokens")

    lost = [t for t in sample if _round_trips(base, t) and not _round_trips(adapted, t)]
    check("text comes back from its tokens as before", not lost, f"{len(lost)} of {len(sample):,} texts do not")

    with tempfile.TemporaryDirectory() as folder:
        adapted.save_pretrained(folder)
        name_portable_class(Path(folder))
        again = load_tokenizer(Path(folder))
    differing = sum(again(t)["input_ids"] != adapted(t)["input_ids"] for t in sample)
    check("saved and loaded, it gives the same ids", not differing, f"{differing} of {len(sample):,} texts differ")

    target_before, target_after = (_count_tokens(t, texts[:AUDITED]) for t in (base, adapted))
    check(
        "the target language takes fewer tokens",
        target_after < target_before,
        f"{target_before:,} before, {target_after:,} after",
    )
    if english:
        words, changed = change.english_changed["words"], change.english_changed["resegmented"]
        english_before, english_after = (_count_tokens(t, english[:AUDITED]) for t in (base, adapted))
        check(
            "English takes at most 1 % more tokens",
            english_after <= 1.01 * english_before,
            f"{english_before:,} before, {english_after:,} after; {changed:,} of {words:,} words are cut differently",
        )
    if change.repaired:
        differing, marked = _cut_differently(base, adapted, english[:AUDITED])
        check(
            "the repaired word pattern cuts English alike",
            differing <= marked,
            f"{differing} of {len(english[:AUDITED]):,} texts differ; {marked} contain combining marks",
        )
    return tuple(checks)


def cuts_clusters(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> bool:
    """Whether the word pattern cuts between a letter and its combining marks anywhere in the texts."""
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    return any(
        start > 0
        and unicodedata.category(text[start]).startswith("M")
        and unicodedata.category(text[start - 1])[0] in "LM"
        for text in texts
        if not text.isascii()
        for _, (start, _) in split(text)
    )


def repair_pattern(pre_tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Let combining marks (`\\p{M}`) ride with letters wherever a pre-tokenizer's pattern names letters.

    The pattern of GPT-2 and its relatives cuts Thai, Hindi and many other scripts at every vowel sign and
    tone mark, and no merge can cross a cut. Text without combining marks is cut as before.

    Args:
        pre_tokenizer: as in `tokenizer.json`.
    """
    kind = pre_tokenizer["type"]
    if kind == "Sequence":
        return {**pre_tokenizer, "pretokenizers": [repair_pattern(part) for part in pre_tokenizer["pretokenizers"]]}
    if kind == "Split" and "Regex" in pre_tokenizer["pattern"]:
        return {**pre_tokenizer, "pattern": {"Regex": letters_with_marks(pre_tokenizer["pattern"]["Regex"])}}
    if kind == "ByteLevel" and pre_tokenizer["use_regex"]:
        if pre_tokenizer["add_prefix_space"]:
            raise VocabularyError(
                "a ByteLevel pre-tokenizer that adds a prefix space cannot be repaired: "
                "set vocabulary.repair_script=false"
            )
        split = {
            "type": "Split",
            "pattern": {"Regex": letters_with_marks(GPT2_PATTERN)},
            "behavior": "Isolated",
            "invert": False,
        }
        return {"type": "Sequence", "pretokenizers": [split, {**pre_tokenizer, "use_regex": False}]}
    return pre_tokenizer


def letters_with_marks(pattern: str) -> str:
    """Rewrite a word pattern so that `\\p{L}` takes combining marks with it.

    Example:
        >>> letters_with_marks(r" ?\\p{L}+|[^\\s\\p{L}\\p{N}]+")
        ' ?[\\\\p{L}\\\\p{M}]+|[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+'
    """
    if MARK in pattern:
        return pattern
    rewritten, in_class, position = [], False, 0
    while position < len(pattern):
        piece = pattern[position : position + 5] if pattern.startswith(LETTER, position) else pattern[position]
        if piece == "\\":
            piece = pattern[position : position + 2]
        elif piece == "[":
            in_class = True
        elif piece == "]":
            in_class = False
        position += len(piece)
        if piece == LETTER:
            piece = LETTER + MARK if in_class else f"[{LETTER}{MARK}]"
        rewritten.append(piece)
    return "".join(rewritten)


def word_counts(pre_tokenizer: Any, normalizer: Any, texts: Iterable[str]) -> dict[str, int]:
    """Count the pre-tokens of texts, in the alphabet of the pre-tokenizer.

    Both passes run in the parallel Rust code of `tokenizers`: one collects the distinct words, one counts
    them.
    """
    from tokenizers import Tokenizer, models, trainers

    texts = list(texts)
    counter = Tokenizer(models.WordLevel(unk_token="\0"))
    counter.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        counter.normalizer = normalizer
    counter.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=2**31 - 1, show_progress=False))
    words = sorted(counter.get_vocab(), key=counter.get_vocab().__getitem__)
    totals = np.zeros(len(words), dtype=np.int64)
    for batch in _batches(texts, BATCH):
        ids = np.concatenate([np.asarray(e.ids, dtype=np.int64) for e in counter.encode_batch_fast(batch)])
        totals += np.bincount(ids, minlength=len(words))
    return dict(zip(words, totals.tolist(), strict=True))


def learn_merges(
    base: Tokenizer, words: Mapping[str, int], merges: int, min_frequency: int
) -> list[tuple[Spelling, Spelling]]:
    """Learn merges that continue those of a base BPE model.

    Every base token is renamed to a single character, so that the Rust `BpeTrainer` learns on words as the
    base model leaves them.

    Args:
        base: a tokenizer with the base BPE model and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
        merges: how many to learn at most.
        min_frequency: pairs seen less often are not merged.

    Returns:
        Pairs in order of learning, each side as the base tokens it consists of.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    vocabulary = base.get_vocab()
    spellable = [word for word in words if all(character in vocabulary for character in word)]
    symbols: dict[int, str] = {}
    ids: list[int] = []

    def rename(token: int) -> str:
        if token not in symbols:
            symbols[token] = chr(FIRST_SYMBOL + len(ids))
            ids.append(token)
        return symbols[token]

    renamed = {
        "".join(map(rename, encoding.ids)): words[word]
        for batch in _batches(spellable, BATCH)
        for word, encoding in zip(batch, base.encode_batch_fast(batch, add_special_tokens=False), strict=True)
    }

    def repeated() -> Iterator[str]:
        for word, count in renamed.items():
            for start in range(0, count, BATCH):
                yield " ".join([word] * min(BATCH, count - start))

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    learner.train_from_iterator(
        repeated(),
        trainers.BpeTrainer(
            vocab_size=len(ids) + merges, min_frequency=min_frequency, show_progress=False, special_tokens=[]
        ),
    )
    learned = json.loads(learner.to_str())["model"]["merges"]

    def spell(side: str) -> tuple[int, ...]:
        return tuple(ids[ord(symbol) - FIRST_SYMBOL] for symbol in side)

    return [(spell(left), spell(right)) for left, right in learned]


def _require_byte_level_bpe(spec: dict[str, Any]) -> None:
    model = spec["model"]
    if model["type"] != "BPE" or "ByteLevel" not in json.dumps(spec["pre_tokenizer"]):
        kind = "SentencePiece-style BPE" if model["type"] == "BPE" else model["type"]
        raise VocabularyError(
            f"the tokenizer is {kind}: langadapt extends byte-level BPE tokenizers, as of GPT-2, SmolLM2, Llama 3, Qwen"
        )


def _bare(spec: dict[str, Any]) -> Tokenizer:
    """The BPE model alone, which takes pre-tokens in the byte alphabet."""
    from tokenizers import Tokenizer

    parts = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"))
    return Tokenizer.from_str(json.dumps({**spec, **parts, "added_tokens": []}))


def _words(spec: dict[str, Any], texts: Iterable[str]) -> dict[str, int]:
    from tokenizers import Tokenizer

    whole = Tokenizer.from_str(json.dumps(spec))
    return word_counts(whole.pre_tokenizer, whole.normalizer, texts)


def _distinct(
    merges: Iterable[tuple[Spelling, Spelling]], surfaces: Mapping[int, str], max_token_bytes: int
) -> list[tuple[str, str]]:
    """Merges as surfaces, without those whose result is too long or exists already, nor what needs them.

    Dropping a merge together with all that build on it leaves every other merge reachable.
    """
    taken, usable, chosen = set(surfaces.values()), set(), []
    for left, right in merges:
        sides = ["".join(surfaces[i] for i in side) for side in (left, right)]
        surface = "".join(sides)
        reachable = all(len(side) == 1 or side in usable for side in (left, right))
        if reachable and surface not in taken and len(surface) <= max_token_bytes:
            taken.add(surface)
            usable.add(left + right)
            chosen.append((sides[0], sides[1]))
    return chosen


def _least_used_leaves(
    spec: dict[str, Any], words: Mapping[str, int], target: Mapping[str, int], count: int, needed_by_new: set[str]
) -> dict[int, str]:
    """Choose base tokens to give up: no surviving merge needs them, least used in English first.

    Ties go to the token less used in the target language, then to the one learned last. What a token was
    used for falls to its parts when it goes.
    """
    vocabulary = spec["model"]["vocab"]
    merges: dict[str, list[str]] = {}
    needed = Counter(needed_by_new)
    for left, right in spec["model"]["merges"]:
        merges.setdefault(left + right, []).extend((left, right))
        needed.update((left, right))
    bare = _bare(spec)
    used, used_in_target = (_token_counts(bare, counts) for counts in (words, target))
    special = {token["content"] for token in spec["added_tokens"]}

    def entry(token: str) -> tuple[int, int, int, str]:
        return used[token], used_in_target[token], -vocabulary[token], token

    leaves = [entry(token) for token in merges if token in vocabulary and token not in special and not needed[token]]
    heapq.heapify(leaves)
    removed: dict[int, str] = {}
    while leaves and len(removed) < count:
        english, in_target, _, token = heapq.heappop(leaves)
        if (english, in_target) != (used[token], used_in_target[token]):
            continue  # an outdated entry
        removed[vocabulary[token]] = token
        for part in merges[token]:
            needed[part] -= 1
            used[part] += english
            used_in_target[part] += in_target
        for part in set(merges[token]):
            if not needed[part] and part in merges and part not in special:
                heapq.heappush(leaves, entry(part))
    if len(removed) < count:
        raise VocabularyError(
            f"{count} base tokens were to be replaced, but only {len(removed)} can be given up: "
            "ask for fewer with vocabulary.tokens"
        )
    return removed


def _token_counts(bare: Tokenizer, words: Mapping[str, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in _batches(words, BATCH):
        for word, encoding in zip(batch, bare.encode_batch(batch), strict=True):
            for token in encoding.tokens:
                counts[token] += words[word]
    return counts


def _curve(
    bare: Tokenizer, grown: Tokenizer, words: Mapping[str, int], chosen: Sequence[tuple[str, str]]
) -> dict[int, int]:
    """Tokens of the target text after each number of new tokens, from one encoding with all of them.

    A merge saves one token each time it is applied: where its token stands in the result, and where it was
    a step on the way to a later token.
    """
    applied = _token_counts(grown, words)
    for left, right in reversed(chosen):
        applied[left] += applied[left + right]
        applied[right] += applied[left + right]
    left_over = sum(_token_counts(bare, words).values())
    curve = {0: left_over}
    for number, (left, right) in enumerate(chosen, start=1):
        left_over -= applied[left + right]
        curve[number] = left_over
    shown = set(np.unique(np.geomspace(1, len(chosen), 60).round().astype(int)).tolist())
    return {number: tokens for number, tokens in curve.items() if number == 0 or number in shown}


def _resegmented(bare: Tokenizer, grown: Tokenizer, words: Mapping[str, int]) -> dict[str, int]:
    changed = 0
    for batch in _batches(words, BATCH):
        pairs = zip(batch, bare.encode_batch_fast(batch), grown.encode_batch_fast(batch), strict=True)
        changed += sum(words[word] for word, old, new in pairs if old.ids != new.ids)
    return {"words": sum(words.values()), "resegmented": changed}


def _rebuilt(tokenizer: PreTrainedTokenizerFast, spec: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The same tokenizer around another tokenizer.json."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        name_portable_class(Path(folder))
        Path(folder, "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        return load_tokenizer(Path(folder))


def _round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return bool(tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text)


def _count_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> int:
    return sum(map(len, tokenizer(list(texts), add_special_tokens=False)["input_ids"]))


def _cut_differently(
    base: PreTrainedTokenizerFast, adapted: PreTrainedTokenizerFast, texts: Sequence[str]
) -> tuple[int, int]:
    """How many texts the two word patterns cut differently, and how many contain combining marks."""
    old, new = (t.backend_tokenizer.pre_tokenizer.pre_tokenize_str for t in (base, adapted))
    differing = [text for text in texts if old(text) != new(text)]
    marked = sum(any(unicodedata.category(c).startswith("M") for c in text) for text in texts)
    return len(differing), marked


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _int_keys(mapping: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in mapping.items()}
