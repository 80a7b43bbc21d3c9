"""Methods for embeddings of new tokens.

If possible, a method returns the weights with which each new embedding is mixed from old ones. Then
one sparse product computes all new embeddings, and the provenance of each is known.

Axes: V tokens of the old vocabulary, N new tokens, D dimensions of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from ..vocabulary.change import VocabularyChange


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


# From old embeddings, a change of the vocabulary, and a seed.
Rule = Callable[[torch.Tensor, VocabularyChange, int], NewEmbeddings]


def random_normal(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Draw normal numbers with the mean and standard deviation of all old entries.

    Source: the new embeddings of Csaki et al., arXiv 2311.05741, are random.
    """
    shape = len(change.added), old_VD.shape[1]
    drawn_ND = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    vectors_ND = drawn_ND * old_VD.std() + old_VD.mean()
    return NewEmbeddings(vectors_ND, None, "drawn: normal, as all old entries")


def mean(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Give every new token the mean of all old embeddings.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    vectors_ND = old_VD.mean(dim=0).expand(len(change.added), -1)
    return NewEmbeddings(vectors_ND, None, f"mean of all {len(old_VD):,} embeddings")


def subword_mean(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Return the mean of the embeddings of the base tokens that spell the new token.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    shape, pieces = (len(change.added), len(old_VD)), [change.base_pieces[n] for n in change.added]
    new = np.repeat(np.arange(len(pieces)), [len(ids) for ids in pieces])
    old = np.fromiter(chain.from_iterable(pieces), dtype=np.int64)
    shares = torch.from_numpy(1 / np.bincount(new, minlength=shape[0])[new]).float()
    places = torch.from_numpy(np.stack([new, old]))
    weights_NV = torch.sparse_coo_tensor(places, shares, shape, check_invariants=False).coalesce()
    return NewEmbeddings(torch.sparse.mm(weights_NV, old_VD), weights_NV, "mean of its pieces")
