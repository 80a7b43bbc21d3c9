"""An audit must find what is wrong: each check is shown a tokenizer or a change that breaks it."""

import dataclasses
import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, train_tokenizer
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import Base
from langadapt_utils.vocabulary.audit import (
    audit_vocabulary,
    describe_added,
    excerpts,
    lint_tokenizer,
)
from langadapt_utils.vocabulary.change import Effect, VocabularyChange, split_sentences
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


def test_each_fault_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    new = next(iter(change.added))
    faults = {
        "every added token can be produced": {"unreachable": (new,)},
        "every added token is spelled by base tokens": {
            "base_pieces": {**change.base_pieces, new: (5,)}
        },
        "text in en takes at most 0.1% more tokens": {
            "effects": {"en": Effect(10, 1, 1_000, 1_002)}
        },
        "99.90% of the sentences in en keep their ids": {
            "effects": {"en": Effect(1_000, 2, 9, 9, protected=0.999)}
        },
        "all other tokens keep their ids": {"new_to_old": {**change.new_to_old, 7: 8, 8: 7}},
    }
    for claim, fields in faults.items():
        assert claim in broken(dataclasses.replace(change, **fields), tokenizer, corpora), claim
    nothing = dataclasses.replace(change, base_pieces={**change.base_pieces, new: ()})
    assert "every added token is spelled by base tokens" in broken(nothing, tokenizer, corpora)


def test_broken_tokenizers_are_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    def forget(data: dict) -> None:
        data["decoder"] = {"type": "Fuse"}

    def special(data: dict) -> None:
        data["added_tokens"][0]["content"] = "<|other|>"
        data["model"]["vocab"]["<|other|>"] = data["model"]["vocab"].pop("<|endoftext|>")

    faults = {
        "text comes back from its tokens as before": edited(change.tokenizer, forget),
        "the target language takes fewer tokens, or fewer unknown ones": tokenizer,
    }
    for claim, fault in faults.items():
        assert claim in broken(dataclasses.replace(change, tokenizer=fault), tokenizer, corpora), (
            claim
        )
    other = dataclasses.replace(
        change, tokenizer=train_tokenizer(["quite another text"], size=len(tokenizer))
    )
    assert "all other tokens keep their ids" in broken(other, tokenizer, corpora)


def test_a_token_that_looks_special_is_found(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    new = next(iter(change.added))
    clash = dataclasses.replace(change, added={**change.added, new: "Ġ<|im_start|>"})
    assert "no added token looks like a special token" in broken(clash, tokenizer, corpora)


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

    def twin(data: dict) -> None:
        data["model"]["vocab"][" "] = 1 + max(data["model"]["vocab"].values())

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
