"""Figures of comparisons: methods side by side, and English against the target language."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.text import Text

from ..display.figures import ENGLISH, GREY, LEGEND, TARGET, beside, colour_of, finish, new_axes
from ..intervals import Interval, restored
from ..languages import language_name
from .comparison import BASE, BEFORE, Comparison, when

Recorded = Mapping[str, Mapping[str, Any]]  # comparisons that the project recorded, by name

SPREAD = 0.18  # distance of the first stage above its row, and of the last below
APART = {"expand": (1.15, 1.7), "force_text": (0.2, 0.6), "iter_lim": 500}  # labels of points


def plot_comparison(comparison: Comparison, *, ax: Axes | None = None) -> Axes:
    """Plot bits per byte by method, number of training steps and language.

    Args:
        comparison: from `compare_methods`.
        ax: axes to draw into; new ones by default.
    """
    table = comparison.summary()
    stages = sorted(table.steps.unique())
    ax = ax or new_axes(rows=2 * table.variant.nunique())
    last = table[(table.language == comparison.target) & (table.steps == stages[-1])]
    ranked = sorted(last.itertuples(), key=lambda row: -row.bits_per_byte.value)
    # The first stage is drawn above the row of its method, the last below.
    offsets = np.linspace(SPREAD, -SPREAD, len(stages)) if len(stages) > 1 else [0.0]
    order = [row.variant for row in ranked if row.variant != BASE] + [BASE]
    for row in table[(table.variant != BASE) | (table.steps == stages[0])].itertuples():
        stage, score, colour = stages.index(row.steps), row.bits_per_byte, colour_of(row.language)
        place = order.index(row.variant) + offsets[stage]
        fill, marker = "white" if stage < len(stages) - 1 else colour, _marker(row.language)
        ax.plot([score.low, score.high], [place] * 2, color=colour, linewidth=1.5)
        ax.plot(score.value, place, marker, color=colour, markerfacecolor=fill, markersize=5)
        beside(ax, f"{score.value:.2f}", score.high, place, (4, 0), va="center", fontsize=7)
    ax.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
    ax.margins(x=0.1)
    *hollow, full = map(when, stages)
    legend = f"; hollow: {', '.join(hollow)}; full: {full}" if hollow else f" {full}"
    ax.set(xlabel=f"bits per byte (95 % interval){legend}", ylim=(-0.6, len(order) - 0.4))
    for code in (comparison.target, "en"):
        ax.plot([], [], _marker(code), color=colour_of(code), label=language_name(code))
    ax.legend(**LEGEND)
    return finish(ax, comparison.findings()[len(stages) - 1])


def _marker(language: str) -> str:
    return "o" if language == "en" else "D"


def plot_sweep(
    sweep: Comparison, recorded: Recorded | None = None, *, chosen: str = "", ax: Axes | None = None
) -> Axes:
    """Plot English against the target language, with one point per variant; down-left is better.

    A dotted line connects the Pareto front: variants that no other beats in both languages.

    Args:
        sweep: of this run; drawn as full points.
        recorded: sweeps that the project recorded, by name; drawn as hollow points.
        chosen: variant to mark as the chosen one.
        ax: axes to draw into; new ones by default.
    """
    ax = ax or new_axes(rows=12)
    points: dict[str, tuple[float, float]] = {}
    labels: list[Text] = []
    for variant, (x, y) in _scores(sweep.summary(), sweep.target).items():
        colour = GREY if variant == BEFORE else TARGET
        along, across = ([[s.value - s.low], [s.high - s.value]] for s in (y, x))
        points[variant] = point = x.value, y.value
        ax.errorbar(*point, along, across, "o", c=colour, ecolor=(colour, 0.5), elinewidth=0.8)
        if variant == chosen:
            ax.plot(*point, "o", markersize=12, markerfacecolor="none", color=GREY)
        label = f"{variant}, chosen" if variant == chosen else variant
        labels.append(ax.text(*point, label, fontsize=8, color=colour))
    front = zip(*(points[variant] for variant in sweep.front()), strict=True)
    ax.plot(*front, color=GREY, linewidth=0.8, linestyle=":")
    for name, content in (recorded or {}).items():
        for variant, (x, y) in _scores(restored(content["summary"]), sweep.target).items():
            ax.plot(x.value, y.value, "o", color=ENGLISH, markerfacecolor="white", markersize=5)
            label = variant if len(recorded or {}) == 1 else f"{variant} ({name})"
            labels.append(ax.text(x.value, y.value, label, fontsize=7, color=ENGLISH))
    ax.margins(0.12)
    own = f"{language_name(sweep.target)}, bits per byte (95 % interval)"
    ax.set(xlabel=own, ylabel="English, bits per byte")
    note = f"hollow: recorded, {', '.join(recorded)}" if recorded else ""
    ax = finish(ax, " ".join(sweep.findings()[:2]), note=note)
    lines = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
    adjust_text(labels, ax=ax, arrowprops=lines, **APART)
    return ax


def _scores(table: pd.DataFrame, target: str) -> dict[str, tuple[Interval, Interval]]:
    """Return the bits per byte of each variant of a summary, in the target language and English."""
    scores = table.set_index(["variant", "language"]).bits_per_byte
    return {name: (scores[name, target], scores[name, "en"]) for name in table.variant.unique()}
