import random
import tracemalloc
import unicodedata

import pytest

from langadapt_utils.corpus.contamination import find_repeats

WORDS = [f"szó{n}" for n in range(3_000)]


def story(seed: int, length: int = 200) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def test_what_differs_in_case_spaces_and_form_alone_is_a_repeat() -> None:
    text = "Árvíztűrő  tükörfúrógép."
    forms = [text, text.upper(), unicodedata.normalize("NFD", text), text.replace("  ", "\n")]
    assert find_repeats([*forms, "Más."]) == ({1: 0, 2: 0, 3: 0}, {})


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("ภาษาไทย ไม่มีช่องว่าง", "ภาษาไทยไม่มี\nช่องว่าง"),
        ("いろはにほへとちりぬる。色は匂へど", "いろはにほ\nへとちりぬる。\n色は匂へど"),
        ("ខ្មែរ អត់មាន", "ខ្មែរអត់មាន"),
        ("می\u200cروم یک کتاب", "مي\u200cروم يك كتاب"),  # typed on an Arabic keyboard
        ("كَتَبَ الولد", "كتب الولد"),
    ],
)
def test_spaces_and_signs_that_a_script_leaves_out_make_no_difference(text: str, copy: str) -> None:
    assert find_repeats([text, copy]) == ({1: 0}, {})
    assert find_repeats(["a b", "ab"]) == ({}, {})


@pytest.mark.parametrize("edit", ["a few words", "a beginning", "an end"])
def test_an_edited_copy_is_nearly_a_repeat(edit: str) -> None:
    texts = [story(seed) for seed in range(40)]
    copy = texts[11]
    if edit == "a few words":
        words = copy.split()
        words[50], words[150] = "egyéb", "más"
        copy = " ".join(words)
    copy = f"Forrás: az újság. {copy}" if edit == "a beginning" else copy
    copy = copy + " Kapcsolódó cikkek, megosztás." if edit == "an end" else copy
    equal, near = find_repeats([*texts, copy])
    assert not equal and near == {40: 11}


def test_texts_that_share_half_are_kept() -> None:
    half = story(1, 100)
    texts = [f"{half} {story(seed, 100)}" for seed in range(2, 30)]
    assert find_repeats(texts) == ({}, {})


def test_short_texts_are_repeats_only_letter_by_letter() -> None:
    texts = [f"A vonat {n} órakor indul a városból, és késik." for n in range(50)]
    assert find_repeats([*texts, texts[3]]) == ({50: 3}, {})


def test_documents_are_compared_in_little_memory() -> None:
    texts = [story(seed % 50, 100) + f" {seed}" for seed in range(2_000)]
    tracemalloc.start()
    find_repeats(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / len(texts) < 600  # 256 bytes of a signature, and one band of all


def test_songs_with_one_line_each_are_no_repeats() -> None:
    songs = ["\n".join([story(seed, length=3)] * 30) for seed in range(100)]
    assert find_repeats(songs) == ({}, {})
