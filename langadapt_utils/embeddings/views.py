"""Figures and controls of notebook 3: lengths of embeddings, and nearest neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch.nn.functional import normalize

from ..display.figures import TARGET, beside, finish, new_axes
from ..display.html import render, shown_spaces
from ..display.widgets import Interactive, evenly_spread, listed, new_slider
from ..vocabulary.change import VocabularyChange

NEIGHBOURS = 5  # per token


def neighbour_table(
    methods: Mapping[str, torch.Tensor],
    old: torch.Tensor,
    change: VocabularyChange,
    *,
    tokens: Sequence[int],
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
    # Other rows are padding.
    known = torch.tensor(sorted({*change.new_to_old.values(), *change.removed}))
    directions = normalize(old[known].float(), dim=1)
    rows = []
    for method, matrix in methods.items():
        chosen = normalize(matrix[[place[new] for new in tokens]].float(), dim=1)
        near = known[(chosen @ directions.T).topk(NEIGHBOURS, dim=1).indices].tolist()
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


def plot_norms(embeddings: Mapping[str, torch.Tensor], *, ax: Axes | None = None) -> Axes:
    """Plot the lengths of embeddings: median, middle 50 % and middle 90 % of each set.

    Args:
        embeddings: matrices of shape (tokens, dimensions) by name; the first is the reference.
        ax: axes to draw into; new ones by default.
    """
    ax = ax or new_axes(rows=len(embeddings))
    lengths = {n.replace("_", " "): m.float().norm(dim=1).numpy() for n, m in embeddings.items()}
    shape: dict[str, Any] = {"whis": (5, 95), "showfliers": False, "widths": 0.4}
    shape |= {"orientation": "horizontal", "medianprops": {"color": TARGET}}
    ax.boxplot(list(lengths.values()), tick_labels=list(lengths), **shape)
    ax.invert_yaxis()
    ax.set_xlabel("length of an embedding: median, middle half, middle nine tenths")
    usual = {name: float(np.median(values)) for name, values in lengths.items()}
    for place, middle in enumerate(usual.values(), start=1):
        beside(ax, f"{middle:.2f}", middle, place, (0, 12), ha="center", fontsize=8)
    (reference, base), *others = usual.items()
    if not others:
        return finish(ax, f"Half of the embeddings ({reference}) are longer than {base:.2f}")
    shortest, length = min(others, key=lambda item: item[1])
    title = f"Embeddings by {shortest} are {length / base:.0%} as long as "
    return finish(ax, f"{title}{reference} ({length:.2f} against {base:.2f})")
