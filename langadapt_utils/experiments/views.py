"""Comparisons in figures and controls: methods beside each other, English against the target
language.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from ..display.figures import ENGLISH, GREY, TARGET, beside, colour_of, finish, new_axes
from ..display.widgets import interactive, listed, new_slider
from ..intervals import percent, restored
from ..languages import language_name
from .comparison import BEFORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..display.widgets import Interactive
    from .comparison import Comparison, Sweep


def plot_comparison(comparison: Comparison, *, ax: Axes | None = None) -> Axes:
    """Bits per byte of each method, before training and after each number of steps, for both
    languages.
    """
    from .comparison import BASE

    table = comparison.summary()
    methods, stages = list(dict.fromkeys(table.method)), sorted(table.steps.unique())
    ax = ax or new_axes(rows=2 * len(methods))
    last = table[(table.language == comparison.target) & (table.steps == stages[-1])]
    ranked = sorted(last.itertuples(), key=lambda row: -row.bits_per_byte.value)
    order = [row.method for row in ranked if row.method != BASE] + [BASE]
    for row in table.itertuples():
        stage, estimate, colour = (
            stages.index(row.steps),
            row.bits_per_byte,
            colour_of(row.language),
        )
        if row.method == BASE and stage:
            continue
        place = order.index(row.method) + (0.18 if len(stages) > 1 else 0) * (
            1 - 2 * stage / max(1, len(stages) - 1)
        )
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
    when = (
        f"; hollow: before training, full: after {stages[-1]} steps"
        if len(stages) > 1
        else " before training"
    )
    ax.set_xlabel(f"bits per byte (95 % interval){when}")
    ax.legend(
        handles=[
            ax.plot(
                [],
                [],
                "o" if code == "en" else "D",
                color=colour_of(code),
                label=language_name(code),
            )[0]
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
    """English against the target language, a point for each variant: down and left is better.

    A dotted line joins the variants that no other beats in both languages (the Pareto front).

    Args:
        sweep: of this run: full points.
        recorded: sweeps recorded with the project, by name: hollow points.
        chosen: the variant to be marked as the one that was taken.
        ax: to draw into.
    """
    from adjustText import adjust_text

    from .comparison import BEFORE

    ax = ax or new_axes(rows=12)
    summary = {(row.variant, row.language): row for row in sweep.summary().itertuples()}
    knee, place, labels = sweep.knee(), {}, []
    for variant in dict.fromkeys(variant for variant, _ in summary):
        x, y = (summary[variant, code].bits_per_byte for code in (sweep.target, "en"))
        colour = GREY if variant == BEFORE else TARGET
        across, along = ([[one.value - one.low], [one.high - one.value]] for one in (x, y))
        ax.errorbar(
            x.value, y.value, along, across, "o", color=colour, ecolor=(colour, 0.5), elinewidth=0.8
        )
        place[variant] = x.value, y.value
        words = [variant] + [
            word for word, which in (("knee", knee), ("chosen", chosen)) if which == variant
        ]
        labels.append(ax.text(x.value, y.value, ", ".join(words), fontsize=8, color=colour))
    ax.plot(
        *zip(*(place[variant] for variant in sweep.front()), strict=True),
        color=GREY,
        linewidth=0.8,
        linestyle=":",
    )
    for variant in {knee, chosen} & set(place):
        ax.plot(*place[variant], "o", markersize=12, markerfacecolor="none", color=GREY)
    recorded = recorded or {}
    for name, content in recorded.items():
        points: dict[str, dict[str, float]] = {}
        for row in content["summary"]:
            points.setdefault(row["variant"], {})[row["language"]] = row["bits_per_byte"]["value"]
        for variant, values in points.items():
            at = values[sweep.target], values["en"]
            ax.plot(*at, "o", color=ENGLISH, markerfacecolor="white", markersize=5)
            said = variant if len(recorded) == 1 else f"{variant} ({name})"
            labels.append(ax.text(*at, said, fontsize=7, color=ENGLISH))
    ax.margins(0.12)
    ax.set_xlabel(f"{language_name(sweep.target)}, bits per byte (95 % interval)")
    ax.set_ylabel("English, bits per byte")
    note = f"hollow: recorded, {', '.join(recorded)}" if recorded else ""
    ax = finish(ax, " ".join(sweep.findings()[:2]), note=note)
    lines = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
    adjust_text(
        labels, ax=ax, expand=(1.15, 1.7), force_text=(0.2, 0.6), iter_lim=500, arrowprops=lines
    )
    return ax


def sweep_widget(
    sweep: Sweep, recorded: Mapping[str, Mapping[str, Any]] | None = None
) -> Interactive:
    """Choose a point of a sweep or dial and read what both languages are at.

    Args:
        sweep: of this run.
        recorded: sweeps recorded with the project, by name.
    """
    sentences = sweep_sentences(sweep, recorded)
    slider = new_slider("point", list(sentences), next(iter(sentences)))
    return interactive([slider], lambda: sentences[slider.value], listed(list(sentences.values())))


def sweep_sentences(
    sweep: Sweep, recorded: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """What there is to say of each point of a sweep, as HTML; points of recorded ones name their
    recording.
    """
    front, sentences = sweep.front(), {}
    tables = {"": sweep.summary()}
    tables |= {name: restored(content["summary"]) for name, content in (recorded or {}).items()}
    for name, table in tables.items():
        for variant, rows in table[table.variant != BEFORE].groupby("variant", sort=False):
            parts = [
                f"{escape(language_name(row.language))} {row.bits_per_byte.value:.3f} bits per byte, "
                f"{percent(row.change)}"
                for row in rows.itertuples()
            ]
            best = (
                " Nothing else here beats it in both languages."
                if not name and variant in front
                else ""
            )
            title = f"{variant} ({name})" if name else variant
            sentences[title] = f"<b>{escape(title)}</b>: {'; '.join(parts)}.{best}"
    return sentences
