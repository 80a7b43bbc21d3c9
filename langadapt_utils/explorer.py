"""Looking at tokens: a text under several tokenizers, aligned, with what is known of each token behind a click.

Everything is plain HTML: tokens open by mouse or keyboard with no script, in a notebook as well as on a static page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from .vocabulary.change import VocabularyChange
from .vocabulary.views import NEIGHBOURS


def neighbour_table(
    methods: Mapping[str, torch.Tensor], old: torch.Tensor, change: VocabularyChange, *, tokens: Sequence[int]
) -> pd.DataFrame:
    """The old tokens whose rows are nearest to those of new tokens, by cosine, under each method.

    Args:
        methods: rows of new tokens in the order of `change.added`, of shape (new tokens, dimensions), by method.
        old: rows of the base, of shape (old tokens, dimensions).
        change: of the vocabulary.
        tokens: new ids to look at.

    Returns:
        A row a token and method: `token`, `method`, `neighbours`.
    """
    places = {new: place for place, new in enumerate(change.added)}
    known = torch.tensor(sorted({*change.kept.values(), *change.removed}))  # other rows only pad the matrix
    directions = torch.nn.functional.normalize(old[known].float(), dim=1)
    rows = []
    for method, matrix in methods.items():
        chosen = torch.nn.functional.normalize(matrix[[places[new] for new in tokens]].float(), dim=1)
        near = known[(chosen @ directions.T).topk(NEIGHBOURS, dim=1).indices].tolist()
        for new, found in zip(tokens, near, strict=True):
            rows.append([change.text(new), method, [change.base_text(index) for index in found]])
    return pd.DataFrame(rows, columns=["token", "method", "neighbours"])
