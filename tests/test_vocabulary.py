import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from conftest import train_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus import Corpus
from langadapt_utils.errors import VocabularyError
from langadapt_utils.sources import Base, load_tokenizer
from langadapt_utils.vocabulary import (
    VocabularyChange,
    cuts_clusters,
    extend_vocabulary,
    letters_with_marks,
    word_counts,
)

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Whatever people type: any Unicode, and much of the scripts that this is about.
TEXT = st.text(max_size=50) | st.text("aábcdeéőű ศกุ์่าเ0123456789.,'\n\t", max_size=50)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def token_total(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> int:
    return sum(len(encode(tokenizer, text)) for text in texts)


@pytest.fixture(scope="module")
def real(base: Base, corpora: dict[str, Corpus]) -> dict[str, VocabularyChange]:
    """The real base tokenizer grown for both languages, and once by replacing."""
    grown = {
        language: extend_vocabulary(
            base.tokenizer, corpus.train[language]["text"], tokens=1_000, english=corpus.train["en"]["text"]
        )
        for language, corpus in corpora.items()
    }
    train = corpora["hu"].train
    replaced = extend_vocabulary(
        base.tokenizer, train["hu"]["text"], tokens=1_000, english=train["en"]["text"], mode="replace"
    )
    return {**grown, "replace": replaced}


@pytest.mark.base
@pytest.mark.parametrize("name", ["hu", "th", "replace"])
def test_the_audit_of_the_real_tokenizer_passes(name: str, real: dict[str, VocabularyChange]) -> None:
    assert [check.claim for check in real[name].audit if not check.passed] == []
    assert len(real[name].added) == 1_000 and real[name].unreachable == ()
    assert real[name].repaired == (name == "th")


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
    name: str, share: float, base: Base, real: dict[str, VocabularyChange], corpora: dict[str, Corpus]
) -> None:
    sentences = corpora["hu"].parallel["en"].tolist()
    same = sum(encode(base.tokenizer, text) == encode(real[name].tokenizer, text) for text in sentences)
    assert same / len(sentences) >= share
    assert token_total(real[name].tokenizer, sentences) <= token_total(base.tokenizer, sentences)


@pytest.mark.base
def test_the_real_tokenizer_gets_much_cheaper(
    base: Base, real: dict[str, VocabularyChange], corpora: dict[str, Corpus]
) -> None:
    for language, at_most in (("hu", 0.72), ("th", 0.28)):
        sentences = corpora[language].parallel[language].tolist()
        assert token_total(real[language].tokenizer, sentences) <= at_most * token_total(base.tokenizer, sentences)


@given(text=TEXT)
@settings(deadline=None)
def test_text_comes_back(text: str, change: VocabularyChange) -> None:
    assert decode(change.tokenizer, encode(change.tokenizer, text)) == text


@given(text=st.text(st.characters(max_codepoint=0x2FF), max_size=60))
@settings(deadline=None)
def test_never_more_tokens_than_before(text: str, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> None:
    assert len(encode(change.tokenizer, text)) <= len(encode(tokenizer, text))


def test_every_added_token_is_reachable_and_spelled(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = Tokenizer.from_str(
        json.dumps({**json.loads(change.tokenizer.backend_tokenizer.to_str()), "pre_tokenizer": None})
    )
    surfaces = {index: token for token, index in tokenizer.get_vocab().items()}
    for new, surface in change.added.items():
        assert model.encode(surface).ids == [new]
        assert len(change.spelled[new]) >= 2
        assert "".join(surfaces[old] for old in change.spelled[new]) == surface


def test_the_curve_tells_what_fewer_tokens_would_have_saved(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, corpora: dict[str, Corpus]
) -> None:
    texts = list(corpora["hu"].train["hu"]["text"])
    fewer = extend_vocabulary(tokenizer, texts, tokens=50)
    assert change.curve[0] == token_total(tokenizer, texts)
    assert change.curve[200] == token_total(change.tokenizer, texts)
    assert min(fewer.curve.values()) == token_total(fewer.tokenizer, texts)
    shared = set(fewer.curve) & set(change.curve)
    assert len(shared) > 5 and all(fewer.curve[n] == change.curve[n] for n in shared)


def test_the_same_text_gives_the_same_tokens(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, corpora: dict[str, Corpus]
) -> None:
    train = corpora["hu"].train
    again = extend_vocabulary(tokenizer, train["hu"]["text"], tokens=200, english=train["en"]["text"])
    assert again.added == change.added and again.spelled == change.spelled


def test_a_change_is_read_back_the_same(change: VocabularyChange, tmp_path: Path) -> None:
    change.save(tmp_path)
    again = VocabularyChange.load(tmp_path)
    for name in ("mode", "kept", "added", "removed", "spelled", "unreachable", "repaired", "curve", "audit", "size"):
        assert getattr(again, name) == getattr(change, name)
    assert encode(again.tokenizer, "Jó napot kívánok!") == encode(change.tokenizer, "Jó napot kívánok!")


def test_the_given_tokenizer_is_not_changed(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    extend_vocabulary(tokenizer, corpora["th"].train["th"]["text"], tokens=20, mode="replace", english=["some English"])
    assert tokenizer.backend_tokenizer.to_str() == before


def test_replace_gives_up_only_what_nothing_needs(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    train = corpora["hu"].train
    change = extend_vocabulary(tokenizer, train["hu"]["text"], tokens=60, mode="replace", english=train["en"]["text"])
    before, after = tokenizer.get_vocab(), change.tokenizer.get_vocab()
    assert len(before) == len(after) == change.size and set(change.added) == set(change.removed)
    assert all(after[token] == index for token, index in before.items() if index not in change.removed)
    merges = json.loads(change.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert all(part in after for pair in merges for part in pair)
    assert all(len(surface) > 1 for surface in change.removed.values())
    assert not set(change.removed) & set(tokenizer.added_tokens_decoder)


def test_replace_gives_up_the_least_used(corpora: dict[str, Corpus]) -> None:
    """Among leaves, one that English uses goes only after those that it does not."""
    texts = ["the cat sat on the mat"] * 50 + ["zyx qwv"] * 40
    tokenizer = train_tokenizer(texts, size=280)
    english = ["the cat sat on the mat"] * 10
    used = Counter(token for text in english for token in encode(tokenizer, text))
    change = extend_vocabulary(tokenizer, corpora["hu"].train["hu"]["text"], tokens=3, mode="replace", english=english)
    assert all(used[old] == 0 for old in change.removed)


def test_more_tokens_than_the_text_supports_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(VocabularyError, match=r"500 new tokens were asked, but this text supports only \d+"):
        extend_vocabulary(tokenizer, ["egy kettő három egy kettő három"], tokens=500)


@pytest.mark.parametrize("mode", ["extend", "replace"])
def test_special_tokens_outside_of_the_models_vocabulary_stay(
    mode: str, apart: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    train = corpora["hu"].train
    change = extend_vocabulary(
        apart,
        train["hu"]["text"],
        tokens=30,
        mode=mode,  # type: ignore[arg-type]
        english=train["en"]["text"],
    )
    passed = {check.claim for check in change.audit if check.passed}
    assert {"special tokens and chat template are untouched", "all other tokens keep their ids"} <= passed
    assert "saved and loaded, it gives the same ids" in passed
    change.save(tmp_path)
    for name in ("<|begin|>", "<|end|>"):
        for tokenizer in (change.tokenizer, load_tokenizer(tmp_path)):
            assert tokenizer.convert_tokens_to_ids(name) == apart.convert_tokens_to_ids(name)
            assert encode(tokenizer, f"a{name}b") == encode(apart, f"a{name}b")
    assert change.size == len(apart) + (30 if mode == "extend" else 0)


def test_other_tokenizers_and_modes_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")))
    with pytest.raises(VocabularyError, match="the tokenizer is WordPiece"):
        extend_vocabulary(pieces, ["a"], tokens=1)
    with pytest.raises(VocabularyError, match="mode 'swap' is unknown"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, mode="swap")  # type: ignore[arg-type]


def test_no_token_is_learned_across_a_byte_that_the_base_lacks(corpora: dict[str, Corpus]) -> None:
    """SmolLM2 has no token for 21 of the 256 bytes; what stands beside such a byte must not be joined."""
    tokenizer = train_tokenizer(list(corpora["hu"].train["en"]["text"]))
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    missing = "á".encode().decode("latin1")[1]  # the second byte of á, in the byte alphabet
    del spec["model"]["vocab"][missing]
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if missing not in "".join(pair)]
    lacking = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)), bos_token="<|endoftext|>")
    change = extend_vocabulary(lacking, corpora["hu"].train["hu"]["text"], tokens=100)
    assert all(change.spelled.values()) and not change.unreachable
    assert not any(missing in surface for surface in change.added.values())


def test_word_counts_count_pre_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    texts = ["a cat, a cat", "cat", ""]
    expected = Counter(piece for text in texts for piece, _ in pre_tokenizer.pre_tokenize_str(text))
    assert word_counts(pre_tokenizer, None, texts) == expected


@pytest.mark.parametrize("pattern", [None, LLAMA3], ids=["gpt2", "llama3"])
@pytest.mark.parametrize("text", ["ศึกษาภาษาที่", "हिन्दी में लिखा", "தமிழ் மொழி"], ids=["thai", "hindi", "tamil"])
def test_script_repair_keeps_clusters_whole(pattern: str | None, text: str) -> None:
    tokenizer = train_tokenizer(["some English text, don't mind"], size=270, pattern=pattern)
    assert cuts_clusters(tokenizer, [text])
    change = extend_vocabulary(tokenizer, [text] * 5, tokens=3)
    assert change.repaired and not cuts_clusters(change.tokenizer, [text])
    plain = extend_vocabulary(tokenizer, [text] * 5, tokens=3, repair_script=False)
    assert not plain.repaired and cuts_clusters(plain.tokenizer, [text])


@given(text=st.text(max_size=60))
@settings(deadline=None)
@pytest.mark.parametrize("pattern", [None, LLAMA3], ids=["gpt2", "llama3"])
def test_script_repair_cuts_text_without_marks_as_before(pattern: str | None, text: str) -> None:
    text = "".join(c for c in text if not unicodedata.category(c).startswith("M"))
    tokenizer = _with_pattern(pattern)
    repaired = _repaired(pattern)
    assert encode(repaired, text) == encode(tokenizer, text)


def _with_pattern(pattern: str | None, cache: dict[object, PreTrainedTokenizerFast] = {}) -> PreTrainedTokenizerFast:  # noqa: B006
    if pattern not in cache:
        cache[pattern] = train_tokenizer(["some English text, don't mind"], size=270, pattern=pattern)
    return cache[pattern]


def _repaired(pattern: str | None, cache: dict[object, PreTrainedTokenizerFast] = {}) -> PreTrainedTokenizerFast:  # noqa: B006
    if pattern not in cache:
        # A cluster of Thai that occurs nowhere else, so that the one new token never fires.
        cache[pattern] = extend_vocabulary(_with_pattern(pattern), ["กึ่ กึ่ กึ่"], tokens=1).tokenizer
    return cache[pattern]


def test_patterns_are_rewritten_inside_and_outside_of_classes() -> None:
    assert letters_with_marks(r"\p{L}+|[^\s\p{L}\p{N}]") == r"[\p{L}\p{M}]+|[^\s\p{L}\p{M}\p{N}]"
    assert letters_with_marks(r"[\p{L}\p{M}]+") == r"[\p{L}\p{M}]+"
    assert letters_with_marks(r"\[\p{L}") == r"\[[\p{L}\p{M}]"


def test_a_repaired_tokenizer_survives_saving(
    tmp_path: Path, corpora: dict[str, Corpus], tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = list(corpora["th"].train["th"]["text"])
    change = extend_vocabulary(tokenizer, texts, tokens=30)
    change.save(tmp_path)
    assert all(encode(load_tokenizer(tmp_path), text) == encode(change.tokenizer, text) for text in texts[:10])
