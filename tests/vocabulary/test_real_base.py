"""The vocabulary of the real base model, grown for both languages and by replacing."""

import numpy as np
import pytest
from hypothesis import given, settings

from helpers.vocabularies import TEXT, decode, encode, english, failed, token_total
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import Base
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.tokenizer_json import Spec


@pytest.fixture(scope="module")
def real(base: Base, corpora: dict[str, Corpus]) -> dict[str, VocabularyChange]:
    """The real base tokenizer grown for both languages, and once by replacing."""
    grown = {
        language: extend_vocabulary(
            base.tokenizer, corpus.train[language]["text"], tokens=1_000, others=english(corpora)
        )
        for language, corpus in corpora.items()
    }
    texts = corpora["hu"].train["hu"]["text"]
    replaced = extend_vocabulary(
        base.tokenizer, texts, tokens=1_000, others=english(corpora), mode="replace"
    )
    return {**grown, "replace": replaced}


@pytest.mark.base
@pytest.mark.parametrize("name", ["hu", "th", "replace"])
def test_the_audit_of_the_real_tokenizer_passes(
    name: str, real: dict[str, VocabularyChange]
) -> None:
    assert failed(real[name]) == []
    assert len(real[name].added) == 1_000 and real[name].unreachable == ()
    assert bool(real[name].pattern_repair) == (name == "th")


@pytest.mark.base
@pytest.mark.parametrize("name", ["hu", "th", "replace"])
@given(text=TEXT)
@settings(deadline=None, max_examples=150)
def test_what_the_base_round_trips_the_adapted_tokenizer_does_too(
    name: str, text: str, base: Base, real: dict[str, VocabularyChange]
) -> None:
    if decode(base.tokenizer, encode(base.tokenizer, text)) == text:
        assert decode(real[name].tokenizer, encode(real[name].tokenizer, text)) == text


@pytest.mark.base
@pytest.mark.parametrize(("name", "share"), [("hu", 0.98), ("th", 1.0)])
def test_held_out_english_keeps_its_ids(
    name: str,
    share: float,
    base: Base,
    real: dict[str, VocabularyChange],
    corpora: dict[str, Corpus],
) -> None:
    sentences = corpora["hu"].parallel["en"].tolist()
    same = sum(
        encode(base.tokenizer, text) == encode(real[name].tokenizer, text) for text in sentences
    )
    assert same / len(sentences) >= share
    assert token_total(real[name].tokenizer, sentences) <= token_total(base.tokenizer, sentences)


@pytest.mark.base
def test_the_real_tokenizer_gets_much_cheaper(
    base: Base, real: dict[str, VocabularyChange], corpora: dict[str, Corpus]
) -> None:
    for language, at_most in (("hu", 0.72), ("th", 0.28)):
        sentences = corpora[language].parallel[language].tolist()
        assert token_total(real[language].tokenizer, sentences) <= at_most * token_total(
            base.tokenizer, sentences
        )


@pytest.mark.base
def test_missing_bytes_get_tokens_when_asked(base: Base, corpora: dict[str, Corpus]) -> None:
    missing = Spec.of(base.tokenizer).missing_bytes()
    assert len(missing) == 21
    change = extend_vocabulary(
        base.tokenizer,
        corpora["hu"].train["hu"]["text"],
        tokens=50,
        others=english(corpora),
        complete_bytes=True,
    )
    assert failed(change) == [] and len(change.added) == 50
    assert (
        set(missing) <= set(change.added.values()) and not Spec.of(change.tokenizer).missing_bytes()
    )
    assert all(
        len(old) > 1 for new, old in change.base_pieces.items() if change.added[new] in missing
    )
    text = "\U000c0000 \x1f"  # a plane whose first byte SmolLM2 cannot write
    assert decode(change.tokenizer, encode(change.tokenizer, text)) == text


@pytest.mark.base
def test_a_million_random_strings_come_back(base: Base, corpora: dict[str, Corpus]) -> None:
    """With a token for every byte nothing may be lost, whatever the text."""
    change = extend_vocabulary(
        base.tokenizer,
        corpora["th"].train["th"]["text"],
        tokens=1_000,
        others=english(corpora),
        complete_bytes=True,
    )
    generator = np.random.default_rng(0)
    alphabets = [
        np.setdiff1d(
            np.arange(0x110000), np.arange(0xD800, 0xE000)
        ),  # all of Unicode but surrogates
        np.arange(0x250),
        np.r_[np.arange(0xE00, 0xE5C), 0x20, 0x200B, 0x200D],
        np.array([ord(c) for c in " \n\t\r.,'sőűá▁Ġ\x00\ue000\uffff🙂\ufe0f\u0301"]),
    ]
    backend, count, length = change.tokenizer.backend_tokenizer, 0, 7
    for alphabet in alphabets:
        for _ in range(10):
            points = generator.choice(alphabet, size=25_000 * length).astype("<u4")
            whole = points.tobytes().decode("utf-32-le")
            texts = [whole[at : at + length] for at in range(0, len(whole), length)]
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
            assert (
                backend.decode_batch([e.ids for e in encodings], skip_special_tokens=False) == texts
            )
            count += len(texts)
    assert count == 1_000_000
