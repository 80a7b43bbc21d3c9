"""Repeats: documents that stand in a text more than once, letter by letter or nearly.

Nearly is at least four fifths of all runs of 25 characters, estimated by MinHash (Broder 1997) with
the library datasketch, on text without case, marks of form and double spaces.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
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
        band = np.ascontiguousarray(signatures[:, start : start + BAND])
        _, groups, sizes = np.unique(band, axis=0, return_inverse=True, return_counts=True)
        groups = groups.ravel()
        members: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(sizes[groups] > 1).tolist():
            members[int(groups[row])].append(row)
        for first, *others in members.values():
            same = (signatures[others] == signatures[first]).mean(axis=1) >= NEAR
            for row in np.array(others)[same].tolist():
                found.setdefault(row, found.get(first, first))
    return found
