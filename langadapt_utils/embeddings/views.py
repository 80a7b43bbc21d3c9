"""The control of notebook 3: nearest neighbours of new tokens."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..display.html import render, shown_spaces
from ..display.widgets import Interactive, evenly_spread, listed, new_slider
from ..vocabulary.change import VocabularyChange

NEIGHBOURS = 5  # per token


def neighbour_table(
    methods: Mapping[str, Tensor], old: Tensor, change: VocabularyChange, *, tokens: Sequence[int]
) -> pd.DataFrame:
    """Find the old tokens with the nearest embeddings to those of new tokens, by cosine.

    Args:
        methods: embeddings of new tokens by method, in the order of `change.added`, of shape (new
            tokens, dimensions).
        old: embeddings of the base, of shape (old tokens, dimensions).
        change: of the vocabulary.
        tokens: ids of new tokens.

    Returns:
        One row per token and method: `token`, `method`, `neighbours`.
    """
    place = {new: index for index, new in enumerate(change.added)}
    # Other rows are padding, and an added token may lack a row.
    ids = torch.tensor(sorted({*change.new_to_old.values(), *change.removed} & {*range(len(old))}))
    directions, rows = normalize(old[ids].float(), dim=1), []
    for method, matrix in methods.items():
        chosen = normalize(matrix[[place[new] for new in tokens]].float(), dim=1)
        near = ids[(chosen @ directions.T).topk(NEIGHBOURS, dim=1).indices].tolist()
        for new, found in zip(tokens, near, strict=True):
            rows.append([change.text(new), method, [change.base_text(index) for index in found]])
    return pd.DataFrame(rows, columns=["token", "method", "neighbours"])


def neighbours_widget(table: pd.DataFrame) -> Interactive:
    """Return controls to choose a new token and see its nearest old tokens under each method.

    Args:
        table: from `neighbour_table`.
    """
    pages = {}
    for token, rows in table.groupby("token", sort=False):
        shown = {"token": token, "rows": list(rows.itertuples())}
        pages[shown_spaces(str(token))] = str(render("embeddings/neighbours.html.j2", **shown))
    slider = new_slider("new token", list(pages), next(iter(pages)))
    static = listed(evenly_spread(list(pages.values())))
    return Interactive([slider], lambda: pages[slider.value], static)
