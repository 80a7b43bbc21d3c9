"""Methods that make embeddings for new tokens: rules over one small interface.

Wherever it can, a method says with which weights each new embedding is mixed from old ones. So one
sparse product makes all, and the provenance of each can be asked afterwards.

Axes: V tokens of the old vocabulary, N new tokens, D dimensions of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from ..tokens import is_byte_level, surface_bytes, vocabulary_bytes
from ..vocabulary.change import VocabularyChange

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """What a method is given.

    Attributes:
        change: the change of the vocabulary.
        seed: for methods that draw random numbers.
    """

    change: VocabularyChange
    seed: int = 0

    @cached_property
    def pieces(self) -> tuple[Ids, Ids]:
        """Two columns: the place of each new token, and a base token that spells it."""
        pieces = [self.change.base_pieces[new] for new in self.change.added]
        places = np.repeat(np.arange(len(pieces)), [len(ids) for ids in pieces])
        return places, np.fromiter(chain.from_iterable(pieces), dtype=np.int64)

    def generator(self) -> torch.Generator:
        """Return a fresh source of random numbers."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class NewEmbeddings:
    """Embeddings of new tokens, and their provenance.

    Attributes:
        vectors_ND: in float32, in the order of `VocabularyChange.added`.
        weights_NV: sparse: how much of each old embedding is in each new one; None for those that
            are drawn.
        note: in words.
        noisy: positions of embeddings that equalled another one and were changed by a little noise.
    """

    vectors_ND: torch.Tensor
    weights_NV: torch.Tensor | None
    note: str
    noisy: frozenset[int] = frozenset()


Rule = Callable[[torch.Tensor, Request], NewEmbeddings]
Method = tuple[Rule, Rule]  # for input embeddings, and for an LM head that has its own


def random_normal(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Draw independent normal numbers with the mean and the spread of all old entries.

    Source: the new embeddings of Csaki et al., arXiv 2311.05741, are random.
    """
    shape = len(request.change.added), old_VD.shape[1]
    drawn_ND = torch.randn(shape, generator=request.generator())
    vectors_ND = drawn_ND * old_VD.std() + old_VD.mean()
    return NewEmbeddings(vectors_ND, None, "drawn: normal, as all old entries")


def mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Give every new token the average of all old embeddings.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    vectors_ND = old_VD.mean(dim=0).expand(len(request.change.added), -1)
    return NewEmbeddings(vectors_ND, None, f"mean of all {len(old_VD):,} embeddings")


def subword_mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Average the embeddings of the base tokens that spelled the new token before.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    return _averaged(old_VD, request, *request.pieces, note="mean of its pieces")


def length_weighted(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Average its pieces, each weighted by its number of characters.

    Source: the LM head of "Beyond Initialization Loss", arXiv 2608.03494.
    """
    new, old = request.pieces
    note = "mean of its pieces, weighted by their characters"
    return _averaged(old_VD, request, new, old, _lengths(request)[old], note=note)


def first_piece(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Take the embedding of the first piece.

    Source: the LM head of EEVE, Kim et al. 2024, arXiv 2402.14714: what comes next begins with that
    piece.
    """
    new, old = request.pieces
    first = np.flatnonzero(np.diff(new, prepend=-1))
    return _averaged(old_VD, request, new[first], old[first], note="its first piece")


def characters(raw: bytes) -> float:
    """Return the number of characters in a byte string; a partial one counts as a fraction.

    One byte of a 3-byte Thai letter is 1/3, and so is a byte inside a character begun elsewhere.

    Example:
        >>> characters("ház".encode()), characters("ก".encode()[:1])
        (3.0, 0.3333333333333333)
    """
    count, left, part = 0.0, 0, 1 / 3
    for byte in raw:
        if not 0x80 <= byte < 0xC0:
            left = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            part = 1 / left
        count += part if left else 1 / 3
        left = max(0, left - 1)
    return count


def _lengths(request: Request) -> Weights:
    """Return the characters of each base token, by its old id."""
    change, byte_level = request.change, is_byte_level(request.change.tokenizer)
    lengths = np.zeros(max(*change.new_to_old.values(), *change.removed) + 1)
    raw = vocabulary_bytes(change.tokenizer)  # but of special tokens
    for new, old in change.new_to_old.items():
        lengths[old] = characters(raw.get(new, b""))
    for old, surface in change.removed.items():
        lengths[old] = characters(surface_bytes(surface, byte_level=byte_level))
    return np.maximum(lengths, 1 / 3)  # a special token may stand for what the base does not know


def _averaged(
    old_VD: torch.Tensor,
    request: Request,
    new: Ids,
    old: Ids,
    weights: Weights | None = None,
    *,
    note: str,
) -> NewEmbeddings:
    """Return weighted means of old embeddings: one sparse product."""
    shape = len(request.change.added), len(old_VD)
    weights = np.ones(len(new)) if weights is None else weights
    shares = torch.from_numpy(weights / np.bincount(new, weights, shape[0])[new]).float()
    places = torch.from_numpy(np.stack([new, old]))
    weights_NV = torch.sparse_coo_tensor(places, shares, shape, check_invariants=False).coalesce()
    return NewEmbeddings(torch.sparse.mm(weights_NV, old_VD), weights_NV, note)
