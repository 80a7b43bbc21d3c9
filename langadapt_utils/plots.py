"""Figures, one function each, in one style: the title states the finding, intervals and counts are shown."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

from .corpus.items import kind_name
from .display.figures import ENGLISH, GREY, TARGET, beside, colour_of, dots_with_intervals, finish, new_axes
from .intervals import Estimate, percent, sign
from .languages import language_name
from .scores import Scores
from .sources import source_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .probing import Comparison
    from .sweeping import Sweep


def plot_comparison(comparison: Comparison, *, ax: Axes | None = None) -> Axes:
    """Bits per byte of each method, before training and after each number of steps, for both languages."""
    from .probing import BASE

    table = comparison.summary()
    methods, stages = list(dict.fromkeys(table.method)), sorted(table.steps.unique())
    ax = ax or new_axes(rows=2 * len(methods))
    last = table[(table.language == comparison.target) & (table.steps == stages[-1])]
    ranked = sorted(last.itertuples(), key=lambda row: -row.bits_per_byte.value)
    order = [row.method for row in ranked if row.method != BASE] + [BASE]
    for row in table.itertuples():
        stage, estimate, colour = stages.index(row.steps), row.bits_per_byte, colour_of(row.language)
        if row.method == BASE and stage:
            continue
        place = order.index(row.method) + (0.18 if len(stages) > 1 else 0) * (1 - 2 * stage / max(1, len(stages) - 1))
        ax.plot([estimate.low, estimate.high], [place] * 2, color=colour, linewidth=1.5)
        ax.plot(
            estimate.value,
            place,
            "o" if row.language == "en" else "D",
            color=colour,
            markerfacecolor="white" if stage < len(stages) - 1 else colour,
            markersize=5,
        )
        beside(ax, f"{estimate.value:.2f}", estimate.high, place, (4, 0), va="center", fontsize=7)
    ax.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.margins(x=0.1)
    when = f"; hollow: before training, full: after {stages[-1]} steps" if len(stages) > 1 else " before training"
    ax.set_xlabel(f"bits per byte (95 % interval){when}")
    ax.legend(
        handles=[
            ax.plot([], [], "o" if code == "en" else "D", color=colour_of(code), label=language_name(code))[0]
            for code in (comparison.target, "en")
        ],
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return finish(ax, comparison.findings()[len(stages) - 1])


def plot_sweep(
    sweep: Sweep,
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    chosen: str = "",
    ax: Axes | None = None,
) -> Axes:
    """English against the target language, a point for each arm: down and left is better.

    A dotted line joins the arms that no other beats in both languages (the Pareto front).

    Args:
        sweep: of this run: full points.
        recorded: sweeps recorded with the project, by name: hollow points.
        chosen: the arm to be marked as the one that was taken.
        ax: to draw into.
    """
    from adjustText import adjust_text

    from .sweeping import BEFORE

    ax = ax or new_axes(rows=12)
    summary = {(row.arm, row.language): row for row in sweep.summary().itertuples()}
    knee, place, labels = sweep.knee(), {}, []
    for arm in dict.fromkeys(arm for arm, _ in summary):
        x, y = (summary[arm, code].bits_per_byte for code in (sweep.target, "en"))
        colour = GREY if arm == BEFORE else TARGET
        across, along = ([[one.value - one.low], [one.high - one.value]] for one in (x, y))
        ax.errorbar(x.value, y.value, along, across, "o", color=colour, ecolor=(colour, 0.5), elinewidth=0.8)
        place[arm] = x.value, y.value
        words = [arm] + [word for word, which in (("knee", knee), ("chosen", chosen)) if which == arm]
        labels.append(ax.text(x.value, y.value, ", ".join(words), fontsize=8, color=colour))
    ax.plot(*zip(*(place[arm] for arm in sweep.front()), strict=True), color=GREY, linewidth=0.8, linestyle=":")
    for arm in {knee, chosen} & set(place):
        ax.plot(*place[arm], "o", markersize=12, markerfacecolor="none", color=GREY)
    recorded = recorded or {}
    for name, content in recorded.items():
        points: dict[str, dict[str, float]] = {}
        for row in content["summary"]:
            points.setdefault(row["arm"], {})[row["language"]] = row["bits_per_byte"]["value"]
        for arm, values in points.items():
            at = values[sweep.target], values["en"]
            ax.plot(*at, "o", color=ENGLISH, markerfacecolor="white", markersize=5)
            said = arm if len(recorded) == 1 else f"{arm} ({name})"
            labels.append(ax.text(*at, said, fontsize=7, color=ENGLISH))
    ax.margins(0.12)
    ax.set_xlabel(f"{language_name(sweep.target)}, bits per byte (95 % interval)")
    ax.set_ylabel("English, bits per byte")
    note = f"hollow: recorded, {', '.join(recorded)}" if recorded else ""
    ax = finish(ax, " ".join(sweep.findings()[:2]), note=note)
    lines = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
    adjust_text(labels, ax=ax, expand=(1.15, 1.7), force_text=(0.2, 0.6), iter_lim=500, arrowprops=lines)
    return ax


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
    return finish(ax, f"Weights moved by {drift.drift.median():.1%} in the middle, most in {most.part} ({where})")


def plot_changes(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """How much bits per byte changed on held-out documents, with intervals."""
    table = scores.bits_per_byte()
    ax = ax or new_axes(rows=len(table))
    rows = table.iloc[::-1].rename(columns={"change": "bits_per_byte"})
    names = [f"{language_name(row.language)}\n{source_name(row.source)}" for row in rows.itertuples()]
    dots_with_intervals(ax, names, rows, percent=True, target=scores.target)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_xlabel("change of bits per byte (95 % interval; left is better)")
    gain = table[table.language == scores.target].iloc[0].change
    english = table[table.language == "en"]
    worst = max(english.change, key=lambda change: change.value)
    return finish(ax, f"{language_name(scores.target)} {_moved(gain)}, English at worst {_moved(worst)}")


def plot_domains(scores: Scores, *, ax: Axes | None = None) -> Axes:
    """How much bits per byte of the target language changed, by domain."""
    table = scores.bits_per_byte(by=("language", "domain"))
    rows = table[table.language == scores.target].rename(columns={"change": "bits_per_byte"})
    rows = rows.iloc[sorted(range(len(rows)), key=lambda i: -rows.bits_per_byte.iloc[i].value)]
    ax = ax or new_axes(rows=len(rows))
    dots_with_intervals(
        ax, [f"{row.domain} ({row.bits_per_byte.units})" for row in rows.itertuples()], rows, percent=True
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
            ax.plot([estimate.low, estimate.high], [place + offset] * 2, color=colour_of(code), linewidth=1.5)
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
            [chance] * 2, [place - 0.4, place + 0.4], color=GREY, linestyle=":", label="chance" if not place else None
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
        f"Accuracy changed beyond doubt on: {', '.join(moved)}" if moved else "No change in accuracy is beyond doubt"
    )
    return finish(ax, title)


def _moved(change: Estimate) -> str:
    direction = "falls" if change.value < 0 else "rises"
    return f"{direction} by {percent(change).lstrip('+-')}"
