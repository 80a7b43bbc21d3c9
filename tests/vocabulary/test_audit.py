"""An audit must find what is wrong: each check is shown a tokenizer or a change that breaks it."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, train_tokenizer
from helpers.vocabularies import with_pattern
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import Base
from langadapt_utils.vocabulary import audit
from langadapt_utils.vocabulary.audit import (
    Audited,
    audit_vocabulary,
    lint_tokenizer,
)
from langadapt_utils.vocabulary.change import Effect, VocabularyChange, split_sentences
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.tokenizer_json import Spec


def broken(
    change: VocabularyChange, base: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> set[str]:
    train = corpora["hu"].train
    checks = audit_vocabulary(
        base, change, list(train["hu"]["text"]), {"en": list(train["en"]["text"])}
    )
    return {check.claim for check in checks if not check.passed}


def backend(tokenizer: PreTrainedTokenizerFast, edit: Callable[[dict], None]) -> Tokenizer:
    data = json.loads(json.dumps(Spec.of(tokenizer).data))
    edit(data)
    return Tokenizer.from_str(json.dumps(data))


def edited(
    tokenizer: PreTrainedTokenizerFast, edit: Callable[[dict], None]
) -> PreTrainedTokenizerFast:
    spec = Spec.of(tokenizer)
    data = json.loads(json.dumps(spec.data))
    edit(data)
    return Spec(data, spec.family).around(tokenizer)


def test_a_sound_change_passes(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    assert broken(change, tokenizer, corpora) == set()


def failing(change: VocabularyChange, base: PreTrainedTokenizerFast, texts: list[str]) -> set[str]:
    """What the whole audit finds on a few texts."""
    checks = audit_vocabulary(base, change, texts, {"en": ["I don't know 12 of them."]})
    return {check.claim for check in checks if not check.passed}


def forgotten_bytes(data: dict) -> None:
    data["decoder"] = {"type": "Fuse"}


def twin(data: dict) -> None:
    data["model"]["vocab"][" "] = 1 + max(data["model"]["vocab"].values())


def renamed_special(data: dict) -> None:
    data["added_tokens"][0]["content"] = "<|other|>"
    data["model"]["vocab"]["<|other|>"] = data["model"]["vocab"].pop("<|endoftext|>")


def cut_between_digits(data: dict) -> None:
    digits = {"type": "Digits", "individual_digits": True}
    parts = [digits, data["pre_tokenizer"]]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


class SmallLetters(PreTrainedTokenizerFast):
    """Does to text what its tokenizer.json does not say, so that a saved copy does not do it."""

    def __call__(self, texts: list[str], **options: object) -> BatchEncoding:
        return super().__call__([text.lower() for text in texts], **options)


def small_letters(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    names = tokenizer.special_tokens_map
    template = tokenizer.chat_template
    return SmallLetters(
        tokenizer_object=tokenizer.backend_tokenizer, chat_template=template, **names
    )


def with_setting(
    tokenizer: PreTrainedTokenizerFast, name: str, value: str
) -> PreTrainedTokenizerFast:
    copied = edited(tokenizer, lambda data: None)
    setattr(copied, name, value)
    return copied


def looks_special(change: VocabularyChange, base: PreTrainedTokenizerFast) -> dict:
    """An added token that reads like a special one; bytes of the base spell it as they should."""
    new, surface = next(iter(change.added)), "Ġ<|im_start|>"
    pieces = tuple(base.convert_tokens_to_ids(list(surface)))
    return {
        "added": {**change.added, new: surface},
        "base_pieces": {**change.base_pieces, new: pieces},
    }


def first(change: VocabularyChange) -> int:
    return next(iter(change.added))


def test_a_special_token_that_was_given_up_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    name, index = next(iter(tokenizer.get_added_vocab().items()))
    kept = {new: old for new, old in change.new_to_old.items() if new != index}

    def without(data: dict) -> None:
        data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] != name]
        data["model"]["vocab"]["gone"] = data["model"]["vocab"].pop(name)

    gone = PreTrainedTokenizerFast(tokenizer_object=backend(change.tokenizer, without))
    lost = dataclasses.replace(change, tokenizer=gone, new_to_old=kept, removed={index: name})
    assert "special tokens and chat template are unchanged" in failing(lost, tokenizer, ["szép"])


# A claim of the audit, and what of a sound change is to be another so that this claim alone fails.
DEFECTS = {
    "every added token can be produced": lambda change, base: {"unreachable": (first(change),)},
    "every added token is spelled by base tokens": lambda change, base: {
        "base_pieces": {**change.base_pieces, first(change): (5,)}
    },
    "no added token spells the text of another": lambda change, base: {
        "tokenizer": edited(change.tokenizer, twin)
    },
    "all other tokens keep their ids": lambda change, base: {
        "new_to_old": {**change.new_to_old, 7: 8, 8: 7}
    },
    "the vocabulary keeps its size": lambda change, base: {"mode": "replace"},
    "special tokens and chat template are unchanged": lambda change, base: {
        "tokenizer": with_setting(change.tokenizer, "chat_template", "{{ other }}")
    },
    "no added token looks like a special token": looks_special,
    "decoded tokens give the text as before": lambda change, base: {
        "tokenizer": edited(change.tokenizer, forgotten_bytes)
    },
    "saved and loaded, it gives the same ids": lambda change, base: {
        "tokenizer": small_letters(change.tokenizer)
    },
    "the target language takes fewer tokens, or fewer unknown ones": lambda change, base: {
        "tokenizer": base
    },
    "text in en takes at most 0.1% more tokens": lambda change, base: {
        "effects": {"en": Effect(10, 1, 1_000, 1_002)}
    },
    "99.90% of the sentences in en keep their ids": lambda change, base: {
        "effects": {"en": Effect(1_000, 2, 9, 9, protected=0.999)}
    },
}


@pytest.mark.parametrize("claim", DEFECTS)
def test_one_defect_of_a_change_fails_one_check(
    claim: str,
    change: VocabularyChange,
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
) -> None:
    texts = list(corpora["hu"].train["hu"]["text"])[:20]
    assert failing(change, tokenizer, texts) == set()
    defect = dataclasses.replace(change, **DEFECTS[claim](change, tokenizer))
    assert failing(defect, tokenizer, texts) == {claim}


def test_another_special_token_at_the_end_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    other = with_setting(change.tokenizer, "eos_token", "<|im_start|>")
    defect = dataclasses.replace(change, tokenizer=other)
    found = failing(defect, tokenizer, ["Szép ház, szép híd."])
    assert found == {"special tokens and chat template are unchanged"}


def test_tokens_that_are_lost_or_renamed_are_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    renamed = edited(change.tokenizer, renamed_special)
    defect = Audited(tokenizer, dataclasses.replace(change, tokenizer=renamed), [], [])
    assert not audit.special_tokens_kept(defect).passed and not audit.ids_kept(defect).passed
    other = train_tokenizer(["another text"], size=len(tokenizer))
    defect = Audited(tokenizer, dataclasses.replace(change, tokenizer=other), [], [])
    assert not audit.ids_kept(defect).passed


def test_a_token_that_nothing_spells_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    nothing = dataclasses.replace(change, base_pieces={**change.base_pieces, first(change): ()})
    assert not audit.spelled(Audited(tokenizer, nothing, [], [])).passed


def test_checks_of_other_languages_find_growth_and_broken_protection(
    change: VocabularyChange,
) -> None:
    assert audit.little_growth(change, "en", Effect(10, 1, 1_000, 1_001)).passed
    assert not audit.little_growth(change, "en", Effect(10, 1, 1_000, 1_002)).passed
    kept = Effect(1_000, 1, 9, 9, protected=0.999)
    assert audit.protection_kept(change, "en", kept).passed
    broken = dataclasses.replace(kept, changed=2)
    assert not audit.protection_kept(change, "en", broken).passed


def test_one_defect_of_a_repaired_pattern_fails_one_check() -> None:
    thai, gpt2 = ["ศึกษาภาษาที่นี่"], with_pattern("gpt2")
    change = extend_vocabulary(gpt2, thai * 5, tokens=3)
    assert change.pattern_repair and failing(change, gpt2, thai) == set()
    pattern = Spec.of(gpt2).data["pre_tokenizer"]
    defects = {
        "the repaired word pattern keeps letters and marks together": lambda data: data.update(
            pre_tokenizer=pattern
        ),
        "the repaired word pattern splits all other text as before": cut_between_digits,
    }
    for claim, edit in defects.items():
        defect = dataclasses.replace(change, tokenizer=edited(change.tokenizer, edit))
        assert failing(defect, gpt2, thai) == {claim}
    other = dataclasses.replace(change, tokenizer=with_pattern("ranges"))
    assert not audit.other_text_cut_as_before(Audited(gpt2, other, thai, ["don't 12"])).passed


@pytest.mark.parametrize(("words", "passed"), [(400, True), (20, False)])
def test_a_split_that_is_left_stops_nothing_where_it_is_rare(words: int, passed: bool) -> None:
    """A skin tone after a letter is neither mark nor joiner: the repair leaves it."""
    texts = ["ศึกษาภาษาที่นี่ " * words + "a🏽"]
    change = extend_vocabulary(with_pattern("gpt2"), texts, tokens=3)
    check = next(c for c in change.audit if "letters and marks together" in c.claim)
    assert change.pattern_repair and check.detail.startswith("1 of ") and check.passed == passed


def lint(tokenizer: PreTrainedTokenizerFast) -> dict[str, bool]:
    return {check.claim: check.passed for check in lint_tokenizer(tokenizer)}


def test_a_sound_tokenizer_has_no_lint(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(lint(tokenizer).values()) and all(lint(sentencepiece_bpe(["the cat"])).values())


@pytest.mark.base
def test_missing_bytes_are_named(base: Base) -> None:
    check = lint_tokenizer(base.tokenizer)[0]
    assert (
        not check.passed
        and check.detail.startswith("21 of 256 have none: ")
        and "FF" in check.detail
    )
    assert all(check.passed for check in lint_tokenizer(base.tokenizer)[1:])


def no_token_for_ff(data: dict) -> None:
    del data["model"]["vocab"]["ÿ" if "ÿ" in data["model"]["vocab"] else "<0xFF>"]


def wrong_inserted_id(data: dict) -> None:
    data["post_processor"]["special_tokens"]["<s>"]["ids"] = [77]


# A claim, and a tokenizer of which this claim alone does not hold, made from one of each family.
LINT = {
    "every byte has a token": lambda bytes_, pieces: edited(pieces, no_token_for_ff),
    "the post-processor inserts tokens of this vocabulary": lambda bytes_, pieces: edited(
        pieces, wrong_inserted_id
    ),
    "the chat template uses tokens that exist": lambda bytes_, pieces: with_setting(
        bytes_, "chat_template", "<|im_start|>{{ messages }}<|im_end|>"
    ),
    "no two tokens spell the same text": lambda bytes_, pieces: edited(pieces, twin),
    "saved and loaded, it gives the same ids": lambda bytes_, pieces: small_letters(bytes_),
}


@pytest.mark.parametrize("claim", LINT)
def test_one_defect_of_a_tokenizer_fails_one_check(
    claim: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = lint(LINT[claim](tokenizer, sentencepiece_bpe(["the cat"])))
    assert {name for name, passed in found.items() if not passed} == {claim}


def test_lint_names_what_is_wrong(tokenizer: PreTrainedTokenizerFast) -> None:
    for base in (tokenizer, sentencepiece_bpe(["the cat"])):
        check = lint_tokenizer(edited(base, no_token_for_ff))[0]
        assert not check.passed and check.detail == "1 of 256 have none: FF"
    template = "<|im_start|>{{ messages }}<|im_end|>"
    templated = with_setting(tokenizer, "chat_template", template)
    found = next(c for c in lint_tokenizer(templated) if "template" in c.claim)
    assert "'<|im_end|>'" in found.detail and "<|im_start|>" not in found.detail


def test_sentences_are_cut_at_their_marks() -> None:
    assert split_sentences(["One. Two! Three\nFour?", " "], 10) == [
        "One.",
        " Two!",
        " Three\n",
        "Four?",
    ]
    assert split_sentences(["a. b. c. d."], 2) == ["a.", " c."]
    hindi = "पहला वाक्य। दूसरा वाक्य।\n\nतीसरा"
    assert split_sentences([hindi], 9) == ["पहला वाक्य।", " दूसरा वाक्य।\n\n", "तीसरा"]
    assert split_sentences(["他来了。她走了。\n完"], 9) == ["他来了。", "她走了。\n", "完"]
    assert "".join(split_sentences([hindi * 3], 99)) == hindi * 3
    for mark in "؟۔።။։།":  # Arabic, Urdu, Amharic, Burmese, Armenian, Tibetan
        assert split_sentences([f"a{mark} b{mark}c"], 9) == [f"a{mark}", f" b{mark}", "c"]
