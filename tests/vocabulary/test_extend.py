"""Growing vocabularies of every family: what is promised of the change, and of the text it
touches.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_patterns import PATTERNS
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, train_tokenizer, unigram
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import VocabularyError
from langadapt_utils.languages import scripts_of
from langadapt_utils.models import Base, load_tokenizer
from langadapt_utils.tokens import surface_bytes
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary, trim_vocabulary
from langadapt_utils.vocabulary.select import cut_at_words
from langadapt_utils.vocabulary.tokenizer_json import Spec

# Whatever people type: any Unicode, much of the scripts that this is about, and characters that a
# renaming could trip over (private use, noncharacters, NUL, byte tokens, spaces of every kind,
# right-to-left text, emoji sequences).
TEXT = (
    st.text(max_size=50)
    | st.text("aábcdeéőű ศกุ์่าเ0123456789.,'\n\t", max_size=50)
    | st.text(
        "\x00\ue000\uf8ff\U000f0000\U0010fffd\uffff\ufdd0\u00a0\u2028▁Ġ\u200d\ufe0f👩🏽שلا\u202e",
        max_size=50,
    )
    | st.lists(
        st.sampled_from(["<0xE0>", "▁▁", "👩🏽\u200d🚀", "ที่", "szép", "\r\n", "e\u0301"]),
        max_size=9,
    ).map("".join)
)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def token_total(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> int:
    return sum(len(encode(tokenizer, text)) for text in texts)


def failed(change: VocabularyChange) -> list[str]:
    return [f"{check.claim}: {check.detail}" for check in change.audit if not check.passed]


def english(corpora: dict[str, Corpus]) -> dict[str, list[str]]:
    return {"en": list(corpora["hu"].train["en"]["text"])}


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


def llama3(texts: list[str]) -> PreTrainedTokenizerFast:
    """A word that is a token is taken as it is, whatever its merges (Llama 3), and text is composed
    first (Qwen).
    """
    tokenizer = train_tokenizer(texts, pattern=PATTERNS["llama3"])
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["model"]["ignore_merges"] = True
    spec["normalizer"] = {"type": "NFC"}
    backend = Tokenizer.from_str(json.dumps(spec))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


FAMILIES: dict[str, Callable[[list[str]], PreTrainedTokenizerFast]] = {
    "byte-level": train_tokenizer,
    "llama3": llama3,
    "sentencepiece": sentencepiece_bpe,
    "metaspace": lambda texts: sentencepiece_bpe(texts, metaspace=True),
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    return FAMILIES[request.param](english(corpora)["en"])


@pytest.fixture(scope="module", params=["hu", "th"])
def grown(
    request: pytest.FixtureRequest, family: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> VocabularyChange:
    texts = corpora[request.param].train[request.param]["text"]
    return extend_vocabulary(family, texts, tokens=80, others=english(corpora))


# --- every family


def test_the_audit_of_every_family_passes(grown: VocabularyChange) -> None:
    assert failed(grown) == [] and len(grown.added) == 80


def test_every_family_round_trips_what_its_base_does(
    family: PreTrainedTokenizerFast, grown: VocabularyChange
) -> None:
    @given(text=TEXT)
    @settings(deadline=None, max_examples=60)
    def holds(text: str) -> None:
        if decode(family, encode(family, text)) == text:
            assert decode(grown.tokenizer, encode(grown.tokenizer, text)) == text

    holds()


def test_every_added_token_is_reachable_and_spelled(
    family: PreTrainedTokenizerFast, grown: VocabularyChange
) -> None:
    base, spec = Spec.of(family), Spec.of(grown.tokenizer)
    raw = {
        index: surface_bytes(token, byte_level=base.byte_level)
        for token, index in base.vocab.items()
    }
    for new, surface in grown.added.items():
        assert spec.bare.encode(surface).ids == [new]
        spelled = b"".join(raw[old] for old in grown.base_pieces[new])
        known = base.unknown_id not in grown.base_pieces[new]
        assert grown.base_pieces[new] and (
            spelled == surface_bytes(surface, byte_level=base.byte_level) or not known
        )


def test_no_added_token_ends_inside_a_character(grown: VocabularyChange) -> None:
    """Pieces of one character are steps on the way to it; a character with a piece of its neighbour
    is waste.
    """
    for new in grown.added:
        fragments = re.findall("⟨..⟩", grown.text(new))
        assert not fragments or "".join(fragments) == grown.text(new)


def test_old_tokens_and_special_tokens_keep_their_ids(
    family: PreTrainedTokenizerFast, grown: VocabularyChange
) -> None:
    before, after = family.get_vocab(), grown.tokenizer.get_vocab()
    assert all(after[token] == index for token, index in before.items())
    text = "the cat" + (family.eos_token or "")
    assert (
        family(text)["input_ids"] == grown.tokenizer(text)["input_ids"]
    )  # what the post-processor inserts, too


def test_every_family_saves_tokens_and_survives_saving(
    family: PreTrainedTokenizerFast,
    grown: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    language = (
        "th" if any(set(scripts_of(grown.text(new))) == {"Thai"} for new in grown.added) else "hu"
    )
    heldout = list(corpora[language].heldout[language]["text"])
    unknown = [family.unk_token_id] if family.unk_token_id is not None else []
    if not any(unknown and unknown[0] in encode(family, text) for text in heldout):
        assert token_total(grown.tokenizer, heldout) < 0.85 * token_total(family, heldout)
    grown.save(tmp_path)
    again, plain = load_tokenizer(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in heldout[:10]:
        assert (
            again(text)["input_ids"] == grown.tokenizer(text)["input_ids"] == plain.encode(text).ids
        )


def test_a_change_is_read_back_the_same(grown: VocabularyChange, tmp_path: Path) -> None:
    grown.save(tmp_path)
    again = VocabularyChange.load(tmp_path)
    for name in (
        "mode",
        "new_to_old",
        "added",
        "removed",
        "base_pieces",
        "added_counts",
        "lost",
        "unreachable",
        "pattern_repair",
        "curve",
    ):
        assert getattr(again, name) == getattr(grown, name), name
    assert (again.effects, again.protection_cost, again.audit, again.size) == (
        grown.effects,
        grown.protection_cost,
        grown.audit,
        grown.size,
    )


def test_characters_without_a_token_get_one_before_merges_build_on_them(
    corpora: dict[str, Corpus],
) -> None:
    """Merging the byte tokens of SentencePiece would make tokens that no decoder can read."""
    base = sentencepiece_bpe(english(corpora)["en"])
    change = extend_vocabulary(base, corpora["th"].train["th"]["text"], tokens=120)
    assert not any("<0x" in surface for surface in change.added.values())
    single = [new for new, surface in change.added.items() if len(surface) == 1]
    assert len(single) > 20 and all(len(change.base_pieces[new]) == 3 for new in single)
    assert any(len(surface) > 2 for surface in change.added.values())
    assert decode(change.tokenizer, encode(change.tokenizer, "ภาษาไทย")) == "ภาษาไทย"


def test_no_new_token_crosses_a_word_border(corpora: dict[str, Corpus]) -> None:
    for build in (sentencepiece_bpe, unigram):
        change = extend_vocabulary(
            build(english(corpora)["en"]), corpora["hu"].train["hu"]["text"], tokens=150
        )
        for surface in change.added.values():
            assert "▁" not in surface[1:].lstrip("▁")
            assert len({char.isalpha() for char in surface.lstrip("▁")}) == 1


def test_a_unigram_piece_is_used_where_it_shortens(corpora: dict[str, Corpus]) -> None:
    base = unigram(english(corpora)["en"])
    change = extend_vocabulary(base, corpora["hu"].train["hu"]["text"], tokens=150)
    used = [new for new in change.added if change.added_counts[new]]
    assert len(used) > 0.9 * len(change.added)


def test_replace_keeps_the_size_in_every_family(
    family: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(family, texts, tokens=20, mode="replace", others=english(corpora))
    assert set(change.added) == set(change.removed) and change.size == len(family)
    after = change.tokenizer.get_vocab()
    assert all(
        after[token] == index
        for token, index in family.get_vocab().items()
        if index not in change.removed
    )
    assert all(
        "takes at most" in claim for claim in failed(change)
    )  # so small a vocabulary can spare nothing
    table = change.removed_table()
    assert list(table.id) == list(change.removed) and table.spelled_by.map(len).min() > 0


def test_other_tokenizers_and_requests_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    )
    with pytest.raises(
        VocabularyError, match="the tokenizer is WordPiece, which cannot be extended"
    ):
        extend_vocabulary(pieces, ["a"], tokens=1)
    with pytest.raises(VocabularyError, match="mode 'swap' is unknown"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, mode="swap")  # type: ignore[arg-type]
    with pytest.raises(VocabularyError, match="0 new tokens were asked"):
        extend_vocabulary(tokenizer, ["a"], tokens=0)
    with pytest.raises(
        VocabularyError, match="'de' is to be protected, but there is no text of it"
    ):
        extend_vocabulary(tokenizer, ["a"], tokens=1, others={"en": ["a"]}, protect={"de": 0.9})
    with pytest.raises(VocabularyError, match=r"protect\['en'\] is 99"):
        extend_vocabulary(tokenizer, ["a"], tokens=1, others={"en": ["a"]}, protect={"en": 99})
    with pytest.raises(
        VocabularyError, match="cannot forbid 'emoji': use one of digits, mixed_scripts"
    ):
        extend_vocabulary(tokenizer, ["a b a b"], tokens=1, forbid=["emoji"])  # type: ignore[list-item]
    with pytest.raises(VocabularyError, match=r"lone surrogate \(U\+D800\)"):
        extend_vocabulary(tokenizer, ["fine"] * 2_000 + ["not \ud800 fine"], tokens=1)
    for nothing in ([], [""], ["a"]):
        with pytest.raises(VocabularyError, match="this text supports only 0"):
            extend_vocabulary(tokenizer, nothing, tokens=1)


# --- byte-level BPE


@pytest.mark.base
@pytest.mark.parametrize("name", ["hu", "th", "replace"])
def test_the_audit_of_the_real_tokenizer_passes(
    name: str, real: dict[str, VocabularyChange]
) -> None:
    assert failed(real[name]) == []
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
    with pytest.raises(
        VocabularyError, match=r"500 new tokens were asked, but this text supports only \d+"
    ):
        extend_vocabulary(tokenizer, ["egy kettő három egy kettő három"], tokens=500)


@pytest.mark.parametrize("mode", ["extend", "replace"])
def test_special_tokens_outside_of_the_models_vocabulary_stay(
    mode: str, apart: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(apart, texts, tokens=30, mode=mode, others=english(corpora))  # type: ignore[arg-type]
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


# --- limits


def test_unwanted_tokens_are_not_made(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["1989 2024 1989 2024 Дaв Дaв Дaв    ház    ház    ház szépség szépség ház"] * 20
    change = extend_vocabulary(
        tokenizer, texts, tokens=4, forbid=["digits", "mixed_scripts", "whitespace_runs"]
    )
    made = [change.text(new) for new in change.added]
    assert not any(char.isnumeric() for token in made for char in token)
    assert all(len(scripts_of(token)) <= 1 and "  " not in token for token in made)
    free = extend_vocabulary(tokenizer, texts, tokens=12)
    assert any(len(scripts_of(free.text(new))) > 1 for new in free.added)


def test_tokens_are_no_longer_than_asked(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    texts = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(tokenizer, texts, tokens=100, max_token_length=3)
    assert max(len(change.text(new)) for new in change.added) == 3 and not change.unreachable
    with pytest.raises(VocabularyError, match="supports only"):
        extend_vocabulary(tokenizer, texts, tokens=100, min_frequency=500)


def test_pre_tokens_are_cut_where_words_begin() -> None:
    pattern = r" ?[\p{L}\p{M}]+|\p{N}+|\s+"
    for tokenizer in (
        train_tokenizer(["the cat sat"] * 3, pattern=pattern),
        sentencepiece_bpe(["the cat sat"] * 3),
    ):
        spec = Spec.of(tokenizer)
        counted = spec.count_words(["ฉันกินข้าว ฉันไป 12"])
        cut = cut_at_words(counted, spec, "th")
        shown = Counter({spec.text(piece): count for piece, count in cut.items()})
        assert {"กินข้าว", "ไป"} <= shown.keys() and shown[" ฉัน"] >= 1
        assert sum(len(spec.text(p)) * n for p, n in cut.items()) == sum(
            len(spec.text(w)) * n for w, n in counted.items()
        )


def test_a_segmenter_keeps_tokens_within_its_words(corpora: dict[str, Corpus]) -> None:
    from pythainlp.tokenize import word_tokenize

    tokenizer = train_tokenizer(english(corpora)["en"])
    texts = list(corpora["th"].train["th"]["text"])
    inside, free = (
        extend_vocabulary(tokenizer, texts, tokens=400, segment=segment) for segment in ("th", None)
    )
    words = {word for text in texts for word in word_tokenize(text, engine="newmm")}

    def within(change: VocabularyChange) -> float:
        whole = [change.text(new) for new in change.added if "⟨" not in change.text(new)]
        return sum(any(token.strip() in word for word in words) for token in whole) / len(whole)

    assert within(inside) == 1 > within(free)
    assert failed(inside) == []


# --- the contract with other languages


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
    with pytest.raises(
        VocabularyError, match="1 of 1 sentences in 'lo' change whatever tokens are left out"
    ):
        extend_vocabulary(
            base, ["ที่นี่ ที่นี่ กี่ปี่"] * 5, tokens=2, others={"lo": ["ก่!"]}, protect={"lo": 1.0}
        )
    unrepaired = extend_vocabulary(
        base,
        ["ที่นี่ ที่นี่ กี่ปี่"] * 5,
        tokens=2,
        others={"lo": ["ก่!"]},
        protect={"lo": 1.0},
        repair_script=False,
    )
    assert unrepaired.effects["lo"].changed == 0


# --- trim


def test_trimming_drops_scripts_that_do_not_occur(corpora: dict[str, Corpus]) -> None:
    texts = english(corpora)["en"]
    thai = list(corpora["th"].train["th"]["text"])
    both = train_tokenizer(
        [*texts, *thai], size=900, pattern=r" ?[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]+|\s+"
    )
    change = trim_vocabulary(both, texts, others={"en": texts})
    assert failed(change) == [] and change.mode == "trim" and not change.added
    assert change.effects["en"].changed == 0 and 100 < len(change.removed) < 600
    assert change.size == len(change.tokenizer) == len(both) - len(change.removed)
    assert sorted(change.new_to_old) == list(range(change.size))
    vocabulary = both.get_vocab()
    assert all(
        vocabulary[token] == change.new_to_old[new]
        for token, new in change.tokenizer.get_vocab().items()
    )
    for text in (*texts[:5], thai[0], "ไทย 🙂"):
        assert decode(change.tokenizer, encode(change.tokenizer, text)) == text
    assert not any(
        scripts_of(change.tokenizer.decode([new])) == {"Thai"} for new in change.new_to_old
    )


def test_trimming_renumbers_what_is_inserted(corpora: dict[str, Corpus]) -> None:
    texts = english(corpora)["en"]
    for build in (sentencepiece_bpe, unigram):
        base = build([*texts, *corpora["th"].train["th"]["text"]])
        change = trim_vocabulary(base, texts, others={"en": texts})
        assert failed(change) == [] and change.removed
        ids = change.tokenizer("the cat")["input_ids"]
        assert [change.new_to_old[new] for new in ids] == base("the cat")["input_ids"]
