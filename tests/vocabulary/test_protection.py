"""Sentences of other languages that keep their exact ids."""

from collections.abc import Callable

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, train_tokenizer, unigram
from helpers.vocabularies import encode, english, failed, token_total
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import VocabularyError
from langadapt_utils.tokens import token_ids
from langadapt_utils.vocabulary.extend import extend_vocabulary


def changed_share(
    base: PreTrainedTokenizerFast, adapted: PreTrainedTokenizerFast, sentences: list[str]
) -> float:
    return sum(encode(base, s) != encode(adapted, s) for s in sentences) / len(sentences)


@pytest.mark.parametrize("share", [0.9, 0.99, 1.0])
def test_protected_sentences_keep_their_exact_ids(
    share: float, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    free = extend_vocabulary(tokenizer, texts, tokens=150, others=english(corpora))
    change = extend_vocabulary(
        tokenizer, texts, tokens=150, others=english(corpora), protect={"en": share}
    )
    effect = change.effects["en"]
    assert failed(change) == [] and len(change.added) == 150 and not change.unreachable
    assert effect.protected == share and effect.kept >= share > free.effects["en"].kept
    assert (
        change.protection_cost
        and change.protection_cost.dropped > 0
        and change.protection_cost.tokens > change.protection_cost.tokens_unprotected
    )
    assert change.protection_cost.tokens == token_total(change.tokenizer, list(texts))
    assert change.protection_cost.tokens_unprotected == token_total(free.tokenizer, list(texts))


def test_any_language_can_be_protected(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    """Hungarian tokens must leave a language alone that shares its letters."""
    german = [
        "die Größe der Häuser",
        "schön grün und böse",
        "mit zwei Fenstern",
        "das Gesetz",
        "Verkehr",
    ]
    texts = corpora["hu"].train["hu"]["text"]
    free = extend_vocabulary(tokenizer, texts, tokens=150, others={"de": german})
    kept = extend_vocabulary(
        tokenizer, texts, tokens=150, others={"de": german}, protect={"de": 1.0}
    )
    assert (
        changed_share(tokenizer, free.tokenizer, german)
        > 0
        == changed_share(tokenizer, kept.tokenizer, german)
    )


def test_a_contract_that_cannot_be_kept_is_refused() -> None:
    """A base that joined marks to what follows them loses those tokens by the repair, whatever else
    is left out.
    """
    base = train_tokenizer(["ก่! ก่! ก่!"] * 50, size=270)
    texts, lao = ["ที่นี่ ที่นี่ กี่ปี่"] * 5, {"lo": ["ก่!"]}
    with pytest.raises(
        VocabularyError, match="1 of 1 sentences in 'lo' change even without new tokens"
    ):
        extend_vocabulary(base, texts, tokens=2, others=lao, protect={"lo": 1.0})
    unrepaired = extend_vocabulary(
        base, texts, tokens=2, others=lao, protect={"lo": 1.0}, repair_script=False
    )
    assert unrepaired.effects["lo"].changed == 0


PROSE = [f"We {verb} the book.\nThen we slept.\n" for verb in ("read", "saw", "took", "held")] * 9
MARKS = ["a - b -c e-d f- g (h) i"] * 9


@pytest.mark.parametrize(
    ("made", "junction"),
    [
        (lambda: sentencepiece_bpe([*PROSE, *MARKS], size=330), "\n- "),
        (lambda: unigram([*PROSE, *MARKS], size=90), "\n- "),
        (lambda: train_tokenizer([*PROSE, *MARKS], 300, r" ?[^\s\p{P}]+|[\p{P} ]+"), " ("),
    ],
    ids=["SentencePiece", "Unigram", "punctuation with spaces"],
)
def test_what_crosses_the_end_of_a_sentence_is_no_token(
    made: Callable[[], PreTrainedTokenizerFast], junction: str
) -> None:
    """Protection is measured by sentences and would not see it."""
    base = made()
    target = [junction.join(["Itt a lista.", "első dolog.", "második dolog.", "Vége van."])] * 300
    english = [junction.join(["The list is here.", "first thing.", "second thing.", "End."])] * 60
    options = {"tokens": 12, "others": {"en": english}, "protect": {"en": 1.0}}
    change = extend_vocabulary(base, target, **options)
    assert change.effects["en"].kept == 1.0
    assert token_ids(base, english) == token_ids(change.tokenizer, english)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["SentencePiece", "Unigram"])
def test_line_ends_are_protected_though_a_normalizer_strips_texts(family: str, side: str) -> None:
    plain = sentencepiece_bpe(PROSE * 9, 300) if family == "SentencePiece" else unigram(PROSE, 60)
    strip = normalizers.Strip(left=side == "left", right=side == "right")
    known = plain.backend_tokenizer.normalizer
    plain.backend_tokenizer.normalizer = normalizers.Sequence([strip, *([known] if known else [])])
    target = ["Itt a lista.\nElső dolog.\nMásodik dolog.\nVége van."] * 300
    english = ["The list is here.\nFirst thing.\nSecond thing.\nEnd."] * 60
    options = {"tokens": 12, "others": {"en": english}, "protect": {"en": 1.0}}
    change = extend_vocabulary(plain, target, **options)
    assert token_ids(plain, english) == token_ids(change.tokenizer, english)


def test_documents_with_added_tokens_are_protected_as_they_are_read(
    corpora: dict[str, Corpus],
) -> None:
    """Metaspace puts a space after an added token, too."""
    base = unigram(list(corpora["hu"].train["en"]["text"]), 400)
    base.add_tokens(["cat"])
    lines = ["The category of cats, a cat in catalogues."] * 40
    texts = list(corpora["hu"].train["hu"]["text"])[:200]
    change = extend_vocabulary(base, texts, tokens=5, others={"en": lines}, protect={"en": 1.0})
    assert token_ids(base, lines) == token_ids(change.tokenizer, lines)
    assert change.effects["en"].kept == 1 and not failed(change)
