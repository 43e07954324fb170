"""Durations in bins: what is exact, what is nearly so, and lines that equal their points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.histogram import FINEST_S, WIDTH, Histogram
from millrace.core.stats import summary

HALF_A_BIN = 0.005
POINTS = ("p50", "p75", "p90", "p95", "p99")

lines = st.tuples(
    st.floats(1e-4, 10.0),
    st.one_of(st.just(0.0), st.floats(1e-9, 0.5), st.floats(-1e-7, -1e-15)),
    st.integers(1, 200),
    st.integers(1, 9),
)


def values_of(line: tuple[float, float, int, int]) -> list[float]:
    first_s, gain_s, steps, times = line
    return [max(first_s + gain_s * n, 0.0) for n in range(steps) for _ in range(times)]


def test_nothing_has_no_summary() -> None:
    found = Histogram()
    found.add(0.5, 0)
    assert found.summary() is None


def test_one_value_many_times_is_told_exactly() -> None:
    found = Histogram()
    found.add(0.25, 3)
    found.add_line(0.25, 0.0, 4, 2)
    assert found.summary() == summary([0.25] * 11)


@pytest.mark.parametrize("value_s", [0.0, 1e-12, FINEST_S, -1e-17])
def test_what_is_shorter_than_the_finest_bin_is_in_it(value_s: float) -> None:
    found = Histogram()
    found.add(value_s)
    found.add_line(value_s, 0.5, 2, 1)
    told = found.summary()
    assert told is not None
    assert (told.min, told.count) == (value_s, 3)
    assert told.p50 == pytest.approx(0.0, abs=2 * FINEST_S)
    assert told.p99 == pytest.approx(summary([value_s, value_s, value_s + 0.5]).p99, rel=HALF_A_BIN)


@given(st.lists(lines, min_size=1, max_size=6))
def test_lines_are_told_as_their_points_to_half_a_bin(many: list[tuple[float, float, int, int]]) -> None:
    found = Histogram()
    for line in many:
        found.add_line(*line)
    exact = summary([value for line in many for value in values_of(line)])
    told = found.summary()
    assert told is not None
    assert told.count == exact.count
    assert (told.mean, told.min, told.max) == pytest.approx((exact.mean, exact.min, exact.max))
    for point in POINTS:
        assert getattr(told, point) == pytest.approx(getattr(exact, point), rel=HALF_A_BIN)


@given(lines)
def test_a_line_falls_into_the_bins_of_its_points(line: tuple[float, float, int, int]) -> None:
    together, apart = Histogram(), Histogram()
    together.add_line(*line)
    values = values_of(line)
    for value_s in values:
        apart.add(value_s)
    for found in (together, apart):
        bins = found.bins()
        assert sum(bins.values()) == len(values)
        assert all(bins.values())
        counted = 0
        for place in sorted(bins):
            counted += bins[place]
            edge_s = FINEST_S * WIDTH ** (place + 1)
            # A duration on the edge itself may be on either side of it.
            below, above = (sum(value < edge_s * (1 + part) for value in values) for part in (-1e-9, 1e-9))
            assert below <= counted <= above


@given(st.lists(lines, max_size=5), st.lists(lines, max_size=5))
def test_merging_is_counting_all_in_one(
    some: list[tuple[float, float, int, int]], more: list[tuple[float, float, int, int]]
) -> None:
    first, second, whole = Histogram(), Histogram(), Histogram()
    for line in some:
        first.add_line(*line)
    for line in more:
        second.add_line(*line)
    for line in some + more:
        whole.add_line(*line)
    first.merge(second)
    assert first.bins() == whole.bins()
    assert first.count == whole.count
    assert first.sum_s == pytest.approx(whole.sum_s)
