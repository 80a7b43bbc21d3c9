import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt_utils import intervals
from langadapt_utils.intervals import (
    Interval,
    plain,
    ratio,
    relative_change,
    restored,
    sign,
    wilson,
)


@pytest.mark.parametrize("documents", [12, 40, 200])
def test_intervals_cover_the_truth_as_often_as_they_say(documents: int) -> None:
    """Documents as those of the built-in text: sizes and difficulty vary, and so does the change
    between models.
    """
    generator, truth, times = np.random.default_rng(documents), 2.0, 1_500
    covered = {"ratio": 0, "change": 0}
    for _ in range(times):
        sizes = generator.lognormal(7, 0.4, size=documents)
        before = sizes * generator.normal(truth, 0.3, size=documents)
        after = before * generator.normal(0.9, 0.05, size=documents)
        for name, estimate, true in (
            ("ratio", ratio(before, sizes, resamples=600), truth),
            ("change", relative_change(before, after, resamples=600), -0.1),
        ):
            covered[name] += estimate.low <= true <= estimate.high
    assert all(0.92 <= count / times <= 0.98 for count in covered.values()), covered


def test_a_paired_change_is_sharper_than_its_parts() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(100, 1_000, size=40)
    after = before * generator.normal(0.8, 0.01, size=40)
    change = relative_change(before, after, resamples=500)
    assert change.value == pytest.approx(-0.2, abs=0.01) and change.high - change.low < 0.02
    assert (sign(change), sign(relative_change(before, before, resamples=100))) == (-1, 0)
    assert sign(relative_change(after, before, resamples=100)) == 1


def test_wilson_intervals_are_the_published_ones() -> None:
    """The interval of 15 successes in 20 trials, from the formula of Wilson 1927 by hand: 0.531 to
    0.888.
    """
    estimate = wilson(15, 20)
    assert (estimate.low, estimate.high) == (
        pytest.approx(0.531, abs=1e-3),
        pytest.approx(0.888, abs=1e-3),
    )
    assert wilson(0, 10).low == pytest.approx(0) and wilson(10, 10).high == pytest.approx(1)


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=30))
@settings(deadline=None, max_examples=25)
def test_an_interval_holds_its_value(numbers: list[float]) -> None:
    values = np.array(numbers)
    estimate = ratio(values, np.ones(len(values)), resamples=200)
    assert estimate.value == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= estimate.low <= estimate.high <= values.max() + 1e-9


def test_wilson_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator, times = np.random.default_rng(0), 4_000
    for share, items in ((0.5, 40), (0.7, 100), (0.9, 100)):
        right = generator.binomial(items, share, size=times)
        covered = sum(
            one.low <= share <= one.high for one in (wilson(int(count), items) for count in right)
        )
        assert 0.92 <= covered / times <= 0.98


@pytest.mark.parametrize("units", [1, 4])
def test_few_units_have_no_interval(units: int) -> None:
    estimate = ratio(np.full(units, 3.0), np.full(units, 2.0), resamples=100)
    assert (
        (estimate.value, estimate.units) == (1.5, units)
        and math.isnan(estimate.low)
        and sign(estimate) == 0
    )
    assert ratio(np.full(5, 3.0), np.full(5, 2.0), resamples=100).low == 1.5


def test_the_quantile_of_student_is_the_published_one() -> None:
    """For five units, the table of t with 4 degrees of freedom says 2.776."""
    over, under = np.array([1.0, 2.0, 4.0, 7.0, 11.0]), np.ones(5)
    tail = 0.5 * math.erfc(math.sqrt(5 / 4) * 2.776445 / math.sqrt(2))
    resampled = intervals._bootstrap_weights(5, 500) @ over / 5
    ends = np.quantile(resampled, [tail, 1 - tail])
    interval = ratio(over, under, resamples=500)
    assert [interval.low, interval.high] == pytest.approx(ends, rel=1e-5)


def test_resamples_without_a_ratio_are_left_out() -> None:
    """At chance: a resample can hold nothing above it."""
    over = np.array([0.5] * 6 + [-0.5] * 5)
    estimate = ratio(over, over, resamples=500)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_a_table_is_restored_from_plain_data() -> None:
    table = pd.DataFrame(
        [{"variant": "a", "score": Interval(1.0, 0.5, 2.0, 7), "n": 3, "none": None}]
    )
    assert plain(table) == [
        {
            "variant": "a",
            "score": {"value": 1.0, "low": 0.5, "high": 2.0, "units": 7},
            "n": 3,
            "none": None,
        }
    ]
    assert restored(plain(table)).iloc[0].to_dict() == table.iloc[0].to_dict()
    alone = plain(pd.DataFrame([{"score": Interval(1.0, math.nan, math.nan, 1)}]))
    assert alone[0]["score"]["low"] is None and math.isnan(restored(alone).score[0].low)
