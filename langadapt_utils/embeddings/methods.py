"""Methods for embeddings of new tokens.

If possible, a method returns the weights with which each new embedding is mixed from old ones. Then
one sparse product computes all new embeddings, and the provenance of each is known.

Axes: V tokens of the old vocabulary, N new tokens, D dimensions of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch

from ..intervals import Numbers
from ..tokens import Ids, is_byte_level, surface_bytes, vocabulary_bytes
from ..vocabulary.change import VocabularyChange


@dataclass(frozen=True)
class Request:
    """The input of a method.

    Attributes:
        change: of the vocabulary.
        seed: for random methods.
    """

    change: VocabularyChange
    seed: int = 0

    @cached_property
    def pieces(self) -> tuple[Ids, Ids]:
        """Pairs of a new token (its index) and a base token (its id) that spells part of it."""
        pieces = [self.change.base_pieces[new] for new in self.change.added]
        places = np.repeat(np.arange(len(pieces)), [len(ids) for ids in pieces])
        return places, np.fromiter(chain.from_iterable(pieces), dtype=np.int64)

    def generator(self) -> torch.Generator:
        """Return a new generator of random numbers."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class NewEmbeddings:
    """Embeddings of new tokens, with their provenance.

    Attributes:
        vectors_ND: in float32, in the order of `VocabularyChange.added`.
        weights_NV: sparse weights of old embeddings in new ones; None for random embeddings.
        note: description of the method.
        noisy: positions of embeddings that equalled another one and were changed by a little noise.
    """

    vectors_ND: torch.Tensor
    weights_NV: torch.Tensor | None
    note: str
    noisy: frozenset[int] = frozenset()


Rule = Callable[[torch.Tensor, Request], NewEmbeddings]


def random_normal(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Draw normal numbers with the mean and standard deviation of all old entries.

    Source: the new embeddings of Csaki et al., arXiv 2311.05741, are random.
    """
    shape = len(request.change.added), old_VD.shape[1]
    drawn_ND = torch.randn(shape, generator=request.generator())
    vectors_ND = drawn_ND * old_VD.std() + old_VD.mean()
    return NewEmbeddings(vectors_ND, None, "drawn: normal, as all old entries")


def mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Give every new token the mean of all old embeddings.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    vectors_ND = old_VD.mean(dim=0).expand(len(request.change.added), -1)
    return NewEmbeddings(vectors_ND, None, f"mean of all {len(old_VD):,} embeddings")


def subword_mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Return the mean of the embeddings of the base tokens that spell the new token.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    return _averaged(old_VD, request, *request.pieces, note="mean of its pieces")


def length_weighted(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Return the mean of the embeddings of the base tokens, weighted by their characters.

    Source: the LM head of "Beyond Initialization Loss", arXiv 2608.03494.
    """
    new, old = request.pieces
    note = "mean of its pieces, weighted by their characters"
    return _averaged(old_VD, request, new, old, _lengths(request)[old], note=note)


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


def _lengths(request: Request) -> Numbers:
    """Return the number of characters of each base token, by its old id."""
    change, byte_level = request.change, is_byte_level(request.change.tokenizer)
    lengths = np.zeros(max(*change.new_to_old.values(), *change.removed) + 1)
    raw = vocabulary_bytes(change.tokenizer)  # special tokens have no entry
    for new, old in change.new_to_old.items():
        lengths[old] = characters(raw.get(new, b""))
    for old, surface in change.removed.items():
        lengths[old] = characters(surface_bytes(surface, byte_level=byte_level))
    return np.maximum(lengths, 1 / 3)  # a special token may spell what the base does not know


def _averaged(
    old_VD: torch.Tensor,
    request: Request,
    new: Ids,
    old: Ids,
    weights: Numbers | None = None,
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
