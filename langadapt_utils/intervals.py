"""Numbers with 95 % intervals: bootstrap over documents, Wilson's for shares; what can be said of a
difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Numbers = npt.NDArray[np.float64]

CONFIDENCE = 0.95
FEWEST = 5  # units of an interval: the range of fewer holds the middle of all too rarely, of five in 94 % of cases
TOO_FEW = "(too few for an interval)"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: computed on all units.
        low, high: ends of the interval; NaN where there are fewer than five units, which say little
            of others.
        units: how many documents or items it rests on.
    """

    value: float
    low: float
    high: float
    units: int


def ratio(over: Numbers, under: Numbers, *, resamples: int, seed: int = 0) -> Interval:
    """Sum over sum, with a bootstrap interval over the units.

    A percentile interval (Efron & Tibshirani 1993), widened for few units as Hesterberg 2015, arXiv
    1411.5279, does.
    """
    weights = _bootstrap_weights(len(over), resamples, seed)
    below = weights @ under
    drawn = below != 0  # a resample of nothing has no ratio
    return _estimate(over.sum() / under.sum(), (weights @ over)[drawn] / below[drawn], len(over))


def relative_change(before: Numbers, after: Numbers, *, resamples: int, seed: int = 0) -> Interval:
    """How much a sum over the same units changed, as a share of what it was; a paired bootstrap
    over units.
    """
    weights = _bootstrap_weights(len(before), resamples, seed)
    return _estimate(
        after.sum() / before.sum() - 1, (weights @ after) / (weights @ before) - 1, len(before)
    )


def wilson(correct: int, items: int) -> Interval:
    """A share of correct answers with Wilson's 95 % interval (Wilson 1927)."""
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), correct / items
    middle = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = (
        z
        / (1 + z * z / items)
        * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    )
    return Interval(share, middle - half, middle + half, items)


def percent(change: Interval) -> str:
    """A relative change with its interval.

    Example:
        >>> percent(Interval(-0.1, -0.2, 0.05, 9))
        '-10.0% [-20.0%, +5.0%]'
    """
    ends = f"[{change.low:+.1%}, {change.high:+.1%}]" if change.low == change.low else TOO_FEW
    return f"{change.value:+.1%} {ends}"


def with_ends(estimate: Interval) -> str:
    """A number with its interval.

    Example:
        >>> with_ends(Interval(2.5, 2.25, 2.75, 9))
        '2.500 [2.250, 2.750]'
    """
    ends = f"[{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.low == estimate.low else TOO_FEW
    return f"{estimate.value:.3f} {ends}"


def sign(change: Interval) -> int:
    """-1 or 1 where the whole interval lies below or above 0, else 0: nothing can be told."""
    return -1 if change.high < 0 else 1 if change.low > 0 else 0


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as plain data for a file, its estimates as objects."""
    return [
        {name: plain_cell(cell) for name, cell in row.items()} for row in table.to_dict("records")
    ]


def plain_cell(cell: Any) -> Any:
    """One cell of `plain`; what is not a number is None, as JSON has no other word for it."""
    if isinstance(cell, Interval):
        return {name: plain_cell(value) for name, value in asdict(cell).items()}
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def restored(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table that `plain` wrote, its estimates as `Interval` again."""
    import pandas as pd

    return pd.DataFrame(
        [{name: _restored_cell(cell) for name, cell in row.items()} for row in records]
    )


def _restored_cell(cell: Any) -> Any:
    if not (isinstance(cell, dict) and cell.keys() == Interval.__dataclass_fields__.keys()):
        return cell
    low, high = (math.nan if cell[end] is None else cell[end] for end in ("low", "high"))
    return Interval(cell["value"], low, high, cell["units"])


def _bootstrap_weights(units: int, resamples: int, seed: int) -> Numbers:
    """How often each unit is drawn in each resample, of shape (resamples, units)."""
    return (
        np.random.default_rng(seed)
        .multinomial(units, np.full(units, 1 / units), size=resamples)
        .astype(float)
    )


def _estimate(value: float, resampled: Numbers, units: int) -> Interval:
    if units < FEWEST:
        return Interval(float(value), math.nan, math.nan, units)
    tail = NormalDist().cdf(-math.sqrt(units / (units - 1)) * _student_quantile(units - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), units)


def _student_quantile(freedom: int) -> float:
    """Student's distribution at the upper end of an interval, by the expansion of Fisher & Cornish
    1960.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


def knee(x: npt.ArrayLike, y: npt.ArrayLike) -> int:
    """Which point of a falling curve lies farthest below the straight line between its ends, both
    axes scaled to 1.

    Source: Satopaa et al. 2011, Finding a "Kneedle" in a Haystack.
    """
    right, down = np.asarray(x, dtype=float), -np.asarray(y, dtype=float)
    scaled = [(values - values[0]) / ((values[-1] - values[0]) or 1.0) for values in (right, down)]
    return int(np.argmax(scaled[1] - scaled[0]))
