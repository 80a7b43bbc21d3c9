"""The figure of comparisons: English against the target language."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.text import Text

from ..display.figures import ENGLISH, GREY, TARGET, finish, new_axes
from ..intervals import Interval, restored
from ..languages import language_name
from .comparison import BASE, BEFORE, Comparison, when

Recorded = Mapping[str, Mapping[str, Any]]  # comparisons that the project recorded, by name

APART = {"expand": (1.15, 1.7), "force_text": (0.2, 0.6), "iter_lim": 500}  # labels of points


def plot_sweep(
    sweep: Comparison, recorded: Recorded | None = None, *, chosen: str = "", ax: Axes | None = None
) -> Axes:
    """Plot English against the target language, with one point per variant; down-left is better.

    A dotted line connects the Pareto front: variants that no other beats in both languages. Of
    several stages of training, the last one is drawn as full points, the others as hollow ones.

    Args:
        sweep: of this run.
        recorded: sweeps that the project recorded, by name; drawn as hollow points.
        chosen: variant to mark as the chosen one.
        ax: axes to draw into; new ones by default.
    """
    ax, steps = ax or new_axes(rows=12), sorted(sweep.table.steps.unique())
    *earlier, last = (replace(sweep, table=sweep.table[sweep.table.steps == n]) for n in steps)
    hollow = {when(n): one.summary() for n, one in zip(steps[:-1], earlier, strict=True)}
    for name, content in (recorded or {}).items():
        hollow[f"recorded, {name}"] = restored(content["summary"])
    points: dict[str, tuple[float, float]] = {}
    labels: list[Text] = []
    for variant, (x, y) in _scores(last.summary(), sweep.target).items():
        colour = GREY if variant in (BASE, BEFORE) else TARGET
        along, across = ([[s.value - s.low], [s.high - s.value]] for s in (y, x))
        points[variant] = point = x.value, y.value
        ax.errorbar(*point, along, across, "o", c=colour, ecolor=(colour, 0.5), elinewidth=0.8)
        if variant == chosen:
            ax.plot(*point, "o", markersize=12, markerfacecolor="none", color=GREY)
        label = f"{variant}, chosen" if variant == chosen else variant
        labels.append(ax.text(*point, label, fontsize=8, color=colour))
    front = zip(*(points[variant] for variant in last.front()), strict=True)
    ax.plot(*front, color=GREY, linewidth=0.8, linestyle=":")
    for name, table in hollow.items():
        for variant, (x, y) in _scores(table[table.variant != BASE], sweep.target).items():
            ax.plot(x.value, y.value, "o", color=ENGLISH, markerfacecolor="white", markersize=5)
            label = variant if len(hollow) == 1 else f"{variant} ({name})"
            labels.append(ax.text(x.value, y.value, label, fontsize=7, color=ENGLISH))
    ax.margins(0.12)
    own = f"{language_name(sweep.target)}, bits per byte (95 % interval)"
    ax.set(xlabel=own, ylabel="English, bits per byte")
    note = f"hollow: {', '.join(hollow)}" if hollow else ""
    ax = finish(ax, " ".join(sweep.findings()[len(earlier) :][:2]), note=note)
    lines = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
    adjust_text(labels, ax=ax, arrowprops=lines, **APART)
    return ax


def _scores(table: pd.DataFrame, target: str) -> dict[str, tuple[Interval, Interval]]:
    """Return the bits per byte of each variant of a summary, in the target language and English."""
    scores = table.set_index(["variant", "language"]).bits_per_byte
    return {name: (scores[name, target], scores[name, "en"]) for name in table.variant.unique()}
