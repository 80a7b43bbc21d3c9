import dataclasses
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from helpers.tiny import CHAT_TEMPLATES, for_chat
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import CorpusError, RecipeError
from langadapt_utils.recipe import MixtureRecipe, Schedule
from langadapt_utils.tokens import document_start
from langadapt_utils.training.mixture import Mixture, Stream, english_shares, interleave, mix, pack
from langadapt_utils.vocabulary.change import VocabularyChange

RECIPE = MixtureRecipe(sequence_length=32)


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from(["constant", "early", "annealed"]))
def test_every_stretch_has_the_english_of_its_schedule(
    sequences: int, share: float, schedule: Schedule
) -> None:
    english = english_shares(sequences, MixtureRecipe(english_share=share, schedule=schedule))
    order = interleave({"en": english, "hu": 1 - english})
    assert len(order) == sequences
    for stretch in range(1, sequences + 1):
        assert abs(order[:stretch].count("en") - english[:stretch].sum()) <= 1


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=6), st.integers(1, 200))
def test_many_streams_keep_their_shares(weights: list[float], sequences: int) -> None:
    shares = {str(i): np.full(sequences, weight / sum(weights)) for i, weight in enumerate(weights)}
    order = interleave(shares)
    for name, share in shares.items():
        assert abs(order.count(name) - share.sum()) <= len(weights)


def test_early_english_is_at_the_beginning_alone() -> None:
    shares = english_shares(20, MixtureRecipe(english_share=0.5, schedule="early"))
    assert shares.tolist() == [0.5] * 2 + [0.0] * 18


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_annealed_english_falls_and_keeps_its_average(share: float) -> None:
    shares = english_shares(50, MixtureRecipe(english_share=share, schedule="annealed"))
    assert shares.mean() == pytest.approx(share) and (np.diff(shares) < 0).all()
    assert shares.min() >= 0 and shares.max() <= 1


@pytest.mark.parametrize("share", [0.0, 0.125, 0.25, 0.5, 0.875, 1.0])
def test_every_optimiser_step_has_the_exact_share(share: float) -> None:
    english = np.full(80, share)
    order = interleave({"en": english, "hu": 1 - english})
    assert {order[i : i + 8].count("en") for i in range(0, 80, 8)} == {round(8 * share)}


@pytest.mark.parametrize(
    ("share", "languages"), [(0.0, {"hu"}), (1.0, {"en"}), (0.25, {"hu", "en"})]
)
def test_the_share_may_be_anything_from_0_to_1(
    share: float, languages: set[str], corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    recipe = MixtureRecipe(sequence_length=32, english_share=share)
    mixture = mix(corpora["hu"], change.tokenizer, recipe, budget_tokens=3_200)
    assert len(mixture) == 100 and set(mixture.order) == languages
    assert mixture.share("en") == share
    assert sum(mixture[i]["part"] == 1 for i in range(100)) == round(100 * share)


def test_sequences_are_the_training_documents_end_to_end(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    mixture = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=32_000)
    start = document_start(change.tokenizer)
    stream = np.concatenate(
        [mixture[i]["input_ids"] for i in range(len(mixture)) if mixture[i]["part"] == 0]
    )
    documents = np.split(stream, np.flatnonzero(stream == start))
    assert len(documents[0]) == 0
    train = set(corpora["hu"].train["hu"]["text"])
    whole = [change.tokenizer.decode(ids[1:]) for ids in documents[1:-1]]
    assert len(whole) > 10 and all(text in train for text in whole)


def test_held_out_text_is_never_seen(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    corpus = corpora["hu"]
    mixture = mix(corpus, change.tokenizer, RECIPE, budget_tokens=150_000)
    seen = change.tokenizer.decode(
        np.concatenate([mixture[i]["input_ids"] for i in range(len(mixture))])
    )
    sentences = [s for code in ("en", "hu") for s in corpus.parallel[code] if len(s) > 40]
    assert len(sentences) > 500 and not [s for s in sentences if s in seen]


def test_passes_say_how_often_a_text_is_seen(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    texts = list(corpora["hu"].train["hu"]["text"])
    size = sum(len(ids) + 1 for ids in change.tokenizer(texts)["input_ids"])
    mixture = mix(
        corpora["hu"],
        change.tokenizer,
        MixtureRecipe(sequence_length=32, english_share=0),
        budget_tokens=3 * size,
    )
    assert mixture.passes["hu"] == pytest.approx(3, abs=0.02)


def test_each_sequence_knows_its_bytes(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    mixture = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=640)
    vocabulary = {index: token for token, index in change.tokenizer.get_vocab().items()}
    for i in range(len(mixture)):
        item = mixture[i]
        tokens = [vocabulary[index] for index in item["input_ids"][item["position_ids"] > 0]]
        assert item["bytes"] == sum(len(token) for token in tokens if token != "<|endoftext|>")


def ids(mixture: Mixture) -> list[list[int]]:
    return [mixture[i]["input_ids"].tolist() for i in range(len(mixture))]


def test_the_order_follows_the_seed(corpora: dict[str, Corpus], change: VocabularyChange) -> None:
    one, two, other = (
        mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=640, seed=seed)
        for seed in (0, 0, 1)
    )
    assert ids(one) == ids(two) != ids(other)


def test_positions_begin_anew_in_every_document(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    mixture = mix(
        corpora["hu"], change.tokenizer, MixtureRecipe(sequence_length=128), budget_tokens=64_000
    )
    start = document_start(change.tokenizer)
    for i in range(len(mixture)):
        tokens, positions = mixture[i]["input_ids"], mixture[i]["position_ids"]
        begins = np.flatnonzero(positions == 0)
        assert begins[0] == 0 and set(begins[1:]) == set(np.flatnonzero(tokens == start)) - {0}
        assert np.array_equal(
            positions, np.arange(128) - np.repeat(begins, np.diff([*begins, 128]))
        )


def test_each_pass_has_every_document_once_in_an_order_of_its_own(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    recipe = MixtureRecipe(sequence_length=16, english_share=0)
    texts = corpora["hu"].train["hu"].select(range(12))
    corpus = dataclasses.replace(corpora["hu"], train=corpora["hu"].train | {"hu": texts})
    size = sum(len(ids) + 1 for ids in change.tokenizer(list(texts["text"]))["input_ids"])
    mixture = mix(corpus, change.tokenizer, recipe, budget_tokens=3 * size)
    stream, start = np.concatenate(ids(mixture)), document_start(change.tokenizer)
    documents = [
        change.tokenizer.decode(part[1:])
        for part in np.split(stream, np.flatnonzero(stream == start))[1:]
    ]
    passes = [documents[begin : begin + 12] for begin in (0, 12)]
    assert (
        sorted(passes[0]) == sorted(passes[1]) == sorted(texts["text"]) and passes[0] != passes[1]
    )


@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3),
    st.integers(1, 12),
)
def test_a_stream_is_its_documents_end_to_end_in_passes(shards: list[list[int]], T: int) -> None:
    """The plain reference: all passes written out, token by token."""
    sizes = [size for shard in shards for size in shard]
    begins = np.cumsum([0, *sizes])
    parts = np.split(
        np.arange(begins[-1], dtype=np.int32), np.cumsum([sum(s) for s in shards])[:-1]
    )
    visits = [place for turn in range(5) for place in np.roll(range(len(sizes)), turn)]
    stream = Stream(parts, begins, np.array(visits), T, len(sizes))
    tokens, positions = list[int](), list[int]()
    for document in visits + visits:  # after the last pass comes the first one again
        tokens += range(begins[document], begins[document + 1])
        positions += range(sizes[document])
    for index in reversed(range(len(tokens) // T)):
        ids, counted = stream.sequence(index)
        inside = slice(index * T, (index + 1) * T)
        assert ids.tolist() == tokens[inside]
        assert counted.tolist() == [min(n, i) for i, n in enumerate(positions[inside])]


def test_text_is_encoded_once_and_found_again(
    corpora: dict[str, Corpus],
    change: VocabularyChange,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr("langadapt_utils.training.mixture.SHARD_CHARACTERS", 20_000)
    monkeypatch.setattr("langadapt_utils.training.mixture.ENCODED_AT_ONCE", 7)
    first = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=32_000)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) > 2 and all(
        isinstance(shard, np.memmap) for shard in first.streams["hu"].shards
    )
    again = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=32_000)
    assert ids(again) == ids(first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files
    monkeypatch.undo()
    assert ids(mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=32_000)) == ids(first)


def test_no_more_is_encoded_than_the_run_needs(
    corpora: dict[str, Corpus], change: VocabularyChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt_utils.training.mixture.SHARD_CHARACTERS", 5_000)
    monkeypatch.setattr("langadapt_utils.training.mixture.ENCODED_AT_ONCE", 5)
    mixture = mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=3_200)
    stream = mixture.streams["hu"]
    assert len(stream.visits) < stream.documents / 2
    size = sum(
        len(ids) + 1
        for ids in change.tokenizer(list(corpora["hu"].train["hu"]["text"]))["input_ids"]
    )
    assert mixture.passes["hu"] == pytest.approx(mixture.order.count("hu") * 32 / size, rel=0.3)


def test_what_reads_like_a_special_token_is_text(change: VocabularyChange) -> None:
    start = document_start(change.tokenizer)
    name = change.tokenizer.convert_ids_to_tokens(start)
    texts = Dataset.from_dict({"text": [f"A page about {name} and how it is read."] * 7})
    stream = pack(texts, change.tokenizer, 100, 16, 0, "hu")
    assert sum(int((shard == start).sum()) for shard in stream.shards) == len(texts)


def test_a_budget_below_one_sequence_is_refused(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    with pytest.raises(CorpusError, match="less than one sequence"):
        mix(corpora["hu"], change.tokenizer, RECIPE, budget_tokens=10)


def test_a_tokenizer_without_a_start_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token=None)
    assert document_start(bare) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    from tokenizers import Tokenizer, models

    with pytest.raises(CorpusError, match="no BOS or EOS token"):
        document_start(
            PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
        )


def test_conversations_and_english_leave_room_for_the_language(
    corpora: dict[str, Corpus], change: VocabularyChange
) -> None:
    tokenizer = for_chat(change.tokenizer, CHAT_TEMPLATES["plain"])
    options = {"chat_share": 0.5, "english_share": 0.8, "sequence_length": 32}
    with pytest.raises(RecipeError, match="no sequence in the language: lower one of them"):
        mix(corpora["hu"], tokenizer, MixtureRecipe(**options), budget_tokens=3_200)
    early = MixtureRecipe(**options | {"schedule": "early"})
    mixture = mix(corpora["hu"], tokenizer, early, budget_tokens=3_200)
    assert mixture.share("hu") > 0.4
