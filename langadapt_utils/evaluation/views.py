"""Notebook 5 in figures: what changed, by text, by domain, by item and by layer."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from ..corpus.items import kind_name
from ..display.figures import GREY, colour_of, dots_with_intervals, finish, new_axes
from ..intervals import Interval, percent, sign
from ..languages import language_name
from ..sources import source_name
from .scores import Scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_drift(drift: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How far weights moved, as a share of their length, layer by layer.

    Args:
        drift: as `weight_drift` gives it.
        ax: to draw into.
    """
    ax = ax or new_axes()
    layers = drift[drift.layer >= 0]
    styles = ("-", "--", ":", "-.", (0, (5, 1, 1, 1)))
    for style, (part, rows) in zip(cycle(styles), layers.groupby("part", sort=False), strict=False):
        ax.plot(rows.layer, rows.drift, linestyle=style, color=GREY, label=part.replace("_", " "))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_xlabel("layer")
    ax.set_ylabel("length of the change, as a share")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    ax.set_ylim(0, None)
    most = drift.loc[drift.drift.idxmax()]
    where = f"layer {most.layer:.0f}" if most.layer >= 0 else "outside of the layers"
    return finish(
        ax,
        f"Weights moved by {drift.drift.median():.1%} in the middle, most in {most.part} ({where})",
    )


def plot_changes(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """How much bits per byte changed on held-out documents, with intervals."""
    table = scores.bits_per_byte()
    ax = ax or new_axes(rows=len(table))
    rows = table.iloc[::-1].rename(columns={"change": "bits_per_byte"})
    names = [
        f"{language_name(row.language)}\n{source_name(row.source)}" for row in rows.itertuples()
    ]
    dots_with_intervals(ax, names, rows, percent=True, target=scores.target)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_xlabel("change of bits per byte (95 % interval; left is better)")
    gain = table[table.language == scores.target].iloc[0].change
    english = table[table.language == "en"]
    worst = max(english.change, key=lambda change: change.value)
    return finish(
        ax, f"{language_name(scores.target)} {_moved(gain)}, English at worst {_moved(worst)}"
    )


def plot_domains(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """How much bits per byte of the target language changed, by domain."""
    table = scores.bits_per_byte(by=("language", "domain"))
    rows = table[table.language == scores.target].rename(columns={"change": "bits_per_byte"})
    rows = rows.iloc[sorted(range(len(rows)), key=lambda i: -rows.bits_per_byte.iloc[i].value)]
    ax = ax or new_axes(rows=len(rows))
    dots_with_intervals(
        ax,
        [f"{row.domain} ({row.bits_per_byte.units})" for row in rows.itertuples()],
        rows,
        percent=True,
    )
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_xlabel("change of bits per byte (95 % interval; left is better)")
    least, most = rows.iloc[0], rows.iloc[-1]
    return finish(
        ax,
        f"{language_name(scores.target)} gains most on {most.domain} ({most.bits_per_byte.value:+.0%}), "
        f"least on {least.domain} ({least.bits_per_byte.value:+.0%})",
        note="documents in brackets",
    )


def plot_accuracy(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """Accuracy on the evaluation items before and after, with intervals and the level of chance."""
    table = scores.accuracy().iloc[::-1]
    ax = ax or new_axes(rows=2 * len(table))
    names = [f"{language_name(row.language)}, {kind_name(row.kind)}" for row in table.itertuples()]
    for offset, column, marker, label in (
        (0.15, "before", "o", scores.models[0]),
        (-0.15, "after", "s", scores.models[-1]),
    ):
        for place, (estimate, code) in enumerate(zip(table[column], table.language, strict=True)):
            ax.plot(
                [estimate.low, estimate.high],
                [place + offset] * 2,
                color=colour_of(code),
                linewidth=1.5,
            )
            filled = colour_of(code) if column == "after" else "white"
            ax.plot(
                estimate.value,
                place + offset,
                marker,
                color=colour_of(code),
                markerfacecolor=filled,
                label=label if not place else None,
            )
    for place, chance in enumerate(table.chance):
        ax.plot(
            [chance] * 2,
            [place - 0.4, place + 0.4],
            color=GREY,
            linestyle=":",
            label="chance" if not place else None,
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of items right (95 % interval)")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    moved = [
        f"{language_name(row.language)} {kind_name(row.kind)}"
        for row in table.iloc[::-1].itertuples()
        if sign(row.change)
    ]
    title = (
        f"Accuracy changed beyond doubt on: {', '.join(moved)}"
        if moved
        else "No change in accuracy is beyond doubt"
    )
    return finish(ax, title)


def _moved(change: Interval) -> str:
    direction = "falls" if change.value < 0 else "rises"
    return f"{direction} by {percent(change).lstrip('+-')}"
