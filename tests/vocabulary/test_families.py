"""Growing vocabularies of every family: what is promised of the change and of its text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe, unigram
from helpers.vocabularies import FAMILIES, TEXT, decode, encode, english, failed, token_total
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.languages import script_counts
from langadapt_utils.models import load_tokenizer
from langadapt_utils.tokens import surface_bytes
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.tokenizer_json import Spec


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, corpora: dict[str, Corpus]) -> PreTrainedTokenizerFast:
    return FAMILIES[request.param](english(corpora)["en"])


@pytest.fixture(scope="module", params=["hu", "th"])
def grown(
    request: pytest.FixtureRequest, family: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> VocabularyChange:
    texts = corpora[request.param].train[request.param]["text"]
    return extend_vocabulary(family, texts, tokens=80, others=english(corpora))


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
        "th"
        if any(set(script_counts(grown.text(new))) == {"Thai"} for new in grown.added)
        else "hu"
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


@pytest.mark.parametrize("build", [sentencepiece_bpe, unigram])
def test_joiners_and_apostrophes_belong_to_words(
    build: Callable[..., PreTrainedTokenizerFast], corpora: dict[str, Corpus]
) -> None:
    """Where neither English nor a quotation mark can be meant."""
    base = build(english(corpora)["en"])
    whole = ["ශ්\u200dරී", "می\u200cخواهم", "п'ять", "ОБ'ЄКТ", 'צה"ל', "צה״ל"]
    split = ["don't", "col·legi", "他'说", "ก'ข", "말'은"]
    counted = Spec.of(base).count_words([f"{word} " for word in [*whole, *split]])
    pieces = [piece.strip("▁") for piece in counted]
    parts = {part for word in split for part in re.split("(['·])", word)}
    assert {piece for piece in pieces if piece} == {*whole, *parts}
    change = extend_vocabulary(base, ["ශ්\u200dරී ලංකාව"] * 99, tokens=12)
    assert any("\u200d" in surface for surface in change.added.values()) and not failed(change)


@pytest.mark.parametrize("build", FAMILIES.values())
def test_a_null_character_stops_no_change(
    build: Callable[..., PreTrainedTokenizerFast], corpora: dict[str, Corpus]
) -> None:
    """Text from a PDF file has some."""
    base = build(english(corpora)["en"])
    change = extend_vocabulary(base, ["Az o\x00cina nagy, a ház ócska."] * 200, tokens=9)
    by_bytes = Spec.of(base).byte_level  # where it is a byte like any other
    assert by_bytes or not any("\x00" in change.text(new) for new in change.added)
    assert not failed(change)
