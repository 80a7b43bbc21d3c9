"""Languages: their names, scripts, directions, and where their words are."""

from __future__ import annotations

from collections.abc import Callable

import regex
from babel import Locale, UnknownLocaleError
from fontTools.unicodedata import script

NO_LANGUAGE, ANY_LANGUAGE = "zxx", "und"  # in ISO 639-2: no linguistic content, undetermined
Spans = list[tuple[int, int]]  # start and end of each word, in characters
OF_SEVERAL_SCRIPTS = {"Zyyy", "Zinh", "Zzzz"}  # in Unicode: common, inherited, unknown
LETTER_RUN = regex.compile(r"[\p{L}\p{M}\p{N}]+")


def language_name(code: str) -> str:
    """Return the English name of a language, or its code where nobody knows one.

    Example:
        >>> language_name("hu"), language_name("qqq")
        ('Hungarian', 'qqq')
    """
    names = {NO_LANGUAGE: "No language", ANY_LANGUAGE: "lm-eval"}
    return names.get(code) or str(Locale("en").languages.get(code, code))


def direction(code: str) -> str:
    """Return `rtl` where a language is written from right to left, else `ltr`.

    Example:
        >>> direction("he"), direction("hu"), direction("")
        ('rtl', 'ltr', 'ltr')
    """
    try:
        return "rtl" if Locale.parse(code).character_order == "right-to-left" else "ltr"
    except (UnknownLocaleError, ValueError):
        return "ltr"


def scripts_of(text: str) -> set[str]:
    """Return the scripts of the letters in a text by their Unicode codes.

    Example:
        >>> sorted(scripts_of("ház, บ้าน 12"))
        ['Latn', 'Thai']
    """
    return {script(letter) for letter in text if letter.isalpha()} - OF_SEVERAL_SCRIPTS


def letter_runs(text: str) -> Spans:
    """Find words of a language with spaces: runs of letters, combining marks and digits."""
    return [match.span() for match in LETTER_RUN.finditer(text)]


def thai_words(text: str) -> Spans:
    """Find Thai words by the dictionary-based segmenter `newmm` of pythainlp (maximal matching)."""
    from pythainlp.tokenize import word_tokenize

    spans, start = [], 0
    for piece in word_tokenize(text, engine="newmm", keep_whitespace=True):
        if LETTER_RUN.search(piece):
            spans.append((start, start + len(piece)))
        start += len(piece)
    return spans


SEGMENTERS: dict[str, tuple[str, Callable[[str], Spans]]] = {"th": ("pythainlp newmm", thai_words)}
BY_SPACES = ("letter runs", letter_runs)


def word_spans(text: str, language: str) -> Spans:
    """Return where the words of a text are, in characters, by the language's segmenter.

    Example:
        >>> word_spans("Jó napot!", "hu")
        [(0, 2), (3, 8)]
    """
    return SEGMENTERS.get(language, BY_SPACES)[1](text)
