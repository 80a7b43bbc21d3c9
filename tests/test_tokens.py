from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from helpers.tiny import sentencepiece_bpe
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.tokens import (
    BYTE_ALPHABET,
    byte_lengths,
    bytes_as_text,
    document_start,
    readable,
    surface_bytes,
    token_spans,
)

TEXT = st.text(max_size=60)


def test_the_byte_alphabet_is_that_of_the_library() -> None:
    assert set(BYTE_ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_ALPHABET.values()) == list(range(256))


@given(text=TEXT)
@settings(deadline=None)
def test_spans_tile_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    spans = token_spans(tokenizer, text)
    assert [span.start for span in spans] == [0, *(span.end for span in spans)][: len(spans)]
    assert (spans[-1].end if spans else 0) == len(text.encode())
    lengths = byte_lengths(tokenizer)
    assert [span.end - span.start for span in spans] == [lengths[span.id] for span in spans]


def test_special_tokens_stand_for_no_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    assert byte_lengths(tokenizer)[tokenizer.bos_token_id] == 0


def test_spans_of_a_word_level_tokenizer_tile_the_text_too() -> None:
    backend = Tokenizer(models.WordLevel({"ház": 0, "kert": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    spans = token_spans(PreTrainedTokenizerFast(tokenizer_object=backend), "ház  kert ")
    assert [(span.start, span.end) for span in spans] == [(0, 4), (4, 11)]


@given(text=TEXT)
def test_whole_characters_are_readable_as_they_are(text: str) -> None:
    surface = "".join(
        letter for byte in text.encode() for letter, value in BYTE_ALPHABET.items() if value == byte
    )
    assert surface_bytes(surface) == text.encode() and bytes_as_text(surface_bytes(surface)) == text


def test_parts_of_characters_are_shown_by_number() -> None:
    letters = {value: letter for letter, value in BYTE_ALPHABET.items()}
    assert bytes_as_text(surface_bytes(letters[0xE0] + letters[0xB8])) == "⟨E0⟩⟨B8⟩"


def test_tokens_of_every_family_are_readable(tokenizer: PreTrainedTokenizerFast) -> None:
    assert readable(tokenizer, "ĠhÃ¡z") == " ház"
    assert readable(tokenizer, tokenizer.convert_tokens_to_ids("Ġthe")) == " the"
    metaspace = sentencepiece_bpe(["the house, the mouse"])
    assert readable(metaspace, "▁ház") == " ház" and readable(metaspace, "<0xE1>") == "⟨E1⟩"
    lengths = byte_lengths(metaspace)
    for text in ("the mouse", "ház, ไทย"):
        ids = metaspace(text, add_special_tokens=False)["input_ids"]
        assert lengths[ids].sum() == len(text.encode()) + 1  # the space that is put before


def test_a_document_begins_as_the_tokenizer_itself_begins_a_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """As in LFM2, which has a BOS token before each text, and `<|endoftext|>` for other uses."""
    usual = document_start(tokenizer)
    assert tokenizer.convert_ids_to_tokens(usual) == "<|endoftext|>"
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.add_special_tokens(["<|startoftext|>"])
    start = own.token_to_id("<|startoftext|>")
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|im_start|>"}
    silent = PreTrainedTokenizerFast(tokenizer_object=own, **names)
    assert document_start(silent) == usual
    own.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", special_tokens=[("<|startoftext|>", start)]
    )
    inserting = PreTrainedTokenizerFast(tokenizer_object=own, **names)
    assert document_start(inserting) == start == inserting("ház")["input_ids"][0]


def test_documents_begin_with_what_the_tokenizer_puts_before_a_text(
    corpora: dict[str, Corpus],
) -> None:
    """Also where its configuration names no BOS token; an end that it appends is no beginning."""
    plain = sentencepiece_bpe(list(corpora["hu"].train["en"]["text"])[:50], 400)
    begin, end = plain.convert_tokens_to_ids(["<s>", "</s>"])
    for single, named, expected in (
        ("<s> $A", "</s>", begin),
        ("<s> $A </s>", "</s>", begin),
        ("$A </s>", "<s>", begin),
        ("$A </s>", None, end),
    ):
        backend = Tokenizer.from_str(plain.backend_tokenizer.to_str())
        pair = [("<s>", begin), ("</s>", end)]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=pair)
        own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
        if named == "<s>":
            own.bos_token = named
        assert document_start(own) == expected, single
