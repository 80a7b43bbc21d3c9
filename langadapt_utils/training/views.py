"""Notebook 4 in figures: the loss of each language, also while a model trains."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..display.figures import colour_of, finish, new_axes, running_mean
from ..display.html import Html, show
from ..languages import language_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .trainer import Report


def plot_training(
    steps: Sequence[Mapping[str, Any]], target: str, *, ax: Axes | None = None
) -> Axes:
    """Training loss of each language in bits per byte against tokens seen: each step, and a running
    mean.
    """
    ax = ax or new_axes()
    for code, points in _losses(steps, target).items():
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=colour_of(code), alpha=0.25, linewidth=1)
        style = "-" if code != "en" else "--"
        ax.plot(
            x, running_mean(y), color=colour_of(code), linestyle=style, label=language_name(code)
        )
    ax.set_xlabel("tokens seen")
    ax.set_ylabel("training loss, bits per byte")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.legend(frameon=False)
    ends = (
        f"{language_name(row['language'])} {row['first']:.2f} → {row['last']:.2f}"
        for row in loss_ends(steps, target)
    )
    return finish(ax, "Training loss: " + ", ".join(ends))


def loss_ends(steps: Sequence[Mapping[str, Any]], target: str) -> list[dict[str, Any]]:
    """The running mean of the training loss, in bits per byte, at the `first` and the `last` step
    of each language.
    """
    means = {
        code: running_mean([loss for _, loss in points])
        for code, points in _losses(steps, target).items()
    }
    return [
        {"language": code, "first": values[0], "last": values[-1]} for code, values in means.items()
    ]


def _losses(steps: Sequence[Mapping[str, Any]], target: str) -> dict[str, list[tuple[int, float]]]:
    """Tokens seen and loss of each step, by language."""
    found = {
        code: [
            (step["tokens"], step["bits_per_byte"][key])
            for step in steps
            if key in step["bits_per_byte"]
        ]
        for key, code in (("target", target), ("en", "en"))
    }
    return {code: points for code, points in found.items() if points}


def live_curve(target: str, report: Report, *, seconds: float = 15.0) -> Report:
    """Show the loss of each language while a model trains.

    Args:
        target: the target language.
        report: what else is told of each record, such as `Workspace.reporter`.
        seconds: between drawings; nothing is drawn in a run that is shorter.

    Returns:
        To be given to `train` as `report`.
    """
    from IPython.display import display

    place, steps, drawn = display(Html(""), display_id=True), [], time.monotonic()

    def reported(record: dict[str, Any]) -> None:
        nonlocal drawn
        report(record)
        if "step" in record:
            steps.append(record)
            if record["step"] == record["steps"]:
                place.update(Html(""))  # the notebook draws the whole curve next
            elif time.monotonic() - drawn > seconds:
                drawn = time.monotonic()
                place.update(show(plot_training(steps, target)))

    return reported
