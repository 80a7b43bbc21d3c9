"""Languages: names, scripts, writing directions and word boundaries."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate

import regex
from babel import Locale
from babel.core import get_global
from fontTools.unicodedata import script
from icu4py.breakers import WordBreaker

from .files import package_yaml

NO_LANGUAGE = "zxx"  # in ISO 639-2: no linguistic content
KNOWN = package_yaml("languages.yaml")
Texts = Mapping[str, Sequence[str]]  # by language
Shares = Mapping[str, float]  # by language
Spans = list[tuple[int, int]]  # start and end of each word, in characters
LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
SEGMENTER = "ICU words"


def language_name(code: str) -> str:
    """Return the English name of a language, or its code if the CLDR has none.

    Example:
        >>> language_name("hu"), language_name("qqq")
        ('Hungarian', 'qqq')
    """
    return "No language" if code == NO_LANGUAGE else str(Locale("en").languages.get(code, code))


def code_with_script(code: str) -> str:
    """Return the name of a language in multilingual data sets: ISO 639-3 and ISO 15924.

    Example:
        >>> code_with_script("hu"), code_with_script("zh"), code_with_script("ceb")
        ('hun_Latn', 'cmn_Hani', 'ceb_Latn')
    """
    script = get_global("likely_subtags").get(code, f"{code}_Latn").split("_")[1]
    aliases = get_global("language_aliases").items()
    longer = (long for long, short in aliases if short == code and len(long) == 3)
    three = code if len(code) == 3 else next(longer, code)
    return f"{KNOWN['codes'].get(code, three)}_{KNOWN['scripts'].get(script, script)}"


@cache
def columns_of(language: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return the columns of a language that have English beside them in a column named alike.

    Args:
        language: code; columns of English have another language beside them.
        names: of columns, with codes or names of languages, in capitals or not.

    Example:
        >>> columns_of("hu", ("id", "text_en", "text_hu")), columns_of("en", ("HUN", "ENG"))
        ({'text_hu': 'text_en'}, {'ENG': 'HUN'})
    """
    known = filter(str.isalpha, map(str, Locale("en").languages))
    others, lower = (
        (["en"] if language != "en" else [*known]),
        {name.lower(): name for name in names},
    )
    found: dict[str, str] = {}
    for spelling in (str, code_with_script, lambda code: code_with_script(code)[:3], language_name):
        own = regex.compile(rf"(?<!\pL)(?i:{regex.escape(spelling(language))})(?!\pL)")
        for name in (name for name in names if own.search(name)):
            beside = {own.sub(spelling(code), name).lower() for code in others} - {name.lower()}
            found.update((name, lower[other]) for other in lower.keys() & beside)
    return found


def direction(code: str) -> str:
    """Return `rtl` for a language that is written from right to left, else `ltr`.

    Example:
        >>> direction("he"), direction("hu"), direction("")
        ('rtl', 'ltr', 'ltr')
    """
    return "rtl" if code_with_script(code)[-4:] in KNOWN["right_to_left"] else "ltr"


def script_counts(text: str) -> Counter[str]:
    """Count the letters of a text by the code of their script, without those of several scripts.

    Example:
        >>> script_counts("ház, บ้าน 12").most_common()
        [('Latn', 3), ('Thai', 3)]
    """
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha() and (own := script(character)) not in KNOWN["no_script"]:
            counts[own] += count
    return counts


def has_words(text: str) -> bool:
    """Return whether ICU finds the words of a text, by spaces or by a dictionary (Thai, Lao, Khmer,
    Burmese, Chinese, Japanese).

    Example:
        >>> has_words("ภาษาไทย"), has_words("བོད་ཡིག")
        (True, False)
    """
    scripts = script_counts(text)
    return not scripts or scripts.most_common(1)[0][0] not in KNOWN["without_words"]


def word_spans(text: str, language: str) -> Spans:
    """Return start and end of each word of a text, in characters.

    ICU finds the words, by Unicode's rules (UAX #29). A word contains a letter or a digit.

    Args:
        text: to split into words.
        language: code, such as `hu`.

    Example:
        >>> word_spans("Jó napot!", "hu")
        [(0, 2), (3, 8)]
    """
    wide = any(character > "\uffff" for character in text)  # ICU counts them twice
    units = list(accumulate((1 + (c > "\uffff") for c in text), initial=0)) if wide else ()
    places = {unit: place for place, unit in enumerate(units)}
    segments = WordBreaker(text, language).segments()
    spans = ((places.get(start, start), places.get(end, end)) for start, end in segments)
    return [span for span in spans if LETTER_OR_DIGIT.search(text, *span)]
