"""A new token is counted as often as text uses it, so that no place in the vocabulary is wasted."""

import json
from collections import Counter
from collections.abc import Callable
from unicodedata import normalize

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from helpers.tiny import sentencepiece_bpe, train_tokenizer, unigram
from helpers.vocabularies import failed, run_checks_of_notebook_2, with_pattern
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.tokens import token_ids
from langadapt_utils.vocabulary.audit import lint_tokenizer
from langadapt_utils.vocabulary.change import split_sentences
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.patterns import find_cuts, propose_repair, without_model

Texts = list[str]
UZBEK = ["Shu to'siq va ta'lim haqida, san'at emas.", "To'siq katta, ta'lim esa kichik ma'no."]
NFD = normalize("NFD", "tükörfúrógép")
HUNGARIAN = ["A tükörfúrógép tükörfúrója kicsi.", "Két tükörfúrógép tükre törött."]
PERSIAN = ["می‌خواهم کتاب‌ها را ببینم و نمی‌توانم."]
CONTRACTIONS = ["It's a dog's life, isn't it? They don't, he's sure we'll see."]


def with_prefix_space(texts: Texts) -> PreTrainedTokenizerFast:
    """As `ByteLevel(use_regex=False)` makes it: each pre-token gets a space."""
    data = json.loads(train_tokenizer(texts, 400).backend_tokenizer.to_str())
    cut = {"type": "Split", "pattern": {"Regex": r"\p{L}+|[^\p{L}]"}, "behavior": "Isolated"}
    spaces = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    parts = [cut | {"invert": False}, spaces | {"use_regex": False}]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    backend = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def with_added_nfd(texts: Texts) -> PreTrainedTokenizerFast:
    """A token that was typed in another normal form than the one the base reads."""
    base = train_tokenizer(texts, 400)
    base.backend_tokenizer.normalizer = normalizers.NFC()
    base.add_tokens([NFD])
    return base


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (lambda texts: sentencepiece_bpe(texts, 500), UZBEK),
        (lambda texts: sentencepiece_bpe(texts, 500, metaspace=True), UZBEK),
        (with_added_nfd, HUNGARIAN),
        (with_prefix_space, UZBEK),
    ],
)
def test_new_tokens_are_counted_as_text_uses_them(
    make: Callable[[Texts], PreTrainedTokenizerFast], texts: Texts, corpora: dict[str, Corpus]
) -> None:
    english = list(corpora["hu"].train["en"]["text"])[:60] + CONTRACTIONS * 30
    change = extend_vocabulary(make(english), texts * 50, tokens=12)
    uses = Counter(token for ids in token_ids(change.tokenizer, texts * 50) for token in ids)
    inner = {token for token in change.added if not change.added_counts[token]}
    assert not failed(change) and 2 * len(inner) < len(change.added)
    # A token may also be used at a border of the text, which is not counted.
    assert all(uses[n] >= 0.9 * change.added_counts[n] for n in change.added)


@pytest.mark.parametrize(
    "classes", [r" ?\w+| ?[^\s\w]+|\s+", r" ?[\p{L}&&[^\p{Han}]]+|[^\p{L}]+|.", r"[\w']+|."]
)
def test_classes_that_differ_between_libraries_are_repaired(classes: str) -> None:
    """`\\w` without joiners, and intersections."""
    base = train_tokenizer(["some text"] * 9, size=270, pattern=classes)
    assert find_cuts(base.backend_tokenizer.pre_tokenizer, PERSIAN)[0]
    repair = propose_repair(base, PERSIAN * 9)
    assert repair is not None
    cutter = without_model({"pre_tokenizer": repair.pre_tokenizer}).pre_tokenizer
    assert not find_cuts(cutter, PERSIAN)[0]


def test_a_repair_that_does_not_help_is_not_made() -> None:
    """A lookahead decides in this pattern; stage 1 says what it splits, and a run goes on."""
    words = r"((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|[^\p{L}]"
    base, texts = train_tokenizer(["some text"] * 9, size=270, pattern=words), ["ที่นี่มีน้ำอยู่"] * 9
    assert propose_repair(base, texts) is None
    assert not failed(extend_vocabulary(base, texts, tokens=5))
    (check,) = (c for c in lint_tokenizer(base, texts) if "marks" in c.claim)
    assert not check.passed and "are cut" in check.detail
    usual = lint_tokenizer(with_pattern("gpt2"), ["árvíztűrő", *CONTRACTIONS])
    assert all(check.passed for check in usual if "marks" in check.claim)


def test_closing_marks_belong_to_the_sentence_before_them() -> None:
    quoted = "彼は「今日は雨だ。」と言った。"
    assert split_sentences([quoted], 9) == ["彼は「今日は雨だ。」", "と言った。"]


def test_text_without_words_has_no_figures_per_word() -> None:
    report = la.measure_fertility({"a": train_tokenizer(["some text"] * 9, 270)}, {"hu": ["…!?"]})
    assert report.value("a", "hu", "tokens") > 0
    words = report.value("a", "hu", "tokens_per_word")
    assert words != words  # NaN


def test_a_base_with_unknown_characters_may_gain_text() -> None:
    """The adapted tokenizer gives the text back where the base gives `<unk>`."""
    base = unigram(CONTRACTIONS * 20)
    sample = "őrült űrhajó"
    change = extend_vocabulary(base, [sample] * 50, tokens=6)
    given_back = [t.decode(*token_ids(t, [sample])) for t in (base, change.tokenizer)]
    assert given_back[0] != given_back[1] == sample
    run_checks_of_notebook_2(base, change, sample)
