"""Whether text that is measured on was trained on: long n-grams of characters that both have.

A document may be copied into another corpus with other spaces or letters in another case; its long
n-grams still show it, as in Brown et al. 2020, arXiv 2005.14165, appendix C. Characters, not words,
because Thai has no spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorpusError
from .documents import at_most_of_each_source
from .items import ITEM_KINDS, item_texts

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from .corpus import Corpus

    Hashes = npt.NDArray[np.uint64]

GRAM = 50  # characters, about nine English words
CONTAMINATED = (
    0.5  # of a text's n-grams: more is a copy, less may be a quotation or a phrase of the trade
)
AT_ONCE = 2_000_000  # characters of training text that are hashed at once
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
INVERSE = np.uint64(pow(int(FACTOR), -1, 2**64))


def find_contamination(
    trained: Iterable[str], tests: Mapping[Any, str], *, gram: int = GRAM
) -> pd.Series:
    """The share of each test text's n-grams that occur in training text.

    Args:
        trained: texts that were, or will be, trained on; read once, in little memory.
        tests: texts to measure on, by name. Those shorter than an n-gram are looked for whole (1 or
            0), those of less than a fifth of one are not (NaN).
        gram: n, in characters; runs of whitespace count as one, case does not count.

    Returns:
        Shares from 0 to 1, by name, the largest first.

    Example:
        >>> story = "Once upon a time there was a language that nobody wrote down but everybody sang."
        >>> find_contamination(["A preface. " + story.upper()], {"story": story, "other": story[::-1]}).to_dict()
        {'story': 1.0, 'other': 0.0}
    """
    import pandas as pd

    normalised = {name: _normalised(text) for name, text in tests.items()}
    short = {name: text for name, text in normalised.items() if gram / 5 <= len(text) < gram}
    seen_whole: set[Any] = set()
    hashes = {name: _hashes(text, gram) for name, text in normalised.items()}
    known = np.unique(np.concatenate([*hashes.values(), np.zeros(0, dtype=np.uint64)]))
    found = np.zeros(len(known), dtype=bool)
    for text in _joined(trained):
        seen_whole.update(name for name, one in short.items() if one in text)
        if not len(known):
            continue
        seen = _hashes(text, gram)
        places = np.minimum(np.searchsorted(known, seen), len(known) - 1)
        found[places[known[places] == seen]] = True
    shares = {
        name: float(found[np.searchsorted(known, some)].mean()) if len(some) else np.nan
        for name, some in hashes.items()
    }
    shares |= {name: float(name in seen_whole) for name in short}
    return pd.Series(shares, dtype=float).sort_values(ascending=False, kind="stable")


def check_contamination(corpus: Corpus, *, documents: int = 1_000) -> pd.DataFrame:
    """Make sure that nothing that the run measures on is among what it learns from.

    The vocabulary and the model learn from `corpus.train`; held-out documents and the built-in
    items measure.

    Args:
        corpus: to be checked.
        documents: of each source, as many as `evaluate` takes.

    Returns:
        A row for each kind of test text: `tests`, how many, and `largest_share` of n-grams that any
        of them shares with training text.

    Raises:
        CorpusError: a test text is in the training text.
    """
    import pandas as pd

    rows = []
    for code in ("en", corpus.language):
        held = at_most_of_each_source(corpus.heldout[code], documents)
        tests = [("held-out documents", row["id"], row["text"]) for row in held]
        tests += [
            (f"items: {kind}", *item)
            for kind in ITEM_KINDS
            for item in item_texts(kind, code).items()
        ]
        shares = find_contamination(
            corpus.train[code]["text"], {place: text for place, (*_, text) in enumerate(tests)}
        )
        for place, share in shares[shares > CONTAMINATED].items():
            kind, name, _ = tests[place]
            raise CorpusError(
                f"'{name}' of the {kind} in '{code}' is in the training text too ({share:.0%} of its n-grams of {GRAM} "
                f"characters; {(shares > CONTAMINATED).sum()} such texts in all): remove it from one of them, or set "
                "corpus.contamination=drop, which does not measure on held-out documents like it"
            )
        for kind in dict.fromkeys(kind for kind, *_ in tests):
            here = [place for place, (other, *_) in enumerate(tests) if other == kind]
            rows.append([code, kind, len(here), shares[here].max()])  # NaN where all are too short
    return pd.DataFrame(rows, columns=["language", "measured_on", "tests", "largest_share"])


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def _joined(texts: Iterable[str]) -> Iterable[str]:
    """Texts put together to a size that is worth hashing; no n-gram of a test goes over a seam."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(_normalised(text))
        size += len(waiting[-1])
        if size >= AT_ONCE:
            yield "\0".join(waiting)
            waiting, size = [], 0
    yield "\0".join(waiting)


def _hashes(text: str, gram: int) -> Hashes:
    """A hash of every n-gram: a polynomial modulo 2^64, from differences of running sums."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
    if len(letters) < gram:
        return np.zeros(0, dtype=np.uint64)
    letters = (letters + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    letters ^= letters >> np.uint64(29)  # so that neighbouring letters have unlike numbers
    sums = np.concatenate([[np.uint64(0)], np.cumsum(letters * _powers(INVERSE, len(letters)))])
    hashes: Hashes = (sums[gram:] - sums[:-gram]) * _powers(FACTOR, len(letters) - gram + 1)
    return hashes


def _powers(factor: np.uint64, count: int) -> Hashes:
    powers = np.full(count, factor, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)
