"""Notebook 4 in figures: the loss of each language."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from ..chat import CHAT
from ..display.figures import colour_of, finish, new_axes, running_mean
from ..languages import language_name
from .trainer import Record


def plot_training(steps: Sequence[Record], target: str, *, ax: Axes | None = None) -> Axes:
    """Plot the training loss of each language: each step, and a running mean.

    Args:
        steps: records of a training run.
        target: the target language.
        ax: axes to draw into; new ones by default.
    """
    ax = ax or new_axes()
    for code, (tokens, losses) in _losses(steps, target).items():
        colour, style = colour_of(code), {"en": "--", CHAT: ":"}.get(code, "-")
        ax.plot(tokens, losses, color=colour, alpha=0.25, linewidth=1)
        mean = running_mean(losses)
        ax.plot(tokens, mean, color=colour, linestyle=style, label=language_name(code))
    ax.set(xlabel="tokens seen", ylabel="training loss, bits per byte")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend(frameon=False)
    ends = loss_ends(steps, target)
    change = (f"{language_name(x['language'])} {x['first']:.2f} → {x['last']:.2f}" for x in ends)
    return finish(ax, "Training loss: " + ", ".join(change))


def loss_ends(steps: Sequence[Record], target: str) -> list[dict[str, Any]]:
    """Return the running mean of each language's training loss at its `first` and `last` step.

    Example:
        >>> loss_ends([{"tokens": 10, "bits_per_byte": {"target": 2.5}}], "hu")
        [{'language': 'hu', 'first': 2.5, 'last': 2.5}]
    """
    curves = _losses(steps, target).items()
    means = {code: running_mean(losses) for code, (_, losses) in curves}
    return [{"language": code, "first": mean[0], "last": mean[-1]} for code, mean in means.items()]


def _losses(steps: Sequence[Record], target: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return tokens seen and loss of each step, by language."""
    curves = {}
    for key, code in (("target", target), ("en", "en"), (CHAT, CHAT)):
        if seen := [step for step in steps if key in step["bits_per_byte"]]:
            losses = [step["bits_per_byte"][key] for step in seen]
            curves[code] = [step["tokens"] for step in seen], losses
    return curves
