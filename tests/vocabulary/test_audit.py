"""An audit must find what is wrong: each check is shown a tokenizer or a change that breaks it."""

import dataclasses
import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, train_tokenizer
from helpers.vocabularies import with_pattern
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import Base
from langadapt_utils.vocabulary import audit
from langadapt_utils.vocabulary.audit import (
    Audited,
    audit_vocabulary,
    describe_added,
    excerpts,
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


def edited(tokenizer: PreTrainedTokenizerFast, edit: object) -> PreTrainedTokenizerFast:
    spec = Spec.of(tokenizer)
    data = json.loads(json.dumps(spec.data))
    edit(data)  # type: ignore[operator]
    return Spec(data, spec.family).around(tokenizer)


def test_a_sound_change_passes(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    assert broken(change, tokenizer, corpora) == set()


FAULTS = {
    "reachable": lambda change, new: {"unreachable": (new,)},
    "spelled": lambda change, new: {"base_pieces": {**change.base_pieces, new: (5,)}},
    "ids_kept": lambda change, new: {"new_to_old": {**change.new_to_old, 7: 8, 8: 7}},
    "no_false_specials": lambda change, new: {"added": {**change.added, new: "Ġ<|im_start|>"}},
}


@pytest.mark.parametrize("check", FAULTS)
def test_each_check_alone_finds_its_fault(
    check: str,
    change: VocabularyChange,
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
) -> None:
    texts = excerpts(corpora["hu"].train["hu"]["text"])
    fields = FAULTS[check](change, next(iter(change.added)))
    for passes, one in ((True, change), (False, dataclasses.replace(change, **fields))):
        assert getattr(audit, check)(Audited(tokenizer, one, texts, texts)).passed == passes


def test_a_token_that_nothing_spells_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    new = next(iter(change.added))
    nothing = dataclasses.replace(change, base_pieces={**change.base_pieces, new: ()})
    assert not audit.spelled(Audited(tokenizer, nothing, [], [])).passed


def forgotten_bytes(data: dict) -> None:
    data["decoder"] = {"type": "Fuse"}


def twin(data: dict) -> None:
    data["model"]["vocab"][" "] = 1 + max(data["model"]["vocab"].values())


def renamed_special(data: dict) -> None:
    data["added_tokens"][0]["content"] = "<|other|>"
    data["model"]["vocab"]["<|other|>"] = data["model"]["vocab"].pop("<|endoftext|>")


TOKENIZERS = {
    "no_new_twins": lambda change, base: edited(change.tokenizer, twin),
    "special_tokens_kept": lambda change, base: edited(change.tokenizer, renamed_special),
    "round_trips": lambda change, base: edited(change.tokenizer, forgotten_bytes),
    "fewer_tokens": lambda change, base: base,
    "ids_kept": lambda change, base: train_tokenizer(["another text"], size=len(base)),
    "same_size": lambda change, base: change.tokenizer,
}


@pytest.mark.parametrize("check", TOKENIZERS)
def test_each_check_alone_finds_a_broken_tokenizer(
    check: str,
    change: VocabularyChange,
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
) -> None:
    texts = excerpts(corpora["hu"].train["hu"]["text"])
    fault = dataclasses.replace(change, tokenizer=TOKENIZERS[check](change, tokenizer))
    assert not getattr(audit, check)(Audited(tokenizer, fault, texts, texts)).passed
    if check != "same_size":  # `extend` makes the vocabulary larger
        assert getattr(audit, check)(Audited(tokenizer, change, texts, texts)).passed


def test_checks_of_other_languages_find_growth_and_broken_protection(
    change: VocabularyChange,
) -> None:
    assert audit.little_growth(change, "en", Effect(10, 1, 1_000, 1_001)).passed
    assert not audit.little_growth(change, "en", Effect(10, 1, 1_000, 1_002)).passed
    kept = Effect(1_000, 1, 9, 9, protected=0.999)
    assert audit.protection_kept(change, "en", kept).passed
    broken = dataclasses.replace(kept, changed=2)
    assert not audit.protection_kept(change, "en", broken).passed


def test_checks_of_a_repaired_pattern_find_cut_marks_and_changed_text() -> None:
    thai, gpt2 = ["ศึกษาภาษาที่นี่"], with_pattern("gpt2")
    change = extend_vocabulary(gpt2, thai * 5, tokens=3)
    assert change.repaired and audit.marks_kept(Audited(gpt2, change, thai, thai)).passed
    assert audit.other_text_cut_as_before(Audited(gpt2, change, thai, ["a b 12"])).passed
    unrepaired = dataclasses.replace(change, tokenizer=gpt2)
    assert not audit.marks_kept(Audited(gpt2, unrepaired, thai, thai)).passed
    other = dataclasses.replace(change, tokenizer=with_pattern("ranges"))
    assert not audit.other_text_cut_as_before(Audited(gpt2, other, thai, ["don't 12"])).passed


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


def test_lint_names_what_is_wrong(tokenizer: PreTrainedTokenizerFast) -> None:
    mistral = sentencepiece_bpe(["the cat"])

    def wrong_id(data: dict) -> None:
        data["post_processor"]["special_tokens"]["<s>"]["ids"] = [77]

    assert not lint(edited(mistral, wrong_id))[
        "the post-processor inserts tokens of this vocabulary"
    ]
    assert not lint(edited(mistral, twin))["no two tokens stand for the same text"]
    templated = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        chat_template="<|im_start|>{{ messages }}<|im_end|>",
    )
    checks = {check.claim: check for check in lint_tokenizer(templated)}
    found = checks["the chat template speaks of tokens that exist"]
    assert (
        not found.passed and "'<|im_end|>'" in found.detail and "<|im_start|>" not in found.detail
    )


def test_remarks_on_added_tokens(change: VocabularyChange) -> None:
    remarks = describe_added(change)
    rare = [change.text(new) for new in change.added if change.added_counts[new] < 20]
    assert sorted(remarks["rarely_used"]) == sorted(rare)
    assert len(remarks["longest"][0]) == max(len(change.text(new)) for new in change.added)
    assert all("⟨" in token for token in remarks["fragments"]) and remarks["examples"]


def test_sentences_are_cut_at_their_marks() -> None:
    assert split_sentences(["One. Two! Three\nFour?", " "], 10) == [
        "One.",
        "Two!",
        "Three",
        "Four?",
    ]
    assert split_sentences(["a. b. c. d."], 2) == ["a.", "c."]
    assert excerpts(["x" * 5_000])[0] == "x" * 1_000
