import math
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display.html import bytes_html
from langadapt_utils.errors import CorpusError
from langadapt_utils.fertility import (
    MEASURES,
    FertilityReport,
    measure_fertility,
    plot_fertility,
    tokens_touching,
)
from langadapt_utils.languages import word_spans
from langadapt_utils.vocabulary.change import VocabularyChange

CELL = re.compile(r'<td colspan="(\d+)"[^>]*>(.*?)</td>')


@pytest.fixture
def letters() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the word `cat` whole and every other character by itself."""
    backend = Tokenizer(
        models.BPE(
            {"c": 0, "a": 1, "t": 2, "ca": 3, "cat": 4, "s": 5, " ": 6, "é": 7},
            [("c", "a"), ("ca", "t")],
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_every_column_is_what_it_says(letters: PreTrainedTokenizerFast) -> None:
    report = measure_fertility(
        {"base": letters}, {"en": ["cat cats", "cat"], "hu": ["és ta", "cat"]}
    )
    english, hungarian = (report.table.set_index("language").loc[code] for code in ("en", "hu"))
    assert (english.tokens, english.words, english.characters, english.bytes) == (5, 3, 11, 11)
    assert (hungarian.tokens, hungarian.words, hungarian.characters, hungarian.bytes) == (
        6,
        3,
        8,
        9,
    )
    assert english.tokens_per_word == pytest.approx(5 / 3)
    assert hungarian.tokens_per_character == pytest.approx(
        6 / 8
    ) and hungarian.tokens_per_byte == pytest.approx(6 / 9)
    assert (english.parity, hungarian.parity) == (1, pytest.approx(6 / 5))
    assert (english.continued_words, english.single_token_words) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )
    assert (hungarian.continued_words, report.sentences) == (pytest.approx(2 / 3), 2)
    assert english.interval.value == pytest.approx(5 / 3) and english.interval.units == 2


def test_without_translations_there_is_no_parity(letters: PreTrainedTokenizerFast) -> None:
    report = measure_fertility(
        {"base": letters}, {"en": ["cat"], "fi": ["cat", "cat"]}, parallel=False
    )
    assert all(math.isnan(value) for value in report.table.parity)
    title = plot_fertility(report, "tokens_per_word").get_title(loc="left")
    assert title.startswith("Finnish takes 1.00 tokens per word")


@pytest.mark.parametrize(
    "texts", [{"en": ["cat"], "hu": []}, {"en": ["cat"], "hu": ["cat", "cat"]}]
)
def test_texts_that_cannot_be_compared_are_refused(
    texts: dict[str, list[str]], letters: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(CorpusError, match="give text in every language"):
        measure_fertility({"base": letters}, texts)


def test_a_report_is_read_back_the_same(letters: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    texts = {"en": ["cat"] * 5, "hu": ["ta", "at", "cat", "tata", "a"]}
    report = measure_fertility({"a": letters, "b": letters}, texts)
    report.save(tmp_path / "report.json")
    again = FertilityReport.load(tmp_path / "report.json")
    pd.testing.assert_frame_equal(again.table, report.table, check_dtype=False)
    assert again.value("b", "hu", "tokens") == 2 + 2 + 1 + 4 + 1


def test_thai_words_are_found_without_spaces() -> None:
    text = "แมวกินปลา 2 ตัว"
    assert [text[start:end] for start, end in word_spans(text, "th")] == [
        "แมว",
        "กิน",
        "ปลา",
        "2",
        "ตัว",
    ]


def test_marks_belong_to_their_word() -> None:
    text = "हिन्दी में, 3!"
    assert [text[start:end] for start, end in word_spans(text, "hi")] == ["हिन्दी", "में", "3"]


@given(text=st.text(max_size=80))
@pytest.mark.parametrize("language", ["hu", "th"])
def test_words_are_in_order_and_inside_the_text(language: str, text: str) -> None:
    spans = word_spans(text, language)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


@given(st.lists(st.integers(1, 4), max_size=12), st.lists(st.integers(1, 4), max_size=12))
def test_touching_tokens_are_counted_like_overlaps(words: list[int], tokens: list[int]) -> None:
    def spans(lengths: list[int]) -> list[tuple[int, int]]:
        ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        return [(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    left, right = spans(words)[::2], spans(tokens)
    assert tokens_touching(left, right) == [
        sum(a < end and start < b for a, b in right) for start, end in left
    ]


@pytest.fixture(scope="module")
def report(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, corpora: dict[str, Corpus]
) -> FertilityReport:
    texts, _ = corpora["hu"].measuring_texts()
    return measure_fertility({"base": tokenizer, "adapted": change.tokenizer}, texts)


@pytest.mark.parametrize("column", MEASURES)
def test_a_fertility_figure_states_the_numbers_it_shows(
    column: str, report: FertilityReport
) -> None:
    ax = plot_fertility(report, column)
    assert "Hungarian" in ax.get_title(loc="left").replace(
        "\n", " "
    ) and ax.get_xlabel().startswith(MEASURES[column]["unit"])
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(
        list(report.table[column].iloc[::-1])
    )


def test_words_are_shown_byte_by_byte_in_letters_of_any_script(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    words = {"en": "language", "hu": "<nyelvű>", "th": "น้ำ"}
    html = str(bytes_html(tokenizer, words))
    for table, word in zip(html.split("<table")[1:], words.values(), strict=True):
        letters, tokens = (
            [(int(width), unescape(text)) for width, text in CELL.findall(row)]
            for row in table.split("<tr>")[1:]
        )
        size = len(word.encode())
        assert sum(width for width, _ in letters) == size == sum(width for width, _ in tokens)
        assert [text.removeprefix("◌") for _, text in letters] == list(word)
        assert len(tokens) == len(tokenizer.tokenize(word))
        assert f"letters {len(word)}, bytes {size}, tokens {len(tokens)}" in table


def test_where_nobody_knows_the_words_there_are_no_figures_per_word(
    letters: PreTrainedTokenizerFast,
) -> None:
    """Tibetan marks syllables, not words."""
    texts = {"en": ["cat"] * 2, "bo": ["བོད་ཡིག་གི་སྐད་ཆ།", "ཆུ་དང་མེ།"]}
    report = measure_fertility({"a": letters}, texts)
    bo = report.table.set_index("language").loc["bo"]
    assert bo[["words", "tokens_per_word", "continued_words"]].isna().all()
    assert bo.segmenter == "none" and bo.parity == bo.parity
    assert bo.interval.value == pytest.approx(bo.tokens_per_character)
    assert "No segmenter finds the words of Tibetan" in plot_fertility(
        report, "tokens_per_word"
    ).get_title(loc="left")


DICTIONARIES = {
    "th": ("ฉันรักภาษาไทย", ["ฉัน", "รัก", "ภาษา", "ไทย"]),
    "zh": ("我们去北京。", ["我们", "去", "北京"]),
    "ja": ("日本語の文章", ["日本語", "の", "文章"]),
    "km": ("ខ្ញុំស្រឡាញ់ភាសា", ["ខ្ញុំ", "ស្រឡាញ់", "ភាសា"]),
    "lo": ("ຂ້ອຍຮັກພາສາ", ["ຂ້ອຍ", "ຮັກ", "ພາສາ"]),
    "my": ("မြန်မာ ချစ်", ["မြန်မာ", "ချစ်"]),
    "uk": ("п'ять, 3.14 😀 й", ["п'ять", "3.14", "й"]),
    "he": ("צה״ל בא", ["צה״ל", "בא"]),
}


@pytest.mark.parametrize("language", DICTIONARIES)
def test_words_of_every_script_are_found(language: str) -> None:
    text, words = DICTIONARIES[language]
    assert [text[start:end] for start, end in word_spans(text, language)] == words


def test_what_reads_like_a_special_token_costs_what_its_letters_cost(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = f"A page about {tokenizer.eos_token} itself."
    report = measure_fertility({"base": tokenizer}, {"en": [text]})
    pieces = tokenizer.tokenize(text, split_special_tokens=True)
    assert report.value("base", "en", "tokens") == len(pieces) > len(tokenizer.tokenize(text))


def test_a_figure_needs_no_other_language(letters: PreTrainedTokenizerFast) -> None:
    for code, name in (("fi", "Finnish"), ("en", "English")):
        report = measure_fertility({"a": letters}, {code: ["abc cab.", "cab"]})
        title = plot_fertility(report, "tokens_per_word").get_title(loc="left")
        assert title.startswith(f"{name} takes ") and title.endswith(" tokens per word")
