"""Giving a model rows for the tokens of a changed vocabulary.

Axes: V rows of the old vocabulary, N new tokens, D dimensions of a row.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ..errors import ModelError
from ..vocabulary.change import VocabularyChange
from .learned import distilled, focus
from .methods import (
    Method,
    NewEmbeddings,
    Request,
    Rule,
    calibrated,
    first_piece,
    last_piece,
    length_weighted,
    mean,
    multivariate_normal,
    random_normal,
    subword_mean,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from transformers import PreTrainedModel

    from ..models import Base

METHODS: dict[str, Method] = {
    "random": Method(random_normal, random_normal),
    "mean": Method(mean, mean),
    "multivariate_normal": Method(multivariate_normal, multivariate_normal),
    "subword_mean": Method(subword_mean, subword_mean),
    "calibrated": Method(calibrated, calibrated),
    "length_weighted": Method(length_weighted, length_weighted),
    "first_piece": Method(first_piece, first_piece),
    "last_piece": Method(last_piece, last_piece),
    "mean_in_first_out": Method(subword_mean, first_piece),
    "calibrated_in_weighted_out": Method(calibrated, length_weighted),
    "focus": Method(focus, focus),
    "distilled": Method(distilled, subword_mean, tied=distilled),
}
NOISE = 1e-2  # added to a row that would be the same as another one, as a share of its length


@dataclass(frozen=True)
class InitialEmbeddings:
    """The rows that a method made for the new tokens of a model, and where they came from.

    Attributes:
        method: its name.
        change: the change of the vocabulary.
        input: what the tokens are read with.
        output: what they are written with; None where one matrix serves both (tied).
    """

    method: str
    change: VocabularyChange
    input: NewEmbeddings
    output: NewEmbeddings | None

    def provenance(self, token: int) -> pd.DataFrame:
        """Where the rows of a new token came from.

        Args:
            token: its new id.

        Returns:
            One line a part: `side` (input or output), `id` and `token` of the base, `weight`, and a
            `note` in words. Rows that were drawn or learned have a note alone.

        Raises:
            ModelError: the token is not a new one.
        """
        import pandas as pd

        if token not in self.change.added:
            raise ModelError(f"{token} is not the id of a new token: give one of change.added")
        place = list(self.change.added).index(token)
        lines: list[list[Any]] = []
        for side, made in {"input": self.input, "output": self.output}.items():
            if made is None:
                continue
            note = (
                f"{made.note}; told from another row by a little noise"
                if place in made.twins
                else made.note
            )
            if made.weights_NV is None:
                lines.append([side, None, None, None, note])
                continue
            weights = made.weights_NV[place].coalesce()
            parts = zip(weights.indices()[0].tolist(), weights.values().tolist(), strict=True)
            lines += [
                [side, old, self.change.base_text(old), weight, note] for old, weight in parts
            ]
        return pd.DataFrame(lines, columns=["side", "id", "token", "weight", "note"])


def new_embeddings(
    model: PreTrainedModel,
    change: VocabularyChange,
    *,
    method: str = "subword_mean",
    seed: int = 0,
    texts: Sequence[str] | None = None,
    english: Sequence[str] | None = None,
    donor: Base | None = None,
    untie: bool = False,
) -> InitialEmbeddings:
    """Make the rows of new tokens without touching the model.

    Args:
        model: a causal language model whose tokenizer was changed.
        change: the change of the vocabulary.
        method: a name in `METHODS`.
        seed: for methods that draw random numbers.
        texts: text of the target language, for `focus`, `distilled` and `gated`.
        english: text of English, for `gated`.
        donor: a model that knows the new tokens, for `matching_pursuit`.
        untie: make output rows too where the model has one matrix for reading and writing.

    Raises:
        ModelError: the method is unknown or lacks what it needs, the tokenizer is not the model's,
            or a row is not finite, zero, or cannot be told from another one.
    """
    if method not in METHODS:
        raise ModelError(f"embedding method '{method}' is unknown: use one of {', '.join(METHODS)}")
    rule = METHODS[method]
    matrix, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    highest = max(*change.new_to_old.values(), *change.removed)
    if highest >= len(matrix):
        raise ModelError(
            f"the tokenizer has ids up to {highest}, the model only {len(matrix)} rows: give the model and the "
            "tokenizer of one folder"
        )
    two = head is not None and (untie or not _tied(model))
    if rule.halved and not two:
        warnings.warn(
            f"method '{method}' makes different rows for reading and for writing, but this model has one matrix for "
            "both (tied): it gets the rows for reading; untie it to have two",
            stacklevel=2,
        )
    request = Request(model, change, seed, texts, english, donor)

    reading = rule.input if two else rule.tied or rule.input

    def made(make: Rule, weight: torch.Tensor) -> NewEmbeddings:
        # Rows beyond the tokenizer only pad the matrix: they were never trained.
        known_VD = weight.detach()[: highest + 1].float().cpu()
        return _told_apart(make(known_VD, request), weight.detach(), request)

    return InitialEmbeddings(
        method, change, made(reading, matrix), made(rule.output, head.weight) if two else None
    )


def initialise_embeddings(
    model: PreTrainedModel,
    change: VocabularyChange,
    *,
    method: str = "subword_mean",
    seed: int = 0,
    texts: Sequence[str] | None = None,
    english: Sequence[str] | None = None,
    donor: Base | None = None,
    rows: InitialEmbeddings | None = None,
    untie: bool = False,
    multiple_of: int = 1,
    in_place: bool = False,
) -> PreTrainedModel:
    """Give a copy of a model rows for the tokens of a changed vocabulary; the given model stays as
    it is.

    Old rows are kept bit by bit; a padded matrix keeps its extra rows until new tokens need them. A
    trimmed vocabulary gives a smaller model. Biases of a head get the mean of the pieces' biases.

    Args:
        model: a causal language model whose tokenizer was changed.
        change: the change of the vocabulary.
        method: a name in `METHODS`.
        seed: for methods that draw random numbers.
        texts: text of the target language, for `focus`, `distilled` and `gated`.
        english: text of English, for `gated`.
        donor: a model that knows the new tokens, for `matching_pursuit`.
        rows: what `new_embeddings` made, in place of `method`; the head is untied if they were made
            for that.
        untie: give the head a matrix of its own.
        multiple_of: round the number of rows up; the rows beyond the tokenizer are the mean of all.
        in_place: change the given model itself, which spares a copy of its body.

    Raises:
        ModelError: what `new_embeddings` refuses.
    """
    if rows is None:
        rows = new_embeddings(
            model,
            change,
            method=method,
            seed=seed,
            texts=texts,
            english=english,
            donor=donor,
            untie=untie,
        )
    old_head = model.get_output_embeddings()
    old_bias = getattr(old_head, "bias", None)
    old_VD = (
        model.get_input_embeddings().weight.detach()
    )  # the parameter may change, what this holds does not
    old_head_VD = None if old_head is None else old_head.weight.detach()
    old_bias_V = None if old_bias is None else old_bias.detach().clone()
    size = change.size if change.mode == "trim" else max(change.size, len(old_VD))
    size = -(-size // multiple_of) * multiple_of
    result = model if in_place else _copy(model, share_matrices=size != len(old_VD))
    if rows.output is not None and _tied(model):
        _untie(result)
    if size != len(old_VD):
        result.resize_token_embeddings(size, mean_resizing=False)
    if change.mode == "trim":
        _renumber_special_tokens(result, {old: new for new, old in change.new_to_old.items()})
    head = result.get_output_embeddings()
    with torch.no_grad():
        _fill(result.get_input_embeddings().weight, old_VD, rows.input.rows_ND, change)
        if head is not None and old_head_VD is not None and rows.output is not None:
            _fill(head.weight, old_head_VD, rows.output.rows_ND, change)
        if old_bias_V is not None:
            request = Request(model, change)
            entries_N1 = subword_mean(old_bias_V.float().cpu().unsqueeze(1), request).rows_ND
            _fill(head.bias.unsqueeze(1), old_bias_V.unsqueeze(1), entries_N1, change)
    return result


def _tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _copy(model: PreTrainedModel, *, share_matrices: bool) -> PreTrainedModel:
    """A copy of a model; its matrices of rows share their memory with the model's if they are to be
    replaced.
    """
    matrices = [
        m.weight
        for m in (model.get_input_embeddings(), model.get_output_embeddings())
        if m is not None
    ]
    views = {
        id(weight): torch.nn.Parameter(weight.detach(), weight.requires_grad) for weight in matrices
    }
    return copy.deepcopy(model, dict(views) if share_matrices else None)


def _untie(model: PreTrainedModel) -> None:
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)


def _fill(
    new: torch.Tensor, old: torch.Tensor, rows_ND: torch.Tensor, change: VocabularyChange
) -> None:
    if change.mode == "trim":
        new[list(change.new_to_old.keys())] = old[list(change.new_to_old.values())]
    else:
        new[: len(old)] = old  # under the same ids, and rows beyond the tokenizer too
    if len(padding := new[max(change.size, 0 if change.mode == "trim" else len(old)) :]):
        padding[:] = old.float().mean(dim=0).to(new.dtype)
    new[list(change.added)] = rows_ND.to(new.device, new.dtype)


def _told_apart(made: NewEmbeddings, old: torch.Tensor, request: Request) -> NewEmbeddings:
    """Rows that are finite, not zero, and of which no two are the same once they have the model's
    precision.

    Tokens of the same pieces in another order have the same mean, and some methods give many tokens
    one row: those get a little noise.
    """
    rows_ND = made.rows_ND.contiguous()  # methods hand over rows of their own, or one row for all
    added = list(request.change.added)
    for fault, bad_N in {
        "not finite": ~rows_ND.isfinite().all(dim=1),
        "zero": (rows_ND == 0).all(dim=1),
    }.items():
        if bad_N.any():
            name = request.change.text(added[int(bad_N.nonzero()[0])])
            raise ModelError(
                f"the row made for {name!r} is {fault}: look at the model's rows, or use another method"
            )
    kept = _fingerprints(old)[list(request.change.new_to_old.values())]
    twins = _repeated(kept, rows_ND.to(old.dtype))
    generator = request.generator()
    for block in torch.split(twins, 1_024):
        noise = normalize(torch.randn(len(block), rows_ND.shape[1], generator=generator), dim=1)
        rows_ND[block] += NOISE * noise * rows_ND[block].norm(dim=1, keepdim=True)
    if len(twins) and len(still := _repeated(kept, rows_ND.to(old.dtype))):
        name = request.change.text(added[int(still[0])])
        raise ModelError(
            f"the row made for {name!r} is the same as that of another token: use another method"
        )
    return dataclasses.replace(made, rows_ND=rows_ND, twins=frozenset(twins.tolist()))


def _repeated(kept: npt.NDArray[np.uint64], new: torch.Tensor) -> torch.Tensor:
    """Indices of new rows that an old row, of which the fingerprint is given, or a new one before
    them equals.
    """
    prints = np.concatenate([kept, _fingerprints(new)])
    _, first, groups = np.unique(prints, return_index=True, return_inverse=True)
    places = np.arange(len(kept), len(prints))
    return torch.from_numpy(np.flatnonzero(first[groups[places]] != places))


def _fingerprints(matrix: torch.Tensor) -> npt.NDArray[np.uint64]:
    """A number for each row: the same for rows of the same bits, and else different but for a freak
    of chance.
    """
    factors = np.random.default_rng(0).integers(
        1, 2**63, size=matrix.shape[1] * matrix.itemsize // 2, dtype=np.uint64
    )
    blocks = (
        block.cpu().contiguous().view(torch.int16).numpy() for block in torch.split(matrix, 1_024)
    )
    return np.concatenate([block.astype(np.uint64) @ factors for block in blocks])


def _renumber_special_tokens(model: PreTrainedModel, new_ids: dict[int, int]) -> None:
    """Have the configurations of a model speak of special tokens by their new ids."""
    for config in (model.config.get_text_config(), model.config, model.generation_config):
        for name, value in list(vars(config).items()) if config is not None else ():
            if name.endswith("_token_id") and isinstance(value, int):
                setattr(config, name, new_ids[value])
            elif name.endswith("_token_id") and isinstance(value, list):
                setattr(config, name, [new_ids[one] for one in value])
