"""Script repair: every word pattern in use, every script that it cuts, and nothing else changed."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.tiny import train_tokenizer
from helpers.vocabularies import PATTERNS, english, failed, llama3, with_pattern
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.patterns import (
    find_cuts,
    join_to_letters,
    propose_repair,
    without_model,
)

SCRIPTS = {
    "thai": "ศึกษาภาษาที่นี่",
    "hindi": "हिन्दी में लिखा गया",
    "tamil": "தமிழ் மொழி இருக்கிறது",
    "khmer": "ភាសាខ្មែរដែលល្អ",
    "burmese": "မြန်မာဘာသာစကား",
    "arabic": "الْعَرَبِيَّةُ لُغَةٌ",
}


def cutter(tokenizer: PreTrainedTokenizerFast) -> pre_tokenizers.PreTokenizer:
    return tokenizer.backend_tokenizer.pre_tokenizer


def pieces(pre_tokenizer: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_repair_keeps_clusters_whole(pattern: str, script: str) -> None:
    tokenizer, text = with_pattern(pattern), SCRIPTS[script]
    assert find_cuts(cutter(tokenizer), [text])[0]
    change = extend_vocabulary(tokenizer, [text] * 5, tokens=3)
    assert change.pattern_repair and not find_cuts(cutter(change.tokenizer), [text])[0]
    claims = {check.claim: check.passed for check in change.audit if "repaired" in check.claim}
    assert len(claims) == 2 and all(claims.values())
    plain = extend_vocabulary(tokenizer, [text] * 5, tokens=3, repair_script=False)
    assert not plain.pattern_repair and find_cuts(cutter(plain.tokenizer), [text])[0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_repair_cuts_text_as_before_where_no_mark_follows_a_letter(pattern: str) -> None:
    tokenizer = with_pattern(pattern)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    after = extend_vocabulary(
        tokenizer, ["กึ่ กึ่ กึ่"], tokens=1
    ).tokenizer.backend_tokenizer.pre_tokenizer

    assigned = st.characters(exclude_categories=["Cs", "Cn"])  # Python may not know newer marks

    @given(
        text=st.text(assigned, max_size=60)
        | st.text("ab ก ❤️👩🏽\u200d🚀'12,\n\u0301\ufe0f", max_size=20)
    )
    @settings(deadline=None)
    def holds(text: str) -> None:
        follows = any(
            unicodedata.category(b)[0] == "M" and unicodedata.category(a)[0] in "LM"
            for a, b in pairwise(text)
        )
        if not follows:
            assert pieces(before, text) == pieces(after, text)

    holds()


def test_joiners_ride_along_only_where_the_script_uses_them() -> None:
    persian, thai = "می‌خواهم کتاب‌ها را", SCRIPTS["thai"]
    tokenizer = with_pattern("gpt2")
    repair = propose_repair(tokenizer, [persian])
    assert repair and repair.joined == r"\p{Join_Control}"
    change = extend_vocabulary(tokenizer, [persian] * 3, tokens=2)
    assert not find_cuts(cutter(change.tokenizer), [persian])[0]
    family = "👩\u200d👩\u200d👧 hello"
    old, new = (t.backend_tokenizer.pre_tokenizer for t in (tokenizer, change.tokenizer))
    assert pieces(old, family) == pieces(new, family)
    repair = propose_repair(tokenizer, [thai])
    assert repair and repair.joined == r"\p{M}"


def test_a_rare_mark_does_not_change_the_pattern() -> None:
    """One decomposed accent in a text is no reason to touch the pattern of its language."""
    texts = ["árvíztűrő tükörfúrógép " * 200 + "cafe\u0301"]
    assert find_cuts(cutter(with_pattern("gpt2")), texts)[0].total() == 1
    assert propose_repair(with_pattern("gpt2"), texts) is None
    assert propose_repair(with_pattern("gpt2"), ["", "plain"]) is None


def test_a_prefix_space_survives_repair() -> None:
    """RoBERTa's pre-tokenizer puts a space before the text; the repaired one must, too."""
    tokenizer = train_tokenizer(["some English text, don't mind"], size=270)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    change = extend_vocabulary(tokenizer, [SCRIPTS["thai"]] * 5, tokens=3)
    assert not find_cuts(cutter(change.tokenizer), [SCRIPTS["thai"]])[0] and change.pattern_repair
    for text in ("some text", " some text", "", "  x", "a\nb"):
        assert (
            tokenizer.backend_tokenizer.encode(text).ids
            == change.tokenizer.backend_tokenizer.encode(text).ids
        )


def test_patterns_are_rewritten_by_the_least() -> None:
    assert join_to_letters(r"\p{L}+|[^\s\p{L}\p{N}]") == r"\p{L}[\p{L}\p{M}]*|[^\s\p{L}\p{N}]"
    assert join_to_letters(r"[\p{L}\p{M}]+|\w+") == r"[\p{L}\p{M}]+|\w+"
    assert join_to_letters(r"\[\p{L}") == r"\[\p{L}[\p{M}]*"
    assert join_to_letters(r"\p{L}*?[a\]ก]{2,}") == r"(?:\p{L}[\p{M}]*)*?(?:[a\]ก][\p{M}]*){2,}"
    assert join_to_letters(r"\p{L}++") == r"\p{L}[\p{L}\p{M}]*+"


@given(pattern=st.text(r"[]()\p{LN}+*?|^ a-z&", max_size=20))
def test_no_pattern_breaks_the_rewriting(pattern: str) -> None:
    """Whatever the pattern, rewriting ends, and changes nothing that takes no letter."""
    rewritten = join_to_letters(pattern)
    assert len(rewritten) >= len(pattern)
    if r"\p" not in pattern and "[" not in pattern:  # `\pL` is a letter, too
        assert rewritten == pattern


def test_a_rewritten_pattern_is_understood_by_the_library() -> None:
    for pattern in PATTERNS.values():
        if pattern:
            backend = Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.Split(
                Regex(join_to_letters(pattern)), "isolated"
            )
            assert pieces(backend.pre_tokenizer, "a กึ่ 12")[:2] == ["a", " กึ่"]


WITHIN = {
    "ukrainian": "п'ять об’єднань, П'ЯТЬ з'їздів",
    "hebrew": "צה\"ל וצה״ל ג'ירפה, ארה״ב",
    "catalan": "col·legi il·lusió paral·lel",
    "georgian": "კაცი'ს სახლი",
}


@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "qwen2"])
@pytest.mark.parametrize("language", WITHIN)
def test_words_with_something_inside_stay_whole_and_english_as_it_is(
    pattern: str, language: str
) -> None:
    tokenizer, text = with_pattern(pattern), WITHIN[language]
    english = ["I don't think it's O’Neill's \"book\", we'd say 'so'. Rock'n'roll at 5'6\" (isn’t)"]
    change = extend_vocabulary(tokenizer, [text] * 9, tokens=3, others={"en": english})
    assert change.pattern_repair and all(check.passed for check in change.audit)
    found = "".join(pieces(cutter(change.tokenizer), text))
    assert found == text
    words = {word for word in text.replace(",", " ").split() if not word.isalpha()}
    assert words <= {piece.strip() for piece in pieces(cutter(change.tokenizer), text)}
    for line in english:
        assert pieces(cutter(tokenizer), line) == pieces(cutter(change.tokenizer), line)


@pytest.mark.parametrize("text", ["to'siq bo'ldi", "l’home d'aigua", "vis-à-vis 5:4"])
def test_what_english_has_too_is_left_alone(text: str) -> None:
    assert propose_repair(with_pattern("gpt2"), [text] * 9) is None


def test_marks_and_what_stands_inside_are_repaired_together() -> None:
    text = 'צַהַ"ל שָׁלוֹם'
    repair = propose_repair(with_pattern("gpt2"), [text] * 9)
    assert repair and repair.joined == r"\p{M}" and '"' in repair.inside
    change = extend_vocabulary(with_pattern("gpt2"), [text] * 9, tokens=2)
    assert pieces(cutter(change.tokenizer), text) == ['צַהַ"ל', " שָׁלוֹם"]


@pytest.mark.parametrize(
    "text",
    [
        '他说"你好"然后走了。',
        "เขาพูดว่า'สวัสดี'แล้ว",
        "「東京」は'首都'です",
        '그는 "안녕"이라고 ‘말’은',
    ],
)
def test_quotation_marks_of_text_without_spaces_are_no_part_of_words(text: str) -> None:
    repair = propose_repair(with_pattern("llama3"), [text] * 9)
    assert repair is None or not repair.inside


@pytest.mark.parametrize("text", [*SCRIPTS.values(), "őrült búvár üt ½ 1234"])
def test_digits_after_bytes_split_no_character(text: str) -> None:
    """Falcon splits bytes at what looks like digits, such as the last byte of `ü`."""
    tokenizer = train_tokenizer(["some English text, 1234 don't mind Zürich"] * 3, size=300)
    digits = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
    parts = [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False)]
    parts += [pre_tokenizers.Digits(individual_digits=False), digits]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    english = ["In Zürich, 12345 people (½ of them) don't mind a café."]
    change = extend_vocabulary(tokenizer, [text] * 5, tokens=3, others={"en": english * 9})
    assert change.pattern_repair and not failed(change)
    assert "".join(pieces(cutter(change.tokenizer), text)) == text
    assert pieces(cutter(change.tokenizer), "a 12345") == ["a", " ", "123", "45"]
    plain = pre_tokenizers.Sequence(parts[:2])
    tokenizer.backend_tokenizer.pre_tokenizer = plain
    assert propose_repair(tokenizer, ["őrült búvár üt ½ 1234"]) is None


O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+"]
BYTES = pre_tokenizers.ByteLevel(False, use_regex=False)
SPLITS = {
    "one pattern": [pre_tokenizers.Split(Regex(O200K), "isolated"), BYTES],
    "one after another": [*(pre_tokenizers.Split(Regex(p), "isolated") for p in CODER), BYTES],
    "punctuation first": [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(False),
    ],
}


@pytest.mark.parametrize("name", SPLITS)
def test_what_is_said_to_be_joined_is_joined(name: str) -> None:
    """A class may have only small letters, and another part of the pattern may split again."""
    tokenizer = train_tokenizer(["some English text"] * 9, size=270)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(SPLITS[name])
    repair = propose_repair(tokenizer, ["п'ять об'єктів, з'їзд " * 9, "ОБ'ЄКТ"])
    assert bool(repair and repair.inside) == (name == "one pattern")
    if repair:
        after = without_model({"pre_tokenizer": repair.pre_tokenizer}).pre_tokenizer
        assert pieces(after, "п'ять ОБ'ЄКТ") == ["п'ять", " ОБ'ЄКТ"]


def test_what_others_have_is_left_and_the_rest_is_repaired() -> None:
    repair = propose_repair(with_pattern("gpt2"), ["п'ять об’єктів"] * 9, ["See Кам'янець."])
    assert repair and "’" in repair.inside and "'" not in repair.inside


def test_a_base_that_takes_letters_apart_is_repaired(corpora: dict[str, Corpus]) -> None:
    """The pattern sees the text in the normal form of the base."""
    base = llama3(english(corpora)["en"])
    base.backend_tokenizer.normalizer = normalizers.NFD()
    texts = ["Tiếng Việt là ngôn ngữ của người Việt và là ngôn ngữ chính thức."] * 50
    change = extend_vocabulary(base, texts, tokens=20)
    assert change.pattern_repair and not failed(change)
