from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.stats import mean, percentile, summary

numbers = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)


@given(numbers, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(
        float(np.percentile(values, percent)), rel=1e-12, abs=1e-6
    )


@given(numbers)
def test_a_percentile_never_leaves_the_sample(values: list[float]) -> None:
    assert min(values) <= percentile(values, 99) <= max(values)


def test_percentiles_interpolate_between_the_two_nearest_values() -> None:
    assert percentile([30.0, 10.0], 25) == 15.0
    assert percentile([30.0, 10.0], 75) == 25.0
    assert percentile([7.0], 99) == 7.0


def test_a_summary_holds_the_sample_in_the_unit_of_its_values() -> None:
    found = summary(range(101))
    assert (found.count, found.mean, found.min, found.max) == (101, 50, 0, 100)
    assert (found.p50, found.p75, found.p90, found.p95, found.p99) == (50, 75, 90, 95, 99)


def test_the_mean_does_not_lose_small_values_beside_large_ones() -> None:
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)


def test_empty_samples_and_impossible_percentages_are_refused() -> None:
    for empty in (mean, summary):
        with pytest.raises(ValueError, match="values is empty"):
            empty([])
    with pytest.raises(ValueError, match="values is empty"):
        percentile([], 50)
    with pytest.raises(ValueError, match="percent is 101"):
        percentile([1.0], 101)
