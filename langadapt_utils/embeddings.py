"""Rows for new tokens: a registry of named methods over one small interface.

Axes: V rows of the old vocabulary, N new tokens, D dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .changes import VocabularyChange
from .errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Callable[[torch.Tensor, VocabularyChange, torch.Generator], torch.Tensor]


def random_normal(old_VD: torch.Tensor, change: VocabularyChange, generator: torch.Generator) -> torch.Tensor:
    """Independent normal numbers with the mean and the spread of all old entries.

    Source: the new rows of Csaki et al., arXiv 2311.05741, are random.
    """
    noise_ND = torch.randn(len(change.added), old_VD.shape[1], generator=generator)
    return noise_ND * old_VD.std() + old_VD.mean()


def mean(old_VD: torch.Tensor, change: VocabularyChange, generator: torch.Generator) -> torch.Tensor:
    """The average of all old rows, for every new token.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    return old_VD.mean(dim=0).expand(len(change.added), -1).clone()


def subword_mean(old_VD: torch.Tensor, change: VocabularyChange, generator: torch.Generator) -> torch.Tensor:
    """The average of the rows of the base tokens that spelled the new token before.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    spelled = [change.spelled[new] for new in change.added]
    rows = torch.tensor([row for row, ids in enumerate(spelled) for _ in ids])
    columns = torch.tensor([old for ids in spelled for old in ids])
    weights = torch.tensor([1 / len(ids) for ids in spelled for _ in ids])
    average_NV = torch.sparse_coo_tensor(
        torch.stack([rows, columns]), weights, (len(spelled), len(old_VD)), check_invariants=False
    )
    rows_ND: torch.Tensor = torch.sparse.mm(average_NV, old_VD)
    return rows_ND


METHODS: dict[str, Method] = {"random": random_normal, "mean": mean, "subword_mean": subword_mean}


def initialise_embeddings(
    model: PreTrainedModel, change: VocabularyChange, *, method: str = "subword_mean", seed: int = 0
) -> PreTrainedModel:
    """Give a copy of a model rows for the tokens of a changed vocabulary; the given model stays as it is.

    Input rows, and output rows and biases where the head is not tied, are made by the same method from their
    own old rows. Old rows are kept bit by bit; a padded matrix keeps its extra rows until new tokens need them. A
    trimmed vocabulary gives a smaller model.

    Args:
        model: a causal language model whose tokenizer was changed.
        change: the change of the vocabulary.
        method: a name in `METHODS`.
        seed: for methods that draw random numbers.

    Raises:
        ModelError: the method is unknown, the tokenizer is not the model's, or a row is not finite.
    """
    if method not in METHODS:
        raise ModelError(f"embedding method '{method}' is unknown: use one of {', '.join(METHODS)}")
    make_rows = METHODS[method]
    result = copy.deepcopy(model)
    old_VD = model.get_input_embeddings().weight.detach()
    highest = max(change.kept.values())
    if highest >= len(old_VD):
        raise ModelError(
            f"the tokenizer has ids up to {highest}, the model only {len(old_VD)} rows: give the model and the "
            "tokenizer of one folder"
        )
    size = change.size if change.mode == "trim" else max(change.size, len(old_VD))
    if size != len(old_VD):
        result.resize_token_embeddings(size, mean_resizing=False)
    if change.mode == "trim":
        _renumber_special_tokens(result, {old: new for new, old in change.kept.items()})
    new_ids = torch.tensor(list(change.added), dtype=torch.long)
    kept_new, kept_old = (torch.tensor(list(ids)) for ids in (change.kept.keys(), change.kept.values()))

    def fill(new: torch.Tensor, old: torch.Tensor) -> None:
        rows = make_rows(old.float(), change, torch.Generator().manual_seed(seed))
        bad = [change.added[i] for i, row in zip(change.added, rows, strict=True) if not row.isfinite().all()]
        if bad:
            raise ModelError(
                f"method '{method}' made rows that are not finite, for example for {bad[0]!r}: use another method"
            )
        if change.mode == "trim":
            new[kept_new] = old[kept_old]
        else:
            new[: len(old)] = old  # under the same ids, and rows beyond the tokenizer too
        new[new_ids] = rows.to(new.dtype)

    with torch.no_grad():
        fill(result.get_input_embeddings().weight, old_VD)
        head, old_head = result.get_output_embeddings(), model.get_output_embeddings()
        if head is not None and head.weight is not result.get_input_embeddings().weight:
            fill(head.weight, old_head.weight)
        bias = getattr(head, "bias", None)
        if bias is not None:
            fill(bias.unsqueeze(1), old_head.bias.unsqueeze(1))
    return result


def _renumber_special_tokens(model: PreTrainedModel, new_ids: dict[int, int]) -> None:
    """Have the configurations of a model speak of special tokens by their new ids."""
    for config in (model.config.get_text_config(), model.config, model.generation_config):
        for name, value in list(vars(config).items()) if config is not None else ():
            if name.endswith("_token_id") and isinstance(value, int):
                setattr(config, name, new_ids[value])
            elif name.endswith("_token_id") and isinstance(value, list):
                setattr(config, name, [new_ids[one] for one in value])
