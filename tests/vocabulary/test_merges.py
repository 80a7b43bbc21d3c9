"""Counting words as a stream, and learning merges on them."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.tiny import train_tokenizer
from helpers.vocabularies import PATTERNS
from langadapt_utils.tokens import as_surfaces, as_words
from langadapt_utils.vocabulary import merges
from langadapt_utils.vocabulary.change import SENTENCE
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.merges import (
    SEPARATOR,
    count_words,
    learn_merges,
    thin,
    token_counts,
)
from langadapt_utils.vocabulary.tokenizer_json import Spec


@given(
    texts=st.lists(st.text(max_size=30) | st.text("ab 1.\n\t\u0301\x00 ", max_size=20), max_size=8)
)
@settings(deadline=None)
def test_word_counts_are_those_of_the_pre_tokenizer(texts: list[str]) -> None:
    cutter = Tokenizer(models.BPE())
    cutter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.normalizer = normalizers.NFC()
    expected = Counter(
        piece
        for text in texts
        for piece, _ in cutter.pre_tokenizer.pre_tokenize_str(cutter.normalizer.normalize_str(text))
    )
    assert count_words(cutter, texts) == expected


def test_a_tokenizer_whose_words_cross_spaces_is_counted_right() -> None:
    cutter = Tokenizer(models.BPE())
    cutter.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    assert count_words(cutter, ["a b", "a b", "c"]) == {"▁a▁b": 2, "▁c": 1}


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_spec_counts_the_words_of_its_tokenizer(pattern: str, prefix: bool) -> None:
    tokenizer = train_tokenizer(["some English text"], size=270, pattern=PATTERNS[pattern])
    if pattern == "gpt2":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix),
            ]
        )
    spec, pre_tokenizer = Spec.of(tokenizer), tokenizer.backend_tokenizer.pre_tokenizer

    @given(text=st.text("ab1.'\n\r\t\u0301ก\x00  ", max_size=40) | st.text(max_size=40))
    @settings(deadline=None)
    def holds(text: str) -> None:
        words = as_words(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))
        parts = [part for word in words for part in SENTENCE.split(word) if part]
        assert spec.count_words([text]) == Counter(as_surfaces(parts))

    holds()


def test_counting_is_the_same_in_any_chunks(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["egy kettő három", "kettő, három", "ไทย ไทย", ""] * 30
    whole = Spec.of(tokenizer).count_words(texts)
    monkeypatch.setattr(merges, "CHUNK", 10)
    assert Spec.of(tokenizer).count_words(iter(texts)) == whole


def test_thinning_has_a_bound_and_is_unbiased() -> None:
    counts = {f"word{index:05}": 1 + index % 5 for index in range(20_000)} | {"often": 5_000}
    thinned = thin(counts, 40_000)
    assert sum(map(len, thinned)) <= 40_000 and thinned["often"] == 5_000
    assert sum(thinned.values()) == pytest.approx(sum(counts.values()), rel=0.05)
    assert thin(counts, 40_000) == thinned and thin({"a": 1}, 10) == {"a": 1}


def test_memory_is_bounded_by_distinct_words(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "CHUNK", 2_000)
    texts = [f"szó{index} ház ház ház" for index in range(4_000)]
    counts = count_words(tokenizer.backend_tokenizer, texts, most=6_000)
    assert sum(map(len, counts)) <= 6_000
    assert counts["ĠhÃ¡z"] == 3 * 4_000


def test_merges_are_those_of_plain_continued_bpe() -> None:
    """Against byte-pair encoding written out: the most frequent pair of neighbours, again and
    again.
    """
    base = train_tokenizer(["the cat sat"] * 5, size=262)
    words = {"Ġszép": 50, "Ġszépen": 20, "Ġházban": 30, "Ġház": 44, "Ġcat": 7}
    spec = Spec.of(base)
    learned = [merge for merge in learn_merges(spec.bare, words, 6) if merge]
    assert len(learned) == 6
    spelled = {word: spec.bare.encode(word).tokens for word in words}
    for merge in learned:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        assert pairs[merge.parts] == max(pairs.values()) == merge.count
        for word, parts in spelled.items():
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == merge.parts:
                    joined[-1] += part
                else:
                    joined.append(part)
            spelled[word] = joined


def test_rare_pairs_and_boundaries_are_not_merged() -> None:
    spec = Spec.of(train_tokenizer(["the cat sat"] * 5, size=262))
    words = {"Ġszép": 5, "Ġház": 2}
    ids = spec.bare.encode("z").ids
    assert learn_merges(spec.bare, words, 50, min_frequency=6) == []
    free, bound = (
        learn_merges(spec.bare, words, 50),
        learn_merges(spec.bare, words, 50, boundaries=ids),
    )
    assert any("z" in merge.surface for merge in free if merge)
    assert bound and not any("z" in merge.surface for merge in bound if merge)


@pytest.mark.parametrize("limit", [0, 10_000])
def test_tokens_made_otherwise_stand_where_they_save_as_much_as_merges_do(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "SURE", limit)
    spec = Spec.of(train_tokenizer(["the cat sat"] * 5, size=262))
    words = {"Ġszép": 50, "Ġszépen": 20, "Ġházban": 30, "Ġház": 44, "Ġcat": 7}
    rivals = [60, 30, 30, 8]
    ranked = learn_merges(spec.bare, words, 40, rivals=rivals)
    assert [merge for merge in ranked if merge] == learn_merges(spec.bare, words, 36)
    places = [place for place, merge in enumerate(ranked) if merge is None]
    assert len(places) == len(rivals)
    for place, saved in zip(places, rivals, strict=True):
        before = [merge.count for merge in ranked[:place] if merge]
        after = [merge.count for merge in ranked[place:] if merge]
        if limit:
            assert all(applied <= saved for applied in after) and all(
                applied > saved for applied in before
            )
    assert limit or places == [0, 1, 2, 3]


def test_no_token_is_made_of_more_base_tokens_than_allowed() -> None:
    spec = Spec.of(train_tokenizer(["the cat sat"] * 5, size=262))
    word = "Ġkőszívű"
    for longest in (2, 3, 5):
        learned = [
            merge for merge in learn_merges(spec.bare, {word: 9}, 50, longest=longest) if merge
        ]
        sizes = [len(spec.bare.encode(merge.surface).ids) for merge in learned]
        assert max(sizes) <= longest and len(sizes) > 1


def test_a_word_that_holds_the_separator_is_left_out() -> None:
    model = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, SEPARATOR: 2}, merges=[]))
    model.add_special_tokens([SEPARATOR])
    counts = token_counts(model, {"ab": 3, f"a{SEPARATOR}b": 2, "b": 1})
    assert counts == {"a": 3, "b": 4}


def test_one_very_long_word_is_learned_and_encoded(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "őűáé" * 250_000  # 2 MB without a space
    change = extend_vocabulary(tokenizer, [text], tokens=8)
    assert (
        not change.unreachable and [check.claim for check in change.audit if not check.passed] == []
    )
    ids = change.tokenizer(text[:40_000], add_special_tokens=False)["input_ids"]
    assert len(ids) < 40_000 / 3 and change.tokenizer.decode(ids) == text[:40_000]


def test_private_use_characters_in_the_text_are_learned_as_any_other(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "\U00010000\U00010001 \ue000\ue001 \U000f0000 \x00\x00 \uffff\n"
    change = extend_vocabulary(tokenizer, [text * 20], tokens=12)
    assert change.tokenizer.decode(change.tokenizer(text)["input_ids"]) == text
    assert not change.unreachable and json.dumps(list(change.added.values()))
