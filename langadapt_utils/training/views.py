"""Notebook 4 in figures: the loss of each language."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from ..chat import CHAT
from ..display.figures import colour_of, finish, new_axes
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
    for code, losses in _losses(steps, target).items():
        colour, style = colour_of(code), {"en": "--", CHAT: ":"}.get(code, "-")
        ax.plot(losses, color=colour, alpha=0.25, linewidth=1)
        ax.plot(running_mean(losses), color=colour, linestyle=style, label=language_name(code))
    ax.set(xlabel="tokens seen", ylabel="training loss, bits per byte")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend(frameon=False)
    ends = loss_ends(steps, target)
    change = (f"{language_name(x['language'])} {x['first']:.2f} → {x['last']:.2f}" for x in ends)
    return finish(ax, "Training loss: " + ", ".join(change))


def loss_ends(steps: Sequence[Record], target: str) -> list[Record]:
    """Return the running mean of each language's training loss at its `first` and `last` step.

    Example:
        >>> loss_ends([{"tokens": 10, "bits_per_byte": {"target": 2.5}}], "hu")
        [{'language': 'hu', 'first': 2.5, 'last': 2.5}]
    """
    means = {code: running_mean(losses).tolist() for code, losses in _losses(steps, target).items()}
    return [{"language": code, "first": mean[0], "last": mean[-1]} for code, mean in means.items()]


def _losses(steps: Sequence[Record], target: str) -> dict[str, pd.Series]:
    """Return the loss of each step over the tokens seen, by language."""
    tokens = [step["tokens"] for step in steps]
    bits = pd.DataFrame([step["bits_per_byte"] for step in steps], index=tokens)
    codes = {"target": target, "en": "en", CHAT: CHAT}
    return {codes[part]: bits[part].dropna() for part in codes if part in bits}


def running_mean(values: pd.Series) -> pd.Series:
    """Return the running mean of values, over a window of a tenth of them.

    Example:
        >>> running_mean(pd.Series(range(20)))[:4].tolist()
        [0.0, 0.5, 1.5, 2.5]
    """
    return values.rolling(max(1, len(values) // 10), min_periods=1).mean()
