"""Methods that make rows for new tokens: a registry over one small interface.

Wherever it can, a method says with which weights each new row is mixed from old ones. So one sparse
product makes all rows, and where a row came from can be asked afterwards.

Axes: V rows of the old vocabulary, N new tokens, D dimensions of a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from ..languages import scripts_of
from ..tokens import is_byte_level, surface_bytes, vocabulary_bytes
from ..vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel

    from ..models import Base

    Ids = npt.NDArray[np.int64]
    Weights = npt.NDArray[np.float64]

Made = TypeVar("Made")

SHRUNK = 1e-9  # by how much `transformers` shrinks the covariance of all rows
FEW = 20  # rows of a script, below which their lengths say nothing


@dataclass(frozen=True)
class Request:
    """What a method is given.

    Attributes:
        model: the base model, which stays as it is.
        change: the change of its vocabulary.
        seed: for methods that draw random numbers.
        texts: text of the target language, for methods that look at it.
        english: text of English, for methods that guard it.
        donor: another model that knows the new tokens, for methods that look at it.
    """

    model: PreTrainedModel
    change: VocabularyChange
    seed: int = 0
    texts: Sequence[str] | None = None
    english: Sequence[str] | None = None
    donor: Base | None = None
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def pieces(self) -> tuple[Ids, Ids]:
        """The place of each new token among the new, and a base token that spells it: two columns
        of equal length.
        """
        spelled = [self.change.base_pieces[new] for new in self.change.added]
        lengths = [len(ids) for ids in spelled]
        return np.repeat(np.arange(len(spelled)), lengths), np.fromiter(
            chain.from_iterable(spelled), dtype=np.int64
        )

    @cached_property
    def bytes_of(self) -> dict[int, bytes]:
        """The bytes of every token of the adapted tokenizer, by its new id; special tokens have
        none.
        """
        return vocabulary_bytes(self.change.tokenizer)

    def generator(self) -> torch.Generator:
        """A fresh source of random numbers."""
        return torch.Generator().manual_seed(self.seed)

    def once(self, make: Callable[[Request], Made]) -> Made:
        """What a function makes of this request; made at the first call, as input and output rows
        may share it.
        """
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made


@dataclass(frozen=True)
class NewEmbeddings:
    """Rows of new tokens, and where they came from.

    Attributes:
        rows_ND: in float32, in the order of `VocabularyChange.added`.
        weights_NV: sparse: how much of each old row is in each new one; None for rows that are
            drawn or learned.
        note: in words.
        twins: places of rows that would be the same as another row, and got a little noise.
    """

    rows_ND: torch.Tensor
    weights_NV: torch.Tensor | None
    note: str
    twins: frozenset[int] = frozenset()


Rule = Callable[[torch.Tensor, Request], NewEmbeddings]


@dataclass(frozen=True)
class Method:
    """A rule for the rows that a model reads with, one for those it writes with, and one for a tied
    model's.

    Without the last, a tied model gets the rows for reading.
    """

    input: Rule
    output: Rule
    tied: Rule | None = None

    @property
    def halved(self) -> bool:
        """Whether a tied model gets half of what the method is."""
        return self.tied is None and self.input is not self.output


def random_normal(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Independent normal numbers with the mean and the spread of all old entries.

    Source: the new rows of Csaki et al., arXiv 2311.05741, are random.
    """
    noise_ND = torch.randn(
        len(request.change.added), old_VD.shape[1], generator=request.generator()
    )
    return NewEmbeddings(
        noise_ND * old_VD.std() + old_VD.mean(), None, "drawn: normal, as all old entries"
    )


def mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """The average of all old rows, for every new token.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    rows_ND = old_VD.mean(dim=0).expand(len(request.change.added), -1)
    return NewEmbeddings(rows_ND, None, f"mean of all {len(old_VD):,} rows")


def multivariate_normal(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Normal numbers with the mean of all old rows and their covariance, shrunk to almost nothing.

    Source: Hewitt 2021; the shrinking by 1e-9 is that of `resize_token_embeddings` in
    `transformers`.
    """
    centred_VD = old_VD - old_VD.mean(dim=0)
    values_D, vectors_DD = torch.linalg.eigh(centred_VD.T @ centred_VD / len(old_VD))
    noise_ND = torch.randn(
        len(request.change.added), old_VD.shape[1], generator=request.generator()
    )
    rows_ND = old_VD.mean(dim=0) + noise_ND * (SHRUNK * values_D.clamp(min=0)).sqrt() @ vectors_DD.T
    return NewEmbeddings(
        rows_ND, None, "drawn: normal, with the mean and a billionth of the covariance of all rows"
    )


def subword_mean(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """The average of the rows of the base tokens that spelled the new token before.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    return _mixed(old_VD, request, *request.pieces, note="mean of its pieces")


def length_weighted(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """The average of its pieces, each weighted by its number of characters.

    Source: the output rows of "Beyond Initialization Loss", arXiv 2608.03494.
    """
    rows, columns = request.pieces
    weights = request.once(_lengths)[columns]
    return _mixed(
        old_VD,
        request,
        rows,
        columns,
        weights,
        note="mean of its pieces, weighted by their characters",
    )


def first_piece(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """The row of the first piece.

    Source: the output rows of EEVE, Kim et al. 2024, arXiv 2402.14714: what comes next begins with
    that piece.
    """
    rows, columns = request.pieces
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    return _mixed(old_VD, request, rows[first], columns[first], note="its first piece")


def last_piece(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """The row of the last piece: where the base model has read the whole token."""
    rows, columns = request.pieces
    last = np.flatnonzero(np.diff(rows, append=len(request.change.added)))
    return _mixed(old_VD, request, rows[last], columns[last], note="its last piece")


def calibrated(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Sub-word means, rescaled to the usual length of the rows of their script.

    An average is shorter than what it averages. A script of which the base has few tokens gets the
    usual length of all rows.

    Source: the input rows of "Beyond Initialization Loss", arXiv 2608.03494.
    """
    scripts, norms_V = request.once(_scripts), old_VD.norm(dim=1)
    members: dict[str, list[int]] = defaultdict(list)
    for new, old in request.change.new_to_old.items():
        members[scripts.get(new, "")].append(old)
    usual = {
        script: norms_V[ids].mean().item() for script, ids in members.items() if len(ids) >= FEW
    }
    overall = norms_V.mean().item()
    wanted_N = torch.tensor(
        [usual.get(scripts.get(new, ""), overall) for new in request.change.added]
    )
    averaged = subword_mean(old_VD, request)
    scale_N1 = (wanted_N / averaged.rows_ND.norm(dim=1)).unsqueeze(1)
    weights_NV = averaged.weights_NV * scale_N1 if averaged.weights_NV is not None else None
    return NewEmbeddings(
        averaged.rows_ND * scale_N1,
        weights_NV,
        "mean of its pieces, as long as rows of its script are",
    )


def characters(raw: bytes) -> float:
    """Characters in some bytes; a character that is cut counts by the share of its bytes.

    A byte inside a character that began elsewhere counts a third.

    Example:
        >>> characters("ház".encode()), characters("ก".encode()[:1])
        (3.0, 0.3333333333333333)
    """
    count, left, part = 0.0, 0, 1 / 3
    for byte in raw:
        if 0x80 <= byte < 0xC0:
            count += part if left else 1 / 3
            left = max(0, left - 1)
        else:
            size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            part, left = 1 / size, size - 1
            count += part
    return count


def _lengths(request: Request) -> Weights:
    """The characters of each base token, by its old id."""
    change, byte_level = request.change, is_byte_level(request.change.tokenizer)
    lengths = np.zeros(max(*change.new_to_old.values(), *change.removed) + 1)
    for new, old in change.new_to_old.items():
        lengths[old] = characters(request.bytes_of.get(new, b""))
    for old, surface in change.removed.items():
        lengths[old] = characters(surface_bytes(surface, byte_level=byte_level))
    return np.maximum(lengths, 1 / 3)  # a special token may stand for what the base does not know


def _scripts(request: Request) -> dict[int, str]:
    """The script of each token that has letters, by its new id."""
    found = (
        (new, scripts_of(raw.decode("utf-8", "ignore"))) for new, raw in request.bytes_of.items()
    )
    return {new: min(scripts) for new, scripts in found if scripts}


def _mixed(
    old_VD: torch.Tensor,
    request: Request,
    rows: Ids,
    columns: Ids,
    weights: Weights | None = None,
    *,
    note: str,
) -> NewEmbeddings:
    """New rows as weighted means of old ones: one sparse product."""
    size = len(request.change.added)
    weights = np.ones(len(rows)) if weights is None else weights
    shares = weights / np.bincount(rows, weights=weights, minlength=size)[rows]
    return mixed(
        old_VD, torch.from_numpy(np.stack([rows, columns])), torch.from_numpy(shares), size, note
    )


def mixed(
    old_VD: torch.Tensor, places: torch.Tensor, weights: torch.Tensor, size: int, note: str
) -> NewEmbeddings:
    """New rows from the places (row, column) and values of a sparse matrix of weights, of `size`
    rows.
    """
    weights_NV = torch.sparse_coo_tensor(
        places, weights.float(), (size, len(old_VD)), check_invariants=False
    ).coalesce()
    return NewEmbeddings(torch.sparse.mm(weights_NV, old_VD), weights_NV, note)
