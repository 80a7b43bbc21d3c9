"""A new token is counted as often as text uses it, so that no place in the vocabulary is wasted."""

import json
from collections import Counter
from collections.abc import Callable
from unicodedata import normalize

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
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
from langadapt_utils.vocabulary.tokenizer_json import Spec

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


def test_an_added_token_that_is_no_part_of_words_hides_no_word(corpora: dict[str, Corpus]) -> None:
    texts = list(corpora["hu"].train["hu"]["text"])
    base = train_tokenizer(list(corpora["hu"].train["en"]["text"]), 400)
    plain = extend_vocabulary(base, texts, tokens=300)
    base.add_tokens([AddedToken("a", single_word=True)])
    change = extend_vocabulary(base, texts, tokens=300)
    learned = [sum("a" in each.text(new) for new in each.added) for each in (plain, change)]
    assert learned[1] > learned[0] / 2 > 0


def test_added_tokens_that_text_never_has_hide_no_word(corpora: dict[str, Corpus]) -> None:
    """SentencePiece looks for its own spelling of them, `▁▁ho`."""
    base = sentencepiece_bpe(list(corpora["hu"].train["en"]["text"]), 700)
    base.add_tokens(["▁ho"])
    assert "▁hogy" in Spec.of(base).count_words(corpora["hu"].train["hu"]["text"])


@pytest.mark.parametrize(
    "token", [AddedToken("anguag", single_word=True), AddedToken("▁language", normalized=False)]
)
def test_an_added_token_is_no_piece_of_a_word(
    token: AddedToken, corpora: dict[str, Corpus]
) -> None:
    english = list(corpora["hu"].train["en"]["text"])
    base = unigram(english, 200)
    base.add_tokens([token])
    others, protect = {"en": english}, {"en": 1.0}
    texts = list(corpora["hu"].train["hu"]["text"])
    change = extend_vocabulary(base, texts, tokens=5, others=others, protect=protect)
    assert token_ids(base, english) == token_ids(change.tokenizer, english)


@pytest.mark.parametrize("tokens", [300, 1_000])
def test_scores_that_tie_are_the_same_after_saving(tokens: int, corpora: dict[str, Corpus]) -> None:
    base = unigram(list(corpora["th"].train["en"]["text"]), 600)
    change = extend_vocabulary(base, list(corpora["th"].train["th"]["text"]), tokens=tokens)
    assert not failed(change)


def test_no_new_token_crosses_the_end_of_a_sentence(corpora: dict[str, Corpus]) -> None:
    """Also if words are not split, because sentences are protected one by one."""
    english = list(corpora["hu"].train["en"]["text"])
    data = json.loads(train_tokenizer(english[:2], 270).backend_tokenizer.to_str())
    data["pre_tokenizer"] |= {"use_regex": False}
    base = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)), eos_token="<|endoftext|>"
    )
    texts = list(corpora["hu"].train["hu"]["text"])
    others, protect = {"en": english}, {"en": 1.0}
    change = extend_vocabulary(base, texts, tokens=60, others=others, protect=protect)
    assert token_ids(base, english) == token_ids(change.tokenizer, english)
    assert any(" " in change.text(new).strip() for new in change.added)


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
