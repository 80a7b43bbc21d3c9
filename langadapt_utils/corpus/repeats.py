"""Repeats: documents that occur more than once, exactly or nearly.

Near repeats share at least 80 % of their 25-character runs, estimated by MinHash (Broder 1997) with
the library datasketch. Case, Unicode form and double spaces are ignored.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .contamination import hashes_of_runs, normalised

RUN = 25  # characters
NEAR = 0.8  # fraction of the runs of two documents that both contain
PERMUTATIONS, BAND = 64, 4  # numbers of a signature; how many must agree for a full comparison
SAMPLE = 4  # one of this many runs enters the signature
LONG = 500  # characters; shorter documents are only compared exactly


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
    sampled = runs[runs % SAMPLE == 0] >> np.uint64(32)
    minhash = MinHash(PERMUTATIONS, hashfunc=int)
    minhash.update_batch(sampled.tolist())
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
