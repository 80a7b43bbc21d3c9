"""Checks of a tokenizer and of a vocabulary change, on real text."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import regex
import tokenizers
from transformers import AutoConfig, AutoTokenizer
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..errors import brief
from ..models import load_tokenizer, save_tokenizer
from ..tokens import byte_lengths, spread, token_ids
from .change import Check, Effect, VocabularyChange
from .patterns import INNER, RARE, as_the_pattern_sees, cuts_inside, find_cuts, splits_characters
from .tokenizer_json import Spec, one_of

Others = Mapping[str, Iterable[str]]  # texts of other languages, by code
SHOWN = 5  # examples of a finding
WITH_INNER = regex.compile(rf"[\p{{L}}\p{{M}}]+[{INNER}][\p{{L}}\p{{M}}]+")
# Fraction of additional tokens that other languages may take; `replace` removes base tokens.
GROWTH = {"extend": 0.001, "replace": 0.003}


def lint_tokenizer(tokenizer: Tokenizer, texts: Sequence[str] = ()) -> tuple[Check, ...]:
    """Check a tokenizer before any change.

    Args:
        tokenizer: a fast tokenizer of a family that can be extended.
        texts: to compare encodings on; a built-in line in several scripts by default, on which
            letters and marks are not checked.

    Raises:
        VocabularyError: the tokenizer is of a family that cannot be extended.
    """
    spec, sample = Spec.of(tokenizer), spread(texts) or ["Hello, árvíz 123\n\tสวัสดี 🙂"]
    missing = b"".join(map(spec.raw, spec.missing_bytes()))
    names = f": {missing.hex(' ').upper()}" if missing else ""
    inserted = tokenizer.backend_tokenizer.encode("")  # tokens around every text
    ids = zip(inserted.tokens, inserted.ids, strict=True)
    wrong = [name for name, index in ids if tokenizer.convert_tokens_to_ids(name) != index]
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    unknown = sorted(set(regex.findall(r"<\|[^|<>\s]+\|>", template)) - spec.vocab.keys())
    special = regex.compile(one_of(spec.special.keys() - set(spec.found_first)))
    written = [found.group() for text in sample if (found := special.search(text))]
    ids_of_sample = list(chain(*token_ids(tokenizer, sample)))
    lost = sum(index == spec.unknown_id for index in ids_of_sample)
    cost = f"{lost:,} of {len(ids_of_sample):,} tokens are unknown; each byte counts as 8 bits"
    changed = _round_trips(tokenizer, sample).count(False)
    cutter, seen = tokenizer.backend_tokenizer.pre_tokenizer, as_the_pattern_sees(tokenizer, texts)
    cuts, clusters = find_cuts(cutter, seen)
    parted = f"{cuts.total():,} of {clusters:,} are cut" + "; notebook 2 repairs most" * bool(cuts)
    checks = [
        Check("every byte has a token", not missing, f"{len(missing)} of 256 have none{names}"),
        _none("the post-processor inserts tokens of this vocabulary", wrong, "wrong"),
        _none("the chat template uses tokens that exist", unknown, "unknown"),
        _none("no two tokens spell the same text", spec.repeated, "pairs"),
        _none("no text contains a special token", written, "do, and are encoded as text"),
        Check("every character has a token", not lost, cost),
        Check("decoded tokens give the text", not changed, f"{changed} of {len(sample):,} do not"),
        apostrophes_kept(tokenizer, sample),
        Check("letters and marks stay together", cuts.total() <= RARE * clusters, parted),
    ]
    with tempfile.TemporaryDirectory() as saved:
        checks.append(same_after_saving(tokenizer, Path(saved), sample))
    if (where := Path(tokenizer.name_or_path)).joinpath("config.json").is_file():
        checks += [every_token_has_a_row(tokenizer, where), read_by_stock(where, sample, tokenizer)]
    return tuple(checks)


def apostrophes_kept(tokenizer: Tokenizer, sample: Sequence[str]) -> Check:
    """Check that the word pattern does not split at an apostrophe between letters (`to'siq`)."""
    cutter = tokenizer.backend_tokenizer.pre_tokenizer
    words = [word for text in sample for word in cuts_inside(cutter, text, WITH_INNER)]
    cut, what = [word for word, places in words if places], f"of {len(words):,} are split"
    return _none("words with an apostrophe inside are not split", cut, what)


def every_token_has_a_row(tokenizer: Tokenizer, folder: Path) -> Check:
    """Check that the model in the tokenizer's folder has an embedding for each token."""
    rows = AutoConfig.from_pretrained(str(folder)).get_text_config().vocab_size
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows]
    what = f"are beyond its {rows:,} embeddings; they get one"
    return _none("every token has an embedding in the model", beyond, what)


def read_by_stock(folder: Path, sample: Sequence[str], own: Tokenizer | None = None) -> Check:
    """Check that `AutoTokenizer` gives the ids of the tokenizer.json of a folder, as we do."""
    claim, own = "`AutoTokenizer` gives the ids of tokenizer.json", own or load_tokenizer(folder)
    try:
        stock = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # its classes raise many kinds
        return Check(claim, False, f"it cannot load the folder: {brief(error)}")
    ids = (t(list(sample), add_special_tokens=False)["input_ids"] for t in (stock, own))
    differ = sum(found != right for found, right in zip(*ids, strict=True))
    detail = f"{differ} of {len(sample):,} texts differ"
    return Check(claim, not differ, f"{detail} under {type(stock).__name__}" if differ else detail)


@dataclass
class Audited:
    """A vocabulary change and its base, prepared once for all checks.

    Attributes:
        base: the tokenizer before the change.
        change: to check.
        texts: excerpts of the target language.
        others: excerpts of the protected languages.
        sample: all excerpts.
        tokenizers: before and after the change.
        old, new: the tokenizer.json before and after the change.
        cutters: the pre-tokenizers before and after the change.
    """

    base: Tokenizer
    change: VocabularyChange
    texts: Sequence[str]
    others: Sequence[str]

    def __post_init__(self) -> None:
        self.sample = [*self.texts, *self.others]
        self.tokenizers = self.base, self.change.tokenizer
        self.old, self.new = map(Spec.of, self.tokenizers)
        self.cutters = [own.backend_tokenizer.pre_tokenizer for own in self.tokenizers]


def audit_vocabulary(
    base: Tokenizer, change: VocabularyChange, texts: Sequence[str], others: Others | None = None
) -> tuple[Check, ...]:
    """Check a vocabulary change on real text: it is correct, and other languages are unharmed.

    Args:
        base: the tokenizer before the change.
        change: to check.
        texts: in the target language.
        others: in other languages, by code.
    """
    of_others = [text for lines in (others or {}).values() for text in spread(lines)]
    audited = Audited(base, change, spread(texts), of_others)
    repeated = sorted(set(audited.new.repeated) - set(audited.old.repeated))
    unique = _none("no added token spells the text of another", repeated, "do")
    checks = [reachable(audited), spelled(audited), unique, ids_kept(audited)]
    if change.mode == "replace":
        old, new = len(audited.old.vocab), len(audited.new.vocab)
        checks.append(Check("the vocabulary keeps its size", old == new, f"{old:,} → {new:,}"))
    checks += [special_tokens_kept(audited), no_false_specials(audited), round_trips(audited)]
    checks += [*read_again(audited), *([fewer_tokens(audited)] if change.added else [])]
    for language, effect in change.effects.items():
        checks.append(little_growth(change, language, effect))
        if effect.protected is not None:
            checks.append(protection_kept(change, language, effect))
    if change.pattern_repair:
        checks += [marks_kept(audited), other_text_cut_as_before(audited)]
    return tuple(checks)


def reachable(audited: Audited) -> Check:
    """Check that a text exists that is encoded to each added token."""
    added, unreachable = len(audited.change.added), len(audited.change.unreachable)
    detail = f"{added:,} added, {unreachable} unreachable"
    return Check("every added token can be produced", not unreachable, detail)


def spelled(audited: Audited) -> Check:
    """Check that base tokens spell every added token that the base can spell."""
    change, spec = audited.change, audited.old
    missing = {byte for name in spec.missing_bytes() for byte in spec.raw(name)}
    surfaces, wrong = {index: token for token, index in spec.vocab.items()}, []
    for new, surface in change.added.items():
        ids = change.base_pieces.get(new, ())
        spellable = spec.unknown_id not in ids and not missing & set(spec.raw(surface))
        raw = b"".join(spec.raw(surfaces[old]) for old in ids)
        if not ids or (spellable and raw != spec.raw(surface)):
            wrong.append(change.text(new))
    return _none("every added token is spelled by base tokens", wrong, "misspelled")


def ids_kept(audited: Audited) -> Check:
    """Check that all kept base tokens have the same ids as before."""
    change, before, after = audited.change, audited.old.vocab, audited.new.vocab
    moved = [t for t, old in before.items() if old not in change.removed and after.get(t) != old]
    renumbered = any(new != old for new, old in change.new_to_old.items())
    detail = f"{len(change.new_to_old):,} kept, {len(moved)} lost, {len(change.removed):,} replaced"
    return Check("all other tokens keep their ids", not moved and not renumbered, detail)


def special_tokens_kept(audited: Audited) -> Check:
    """Check that special tokens and chat template did not change."""
    ids = {token.content: index for index, token in audited.base.added_tokens_decoder.items()}
    before, after = ((own.special_tokens_map, own.chat_template) for own in audited.tokenizers)
    same = before == after and ids.items() <= audited.new.vocab.items()
    claim = "special tokens and chat template are unchanged"
    return Check(claim, same, f"{len(ids)} special tokens")


def no_false_specials(audited: Audited) -> Check:
    """Check that no added token reads like a special token."""
    spec, added = audited.new, audited.change.added.values()
    clash = [token for token in added if spec.text(token).strip() in spec.special]
    return _none("no added token looks like a special token", clash, "do")


def round_trips(audited: Audited) -> Check:
    """Check that decoding still gives every text that it gave before the change."""
    before, after = (_round_trips(own, audited.sample) for own in audited.tokenizers)
    lost = sum(old and not new for old, new in zip(before, after, strict=True))
    detail = f"{lost} of {len(audited.sample):,} texts do not"
    return Check("decoded tokens give the text as before", not lost, detail)


def fewer_tokens(audited: Audited) -> Check:
    """Check that the target language takes fewer tokens, or fewer unknown tokens."""
    encoded = [list(chain(*token_ids(own, audited.texts))) for own in audited.tokenizers]
    (before, after), unknown = map(len, encoded), audited.old.unknown_id
    lost, left = (sum(index == unknown for index in ids) for ids in encoded)
    if audited.old.byte_level:  # bytes without tokens leave no trace
        size = sum(len(text.encode(errors="replace")) for text in audited.texts)
        pairs = zip(audited.tokenizers, encoded, strict=True)
        lost, left = (max(0, size - int(byte_lengths(own)[ids].sum())) for own, ids in pairs)
    detail = f"{before:,} → {after:,}" + (f", unknown {lost:,} → {left:,}" if lost or left else "")
    claim = "the target language takes fewer tokens, or fewer unknown ones"
    return Check(claim, after < before or left < lost, detail)


def little_growth(change: VocabularyChange, language: str, effect: Effect) -> Check:
    """Check that another language takes at most slightly more tokens."""
    allowed, growth = GROWTH[change.mode], effect.tokens_after / max(1, effect.tokens_before) - 1
    claim = f"text in {language} takes at most {allowed:.1%} more tokens"
    detail = f"{effect.tokens_before:,} → {effect.tokens_after:,} ({growth:+.2%})"
    return Check(claim, growth <= allowed, detail)


def protection_kept(change: VocabularyChange, language: str, effect: Effect) -> Check:
    """Check that the protected fraction of sentences keeps its ids."""
    claim = f"{effect.protected:.2%} of the sentences in {language} keep their ids"
    detail = f"{effect.kept:.3%} of {effect.sentences:,} do"
    if cost := change.protection_cost:
        more = cost.tokens / cost.tokens_unprotected - 1
        detail += f"; {cost.dropped:,} tokens dropped for it, the target takes {more:+.2%} tokens"
    return Check(claim, effect.kept >= (effect.protected or 0.0), detail)


def marks_kept(audited: Audited) -> Check:
    """Check that the repaired word pattern does not separate marks from letters."""
    cuts, clusters = find_cuts(audited.cutters[-1], audited.texts)
    claim = "the repaired word pattern keeps letters and marks together"
    return Check(claim, cuts.total() <= RARE * clusters, f"{cuts.total()} of {clusters:,} cut")


def other_text_cut_as_before(audited: Audited) -> Check:
    """Check that the repaired pattern splits other text as before.

    This is text without marks, joiners, apostrophes and characters that the base splits; in other
    languages, also with apostrophes.
    """
    before, after = audited.cutters
    plain = [text for text in audited.texts if not WITH_INNER.search(text)] + [*audited.others]
    unmarked = (text for text in plain if not regex.search(r"[\p{M}\p{Join_Control}]", text))
    whole = (text for text in unmarked if not splits_characters(before, [text]))
    bad = [text for text in whole if before.pre_tokenize_str(text) != after.pre_tokenize_str(text)]
    return _none("the repaired word pattern splits all other text as before", bad, "differ")


def same_after_saving(tokenizer: Tokenizer, folder: Path, sample: Sequence[str]) -> Check:
    """Check that a tokenizer gives the same ids after saving and loading."""
    save_tokenizer(tokenizer, folder)
    again = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    now = tokenizer(list(sample), split_special_tokens=False)["input_ids"]
    later = (encoding.ids for encoding in again.encode_batch_fast(list(sample)))
    differing = sum(ids != found for ids, found in zip(now, later, strict=True))
    detail = f"{differing} of {len(sample):,} texts differ"
    return Check("saved and loaded, it gives the same ids", not differing, detail)


def read_again(audited: Audited) -> list[Check]:
    """Check the ids of the saved tokenizer: loaded directly, and with `AutoTokenizer` beside the
    configuration of the model. If the latter differs, the model card says how to load it.
    """
    tokenizer, config = audited.change.tokenizer, Path(audited.base.name_or_path, "config.json")
    with tempfile.TemporaryDirectory() as folder:
        checks = [same_after_saving(tokenizer, Path(folder), audited.sample)]
        if config.is_file():
            shutil.copy(config, folder)
            found = read_by_stock(Path(folder), audited.sample, tokenizer)
            claim = f"{found.claim}, or the model card names another class"
            checks.append(Check(claim, True, found.detail))
    return checks


def _round_trips(tokenizer: Tokenizer, texts: Sequence[str]) -> list[bool]:
    ids = token_ids(tokenizer, texts)
    decoded = tokenizer.backend_tokenizer.decode_batch(ids, skip_special_tokens=False)
    return [text == again for text, again in zip(texts, decoded, strict=True)]


def _none(claim: str, found: Sequence[str], what: str) -> Check:
    """Return a check that passes if nothing was found."""
    examples = f": {', '.join(map(repr, found[:SHOWN]))}" if found else ""
    return Check(claim, not found, f"{len(found)} {what}{examples}")
