"""Repeats: documents that stand in a text more than once, letter by letter or nearly.

Nearly is at least four fifths of all runs of 25 characters, estimated by MinHash (Broder 1997) with
the library datasketch, on text without case, marks of form and double spaces.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from .contamination import hashes_of_runs, normalised

RUN = 25  # characters
NEAR = 0.8  # of the runs that two documents have in one of them
PERMUTATIONS, BAND = 64, 4  # numbers of a signature, and how many of them must agree to look closer
SAMPLE = 4  # of as many runs one is looked at, in documents of more than LONG characters
LONG = 500  # shorter documents are only compared letter by letter


def find_repeats(texts: Iterable[str]) -> tuple[dict[int, int], dict[int, int]]:
    """Find the documents that repeat an earlier one.

    Args:
        texts: of the documents, read once.

    Returns:
        Place of a document to the place of the first like it: those that are equal, and those that
        are nearly so.
    """
    first: dict[bytes, int] = {}
    equal: dict[int, int] = {}
    places, signatures = [], []
    for place, text in enumerate(texts):
        plain = normalised(text)
        digest = hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=16).digest()
        if (earlier := first.setdefault(digest, place)) != place:
            equal[place] = earlier
        elif len(plain) >= LONG:
            places.append(place)
            signatures.append(_signature(plain))
    near = _alike(np.array(signatures)) if signatures else {}
    return equal, {places[later]: places[earlier] for later, earlier in near.items()}


def _signature(text: str) -> npt.NDArray[np.uint32]:
    runs = np.unique(hashes_of_runs(text, RUN))
    sampled = runs[runs % SAMPLE == 0] >> np.uint64(32)
    minhash = MinHash(PERMUTATIONS, hashfunc=int)
    minhash.update_batch(sampled.tolist())
    return np.asarray(minhash.hashvalues, dtype=np.uint32)


def _alike(signatures: npt.NDArray[np.uint32]) -> dict[int, int]:
    """Return rows that agree with an earlier one in enough of their numbers, to that one."""
    found: dict[int, int] = {}
    for start in range(0, PERMUTATIONS, BAND):
        first: dict[bytes, int] = {}
        for row, band in enumerate(signatures[:, start : start + BAND]):
            earlier = first.setdefault(band.tobytes(), row)
            if earlier != row and (signatures[row] == signatures[earlier]).mean() >= NEAR:
                found.setdefault(row, found.get(earlier, earlier))
    return found
