"""Growing a byte-level vocabulary: what comes, what goes, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers.tiny import train_tokenizer
from helpers.vocabularies import TEXT, decode, encode, english, failed, without_bytes
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import VocabularyError
from langadapt_utils.models import load_tokenizer
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary


def test_other_tokenizers_and_requests_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    )
    with pytest.raises(VocabularyError, match=r"a WordPiece tokenizer cannot be .* \(XGLM\)"):
        extend_vocabulary(pieces, ["a"], tokens=1)
    with pytest.raises(VocabularyError, match="mode 'swap' is unknown"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, mode="swap")  # type: ignore[arg-type]
    with pytest.raises(VocabularyError, match="tokens is 0: set it to at least 1"):
        extend_vocabulary(tokenizer, ["a"], tokens=0)
    with pytest.raises(VocabularyError, match="protect names 'de', but `others` has text only in"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, others={"en": ["a"]}, protect={"de": 0.9})
    with pytest.raises(VocabularyError, match=r"protect\['en'\] is 99"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, others={"en": ["a"]}, protect={"en": 99})
    with pytest.raises(VocabularyError, match=r"lone surrogate \(U\+D800\)"):
        extend_vocabulary(tokenizer, ["fine"] * 2_000 + ["not \ud800 fine"], tokens=1)
    for nothing in ([], [""], ["a"]):
        with pytest.raises(VocabularyError, match="the text supports only 0"):
            extend_vocabulary(tokenizer, nothing, tokens=1)


@given(text=TEXT)
@settings(deadline=None)
def test_text_comes_back(text: str, change: VocabularyChange) -> None:
    assert decode(change.tokenizer, encode(change.tokenizer, text)) == text


@given(text=st.text(st.characters(max_codepoint=0x2FF), max_size=60))
@settings(deadline=None)
def test_never_more_tokens_than_before(
    text: str, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    assert len(encode(change.tokenizer, text)) <= len(encode(tokenizer, text))


def test_uses_are_those_in_the_training_text(
    change: VocabularyChange, corpora: dict[str, Corpus]
) -> None:
    counts = Counter(
        i for text in corpora["hu"].train["hu"]["text"] for i in encode(change.tokenizer, text)
    )
    assert change.added_counts == {new: counts[new] for new in change.added}


def test_the_same_text_gives_the_same_tokens(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, corpora: dict[str, Corpus]
) -> None:
    again = extend_vocabulary(
        tokenizer, iter(corpora["hu"].train["hu"]["text"]), tokens=200, others=english(corpora)
    )
    assert again.added == change.added and again.base_pieces == change.base_pieces


def test_the_given_tokenizer_is_not_changed(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    texts = corpora["th"].train["th"]["text"]
    extend_vocabulary(tokenizer, texts, tokens=20, mode="replace", others={"en": ["some English"]})
    assert tokenizer.backend_tokenizer.to_str() == before


def test_replace_gives_up_only_what_nothing_needs(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(tokenizer, texts, tokens=60, mode="replace", others=english(corpora))
    after = change.tokenizer.get_vocab()
    merges = json.loads(change.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert all(part in after for pair in merges for part in pair)
    assert all(len(surface) > 1 for surface in change.removed.values())
    assert not set(change.removed) & set(tokenizer.added_tokens_decoder)
    counts = Counter(i for text in english(corpora)["en"] for i in encode(tokenizer, text))
    assert change.lost == {old: counts[old] for old in change.removed}


@pytest.mark.parametrize("give_up", ["usage", "frequency"])
def test_replace_gives_up_the_least_used(give_up: str, corpora: dict[str, Corpus]) -> None:
    """Among tokens that nothing needs, one that English uses goes only after those that it does
    not.
    """
    texts = ["the cat sat on the mat"] * 50 + ["zyx qwv"] * 40
    tokenizer = train_tokenizer(texts, size=280)
    change = extend_vocabulary(
        tokenizer,
        corpora["hu"].train["hu"]["text"],
        tokens=3,
        mode="replace",
        others={"en": ["the cat sat on the mat"] * 10},
        give_up=give_up,  # type: ignore[arg-type]
    )
    assert list(change.lost.values()) == [0, 0, 0]


def test_what_a_token_was_used_for_falls_to_its_parts(corpora: dict[str, Corpus]) -> None:
    """`frequency` gives up the parts of a frequent token, unused by themselves, right after it;
    `usage` does not.
    """
    tokenizer = train_tokenizer(["abcd"] * 50 + ["xy"] * 9, size=262)
    reference = {"en": ["abcd"] * 5 + ["xy"] * 9}
    gone = {
        give_up: list(
            extend_vocabulary(
                tokenizer,
                ["nénéné kűkűkű"] * 9,
                tokens=2,
                mode="replace",
                others=reference,
                give_up=give_up,  # type: ignore[arg-type]
            ).removed.values()
        )
        for give_up in ("usage", "frequency")
    }
    assert gone["usage"][0] == gone["frequency"][0] == "abcd"
    assert gone["frequency"][1] in ("abc", "cd", "ab") and gone["usage"][1] != "xy"


def test_more_tokens_than_the_text_supports_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(VocabularyError, match=r"the text supports only \d+ new tokens, not 500"):
        extend_vocabulary(tokenizer, ["egy kettő három egy kettő három"], tokens=500)


@pytest.mark.parametrize("mode", ["extend", "replace"])
def test_special_tokens_outside_of_the_models_vocabulary_stay(
    mode: str, apart: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(
        apart,
        texts,
        tokens=30,
        mode=mode,  # type: ignore[arg-type]
        others=english(corpora),
    )
    assert all("takes at most" in claim for claim in failed(change))
    change.save(tmp_path)
    for name in ("<|begin|>", "<|end|>"):
        for tokenizer in (change.tokenizer, load_tokenizer(tmp_path)):
            assert tokenizer.convert_tokens_to_ids(name) == apart.convert_tokens_to_ids(name)
            assert encode(tokenizer, f"a{name}b") == encode(apart, f"a{name}b")
    assert change.size == len(apart) + (30 if mode == "extend" else 0)


def test_no_token_is_learned_across_a_byte_that_the_base_lacks(corpora: dict[str, Corpus]) -> None:
    """SmolLM2 has no token for 21 of the 256 bytes; what stands beside such a byte must not be
    joined.
    """
    tokenizer = train_tokenizer(english(corpora)["en"])
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    missing = "á".encode().decode("latin1")[1]  # the second byte of á, in the byte alphabet
    del spec["model"]["vocab"][missing]
    spec["model"]["merges"] = [
        pair for pair in spec["model"]["merges"] if missing not in "".join(pair)
    ]
    lacking = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)), bos_token="<|endoftext|>"
    )
    change = extend_vocabulary(lacking, corpora["hu"].train["hu"]["text"], tokens=100)
    assert all(change.base_pieces.values()) and not change.unreachable
    assert not any(missing in surface for surface in change.added.values())
    completed = extend_vocabulary(
        lacking, corpora["hu"].train["hu"]["text"], tokens=100, complete_bytes=True
    )
    assert next(iter(completed.added.values())) == missing and not completed.unreachable
    assert sum(missing in surface for surface in completed.added.values()) > 1
    assert decode(completed.tokenizer, encode(completed.tokenizer, "ház")) == "ház"


def test_tokens_are_no_longer_than_asked(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(tokenizer, texts, tokens=100, max_token_length=3)
    assert max(len(change.text(new)) for new in change.added) == 3 and not change.unreachable
    with pytest.raises(VocabularyError, match="supports only"):
        extend_vocabulary(tokenizer, texts, tokens=100, min_frequency=500)


def test_bytes_that_the_base_lacks_are_named_as_what_is_missing(
    corpora: dict[str, Corpus],
) -> None:
    """As in a base whose trainer was not given the whole alphabet of bytes."""
    lacking = without_bytes(train_tokenizer(["the old bridge"] * 9), "ภาษาไทย")
    thai = list(corpora["th"].train["th"]["text"])[:100]
    with pytest.raises(VocabularyError, match="with complete_bytes=True"):
        extend_vocabulary(lacking, thai, tokens=2_000)
    completed = extend_vocabulary(lacking, thai, tokens=300, complete_bytes=True)
    assert all(check.passed for check in completed.audit if "fewer tokens" in check.claim)
