"""Contamination (evaluation text that also occurs in training text) and repeated documents.

Evaluation text is found by long n-grams, as in Brown et al. 2020, arXiv 2005.14165, appendix C. So
a copy with other spaces or another case is found. The n-grams are of characters, because Thai has
no spaces between words. Near repeats of documents share at least 80 % of their 25-character runs,
estimated by MinHash (Broder 1997) with the library datasketch.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import regex
from more_itertools import chunked, constrained_batches

Hashes = npt.NDArray[np.uint64]

# Soft hyphens, tatweel and the vowel signs of Arabic.
INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u0640\u064b-\u0652]+")
SAME = str.maketrans("’‘ʼʻ`şţŞŢيىك", "'''''șțȘȚییک")  # old Romanian; Arabic letters in Persian
# Spaces beside characters of scripts that have none between words, such as Thai and Chinese.
SPACELESS = r"[\p{LB=SA}\p{Ideo}\p{sc=Hira}\p{sc=Kana}]"
SPACES = regex.compile(rf"\s+(?={SPACELESS})|(?<={SPACELESS})\s+")
GRAM = 50  # characters, about nine English words
# Fraction of a text's n-grams: more is a copy, less may be a quotation or a common phrase.
CONTAMINATED = 0.5
RUN = 25  # characters
NEAR = 0.8  # fraction of the runs of two documents that both contain
PERMUTATIONS, BAND = 64, 4  # numbers of a signature; how many must agree for a full comparison
SAMPLE = 4  # one of this many runs enters the signature
LONG = 500  # characters; shorter documents are only compared exactly
AT_ONCE = 2_000_000  # characters of training text that are hashed at once
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, as for every polynomial hash modulo 2^64


def find_contamination(
    trained: Iterable[str], tests: Mapping[Any, str], *, gram: int = GRAM
) -> pd.Series:
    """Return the fraction of each test text's n-grams that occur in training text.

    Args:
        trained: training texts; read once, in little memory.
        tests: evaluation texts, by name. A text shorter than an n-gram is searched as a whole (1 or
            0); a text shorter than a fifth of an n-gram is not searched (NaN).
        gram: characters of an n-gram. Case and repeated whitespace are ignored.

    Returns:
        Fractions from 0 to 1 by name, the largest first.

    Example:
        >>> story = "Once upon a time there was a language that nobody wrote down, but sang."
        >>> tests = {"story": story, "other": story[::-1]}
        >>> find_contamination(["A preface. " + story.upper()], tests).to_dict()
        {'story': 1.0, 'other': 0.0}
    """
    plain = {name: normalised(text) for name, text in tests.items()}
    short = {name: text for name, text in plain.items() if gram / 5 <= len(text) < gram}
    seen_whole: set[Any] = set()
    hashes = {name: hashes_of_runs(text, gram) for name, text in plain.items()}
    known = np.unique(np.concatenate([*hashes.values(), np.zeros(0, dtype=np.uint64)]))
    found = np.zeros(len(known), dtype=bool)
    for texts in constrained_batches(map(normalised, trained), AT_ONCE, strict=False):
        joined = "\0".join(texts)  # no n-gram of a test crosses a seam
        seen_whole.update(name for name, text in short.items() if text in joined)
        runs = hashes_of_runs(joined, gram) if len(known) else known
        # The texts are long and `known` is sorted: np.isin would build a set of all runs first.
        places = np.searchsorted(known, runs)
        found[places[known.take(places, mode="clip") == runs]] = True
    parts = {name: found[np.searchsorted(known, own)] for name, own in hashes.items()}
    fractions = {n: float(part.mean()) if len(part) else np.nan for n, part in parts.items()}
    fractions |= {name: float(name in seen_whole) for name in short}
    return pd.Series(fractions, dtype=float).sort_values(ascending=False, kind="stable")


def normalised(text: str) -> str:
    """Return a text without differences of case, spaces, Unicode form and invisible characters.

    Example:
        >>> normalised("Ár\\u00advíz  ") == normalised("A\\u0301RVÍZ")
        True
    """
    plain = unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).translate(SAME)
    return " ".join(SPACES.sub("", plain).casefold().split())


def is_long(text: str) -> bool:
    """Return whether a text has more than a phrase that others may have by chance."""
    return len(" ".join(text.split())) >= GRAM


def hashes_of_runs(text: str, gram: int) -> Hashes:
    """Return a hash of every n-gram: a polynomial modulo 2^64.

    Example:
        >>> first, second, third = hashes_of_runs("abab", 2).tolist()
        >>> first == third != second
        True
    """
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = max(0, len(letters) - gram + 1)
    hashes: Hashes = np.zeros(count, dtype=np.uint64)
    for column in range(gram if count else 0):
        hashes = hashes * FACTOR + letters[column : column + count]
    return hashes


def find_repeats(texts: Iterable[str]) -> tuple[dict[int, int], dict[int, int]]:
    """Find the documents that repeat an earlier one.

    Args:
        texts: of the documents; read once.

    Returns:
        Two dictionaries, for equal and for nearly equal documents: index of a document to the index
        of the first document like it.
    """
    digests, places, signatures = bytearray(), list[int](), bytearray()
    for place, text in enumerate(texts):
        plain = normalised(text)
        digests += hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest()
        if len(plain) >= LONG:
            places.append(place)
            signatures += _signature(plain).tobytes()
    hashes = np.frombuffer(digests, dtype=np.uint64)
    _, first, text_of = np.unique(hashes, return_index=True, return_inverse=True)
    equal = {place: int(like) for place, like in enumerate(first[text_of]) if like < place}
    alike = _alike(np.frombuffer(signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)).items()
    return equal, {places[a]: places[b] for a, b in alike if places[a] not in equal}


def _signature(text: str) -> npt.NDArray[np.uint32]:
    from datasketch import MinHash  # takes a third of a second

    runs = np.unique(hashes_of_runs(text, RUN))
    chosen = runs[runs % SAMPLE == 0]
    sampled = (chosen if len(chosen) else runs) >> np.uint64(32)  # few runs may have none in it
    minhash = MinHash(PERMUTATIONS, hashfunc=int)
    for some in chunked(sampled.tolist(), 10_000):  # each takes half a kilobyte
        minhash.update_batch(some)
    return np.asarray(minhash.hashvalues, dtype=np.uint32)


def _alike(signatures: npt.NDArray[np.uint32]) -> dict[int, int]:
    """Return rows that agree with an earlier row in enough numbers, with that row."""
    found: dict[int, int] = {}
    for start in range(0, PERMUTATIONS, BAND):
        first: dict[bytes, int] = {}
        for row, band in enumerate(signatures[:, start : start + BAND]):
            earlier = first.setdefault(band.tobytes(), row)
            if earlier != row and (signatures[row] == signatures[earlier]).mean() >= NEAR:
                found.setdefault(row, found.get(earlier, earlier))
    return found
