"""Notebook 3 in figures and controls: lengths of embeddings, their map, their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..display.figures import ENGLISH, GREY, TARGET, beside, finish, new_axes
from ..display.html import shown_spaces
from ..display.widgets import evenly_spread, interactive
from ..vocabulary.change import VocabularyChange
from ..vocabulary.views import NEIGHBOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..display.widgets import Interactive


def neighbour_table(
    methods: Mapping[str, torch.Tensor],
    old: torch.Tensor,
    change: VocabularyChange,
    *,
    tokens: Sequence[int],
) -> pd.DataFrame:
    """The old tokens whose rows are nearest to those of new tokens, by cosine, under each method.

    Args:
        methods: rows of new tokens in the order of `change.added`, of shape (new tokens,
            dimensions), by method.
        old: rows of the base, of shape (old tokens, dimensions).
        change: of the vocabulary.
        tokens: new ids to look at.

    Returns:
        A row a token and method: `token`, `method`, `neighbours`.
    """
    places = {new: place for place, new in enumerate(change.added)}
    known = torch.tensor(
        sorted({*change.new_to_old.values(), *change.removed})
    )  # other rows only pad the matrix
    directions = torch.nn.functional.normalize(old[known].float(), dim=1)
    rows = []
    for method, matrix in methods.items():
        chosen = torch.nn.functional.normalize(
            matrix[[places[new] for new in tokens]].float(), dim=1
        )
        near = known[(chosen @ directions.T).topk(NEIGHBOURS, dim=1).indices].tolist()
        for new, found in zip(tokens, near, strict=True):
            rows.append([change.text(new), method, [change.base_text(index) for index in found]])
    return pd.DataFrame(rows, columns=["token", "method", "neighbours"])


def neighbours_widget(table: pd.DataFrame) -> Interactive:
    """Choose a new token and see which old tokens its row is nearest to, under each method.

    Args:
        table: as `neighbour_table` gives it.
    """
    import ipywidgets as widgets

    tokens = list(dict.fromkeys(table.token))
    chosen = widgets.Dropdown(
        options=[(shown_spaces(token), token) for token in tokens], description="new token"
    )

    def say(token: str) -> str:
        lines = "".join(
            f'<tr><th style="text-align:left;padding-right:2em">{escape(row.method.replace("_", " "))}</th>'
            f'<td style="text-align:left">{escape(", ".join(map(shown_spaces, row.neighbours)))}</td></tr>'
            for row in table[table.token == token].itertuples()
        )
        return f"<b>{escape(shown_spaces(token))}</b><table>{lines}</table>"

    return interactive(
        [chosen], lambda: say(chosen.value), "".join(say(token) for token in evenly_spread(tokens))
    )


def plot_norms(rows: Mapping[str, torch.Tensor], *, ax: Axes | None = None) -> Axes:
    """How long rows are: the middle half and the middle nine tenths of each set.

    Args:
        rows: matrices of shape (rows, dimensions) by name; the first is the reference.
        ax: to draw into.
    """
    ax = ax or new_axes(rows=len(rows))
    lengths = {name: matrix.float().norm(dim=1).numpy() for name, matrix in rows.items()}
    places = range(len(lengths))[::-1]
    for place, values in zip(places, lengths.values(), strict=True):
        low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        colour = GREY if place == places[0] else TARGET
        ax.plot([low, high], [place] * 2, color=colour, linewidth=1.5)
        ax.plot([first, third], [place] * 2, color=colour, linewidth=6, solid_capstyle="butt")
        ax.plot(middle, place, "o", color="white", markeredgecolor=colour, zorder=3)
        beside(ax, f"{middle:.2f}", middle, place, (0, 8), ha="center", fontsize=8)
    ax.set_yticks(list(places), [name.replace("_", " ") for name in lengths])
    ax.set_ylim(-0.5, len(lengths) - 0.2)
    ax.set_xlabel("length of a row: median, middle half, middle nine tenths")
    usual = {name: float(np.median(values)) for name, values in lengths.items()}
    (first_name, reference), *others = usual.items()
    shortest, length = min(others, key=lambda item: item[1])
    return finish(
        ax,
        f"Rows by {shortest.replace('_', ' ')} are {length / reference:.0%} as long as {first_name} "
        f"({length:.2f} against {reference:.2f})",
    )


def plot_map(
    rows: Mapping[str, torch.Tensor], *, most: int = 3_000, ax: Axes | None = None
) -> Axes:
    """A map of rows in two dimensions: the two directions in which the first set of them varies
    most (PCA).

    Args:
        rows: matrices of shape (rows, dimensions) by name; the first spans the map.
        most: rows of each set to draw.
        ax: to draw into.
    """
    import torch

    ax = ax or new_axes(rows=8)
    reference, *others = rows
    centre_D = rows[reference].float().mean(dim=0)
    torch.manual_seed(0)
    _, _, axes_D2 = torch.pca_lowrank(rows[reference].float() - centre_D, q=2, center=False)
    spread = {}
    colours = (GREY, TARGET, ENGLISH, "#009E73", "#CC79A7")
    for name, colour, marker in zip(rows, colours, "...xx", strict=False):
        points = (rows[name].float() - centre_D) @ axes_D2
        spread[name] = points.std(dim=0).mean().item()
        shown = points[:: max(1, len(points) // most)]
        ax.plot(
            *shown.T, marker, color=colour, markersize=3, alpha=0.35, label=name.replace("_", " ")
        )
    ax.set_xlabel("first direction")
    ax.set_ylabel("second direction")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3)
    shares = ", ".join(
        f"{name.replace('_', ' ')} {spread[name] / spread[reference]:.0%}" for name in others
    )
    return finish(
        ax,
        f"How far new rows spread on the map of the old ones, as a share of their spread: {shares}",
    )
