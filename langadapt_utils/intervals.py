"""Numbers with 95 % confidence intervals: bootstrap over documents, Wilson's for fractions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter
from scipy.stats import binomtest, norm, t

Numbers = npt.NDArray[np.float64]

CONFIDENCE, RESAMPLES = 0.95, 2_000
# Minimum number of units: with five, the interval contains the true mean in 94 % of cases; with
# fewer, too rarely.
FEWEST = 5
TOO_FEW = "(too few for an interval)"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: the number, computed on all units.
        low, high: ends of the interval; NaN with fewer than five units.
        units: number of documents or items.
    """

    value: float
    low: float
    high: float
    units: int


def ratio(over: Numbers, under: Numbers, *, resamples: int = RESAMPLES) -> Interval:
    """Divide one sum by another, with a bootstrap interval over the units.

    Args:
        over: numerators, of shape (units,), such as the bits of each document.
        under: denominators, of shape (units,), such as the bytes of each document.
        resamples: of the bootstrap.

    Source: percentile interval, Efron & Tibshirani 1993; widened for few units, Hesterberg 2015,
    arXiv 1411.5279.
    """
    weights = _bootstrap_weights(len(over), resamples)
    below = weights @ under
    drawn = below != 0  # a resample of nothing has no ratio
    return _interval(over.sum() / under.sum(), (weights @ over)[drawn] / below[drawn], len(over))


def relative_change(before: Numbers, after: Numbers, *, resamples: int = RESAMPLES) -> Interval:
    """Return the change of a sum as a fraction of it, with a paired bootstrap over the units.

    Args:
        before: values before the change, of shape (units,).
        after: values of the same units after the change, of shape (units,).
        resamples: of the bootstrap.
    """
    weights = _bootstrap_weights(len(before), resamples)
    resampled = (weights @ after) / (weights @ before) - 1
    return _interval(after.sum() / before.sum() - 1, resampled, len(before))


def wilson(correct: int, items: int) -> Interval:
    """Return the fraction of correct answers with a 95 % interval (Wilson 1927)."""
    ends = binomtest(correct, items).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(correct / items, float(ends.low), float(ends.high), items)


def percent(change: Interval) -> str:
    """Return a relative change with its interval.

    Example:
        >>> percent(Interval(-0.1, -0.2, 0.05, 9))
        '-10.0% [-20.0%, +5.0%]'
    """
    return with_ends(change, "+.1%" if abs(change.value) >= 0.0005 else "+.3%")


def with_ends(number: Interval, form: str = ".3f") -> str:
    """Return a number with its interval.

    Example:
        >>> with_ends(Interval(2.5, 2.25, 2.75, 9))
        '2.500 [2.250, 2.750]'
    """
    ends = f"[{number.low:{form}}, {number.high:{form}}]"
    return f"{number.value:{form}} {TOO_FEW if math.isnan(number.low) else ends}"


def sign(change: Interval) -> int:
    """Return -1 if the whole interval is below 0, 1 if it is above 0, else 0."""
    return -1 if change.high < 0 else 1 if change.low > 0 else 0


def plain(content: Any) -> Any:
    """Return content as plain data for a JSON file.

    A table becomes a list of rows, an interval an object. NaN and infinity, which JSON lacks,
    become None.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(Any)
    return adapter.dump_python(content, mode="json", fallback=lambda t: t.to_dict("records"))


def restored(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the table that `plain` converted, with `Interval`s."""
    return pd.DataFrame([{name: _parsed(cell) for name, cell in row.items()} for row in records])


def _parsed(cell: Any) -> Any:
    if not (isinstance(cell, dict) and cell.keys() == Interval.__dataclass_fields__.keys()):
        return cell
    low, high = (math.nan if cell[end] is None else cell[end] for end in ("low", "high"))
    return Interval(cell["value"], low, high, cell["units"])


@lru_cache(maxsize=8)  # tables of as many units are made again and again
def _bootstrap_weights(units: int, resamples: int) -> Numbers:
    """Draw how often each unit is in each resample, of shape (resamples, units)."""
    shares, generator = np.full(units, 1 / units), np.random.default_rng(0)
    return generator.multinomial(units, shares, size=resamples).astype(float)


def _interval(value: float, resampled: Numbers, units: int) -> Interval:
    """Return a value with the interval of its resamples, widened for few units."""
    if units < FEWEST:
        return Interval(float(value), math.nan, math.nan, units)
    tail = norm.cdf(-math.sqrt(units / (units - 1)) * t.ppf((1 + CONFIDENCE) / 2, units - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), units)


def knee(x: npt.ArrayLike, y: npt.ArrayLike) -> int:
    """Return the index of the point of a falling curve that is farthest below the line between its
    ends. Both axes are scaled to 1.

    Example:
        >>> knee([0, 1, 2, 3, 4], [10, 4, 3, 2, 1])
        1

    Source: Satopaa et al. 2011, Finding a "Kneedle" in a Haystack.
    """
    right, down = np.asarray(x, dtype=float), -np.asarray(y, dtype=float)
    scaled = [(values - values[0]) / ((values[-1] - values[0]) or 1.0) for values in (right, down)]
    return int(np.argmax(scaled[1] - scaled[0]))
