from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from langadapt_utils.changes import VocabularyChange
from langadapt_utils.corpus import Corpus
from langadapt_utils.errors import CorpusError
from langadapt_utils.mixture import interleave, mix
from langadapt_utils.recipe import MixtureRecipe
from langadapt_utils.tokens import document_start

RECIPE = MixtureRecipe(sequence_length=32)


@given(st.integers(1, 400), st.floats(0, 1))
def test_every_stretch_has_the_same_share_of_english(sequences: int, share: float) -> None:
    order = interleave(sequences, share, "hu")
    assert len(order) == sequences
    for stretch in range(1, sequences + 1):
        assert abs(order[:stretch].count("en") - share * stretch) <= 1


@pytest.mark.parametrize(("share", "languages"), [(0.0, {"hu"}), (1.0, {"en"}), (0.25, {"hu", "en"})])
def test_the_share_may_be_anything_from_0_to_1(
    share: float, languages: set[str], corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    recipe = MixtureRecipe(sequence_length=32, english_share=share)
    mixture = mix(corpora["hu"], change.tokenizer, recipe, budget_tokens=3_200)
    assert len(mixture) == 100 and set(mixture.order) == languages
    assert mixture.share("en") == share
    assert sum(mixture[i]["is_english"] for i in range(100)) == round(100 * share)


def test_sequences_are_the_training_documents_end_to_end(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    mixture = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=32_000)
    start = document_start(change.tokenizer)
    stream = np.concatenate([mixture[i]["input_ids"] for i in range(len(mixture)) if not mixture[i]["is_english"]])
    documents = np.split(stream, np.flatnonzero(stream == start))
    assert len(documents[0]) == 0
    train = set(corpora["hu"].train["hu"]["text"])
    whole = [change.tokenizer.decode(ids[1:]) for ids in documents[1:-1]]
    assert len(whole) > 10 and all(text in train for text in whole)


def test_held_out_text_is_never_seen(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    corpus = corpora["hu"]
    mixture = mix(corpus, change.tokenizer, RECIPE, budget_tokens=150_000)
    seen = change.tokenizer.decode(np.concatenate([mixture[i]["input_ids"] for i in range(len(mixture))]))
    sentences = [s for code in ("en", "hu") for s in corpus.parallel[code] if len(s) > 40]
    assert len(sentences) > 500 and not [s for s in sentences if s in seen]


def test_passes_say_how_often_a_text_is_seen(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    texts = list(corpora["hu"].train["hu"]["text"])
    size = sum(len(ids) + 1 for ids in change.tokenizer(texts)["input_ids"])
    mixture = mix(
        corpora["hu"], change.tokenizer, MixtureRecipe(sequence_length=32, english_share=0), budget_tokens=3 * size
    )
    assert mixture.passes["hu"] == pytest.approx(3, abs=0.02)


def test_each_sequence_knows_its_bytes(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    mixture = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=640)
    vocabulary = {index: token for token, index in change.tokenizer.get_vocab().items()}
    for i in range(len(mixture)):
        tokens = [vocabulary[index] for index in mixture[i]["input_ids"][1:]]
        assert mixture[i]["bytes"] == sum(len(token) for token in tokens if token != "<|endoftext|>")


def test_the_order_follows_the_seed(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    one, two, other = (
        mix(corpora["hu"], change.tokenizer, MixtureRecipe(sequence_length=32, seed=seed), budget_tokens=640).blocks[
            "hu"
        ]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_budget_below_one_sequence_is_refused(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    with pytest.raises(CorpusError, match="less than one sequence"):
        mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=10)


def test_a_tokenizer_without_a_start_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token=None)
    assert document_start(bare) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    from tokenizers import Tokenizer, models

    with pytest.raises(CorpusError, match="neither a BOS nor an EOS"):
        document_start(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, []))))
