"""Axes: round ends, round ticks, and everything in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.bench.report.scale import Scale, linear, logarithmic


def test_a_linear_axis_begins_at_zero_and_ends_at_a_round_value() -> None:
    x = linear([3.2, 18.7], 100, 200)
    assert (x.low, x.high) == (0, 20)
    assert [x.at(v) for v in (0, 10, 20)] == [100, 150, 200]
    assert x.ticks() == [0, 5, 10, 15, 20]


def test_an_axis_around_zero_has_a_tick_there() -> None:
    assert Scale(-20, 20, 0, 1).ticks() == [-20, -10, 0, 10, 20]


def test_a_logarithmic_axis_gives_each_power_the_same_room() -> None:
    x = logarithmic([0.012, 0.9], 0, 100)
    assert (x.low, x.high) == (0.01, 1)
    assert [x.at(v) for v in (0.01, 0.1, 1)] == pytest.approx([0, 50, 100])


def test_a_short_logarithmic_axis_has_ticks_within_its_powers() -> None:
    assert logarithmic([0.011, 0.08], 0, 1).ticks() == pytest.approx([0.01, 0.02, 0.05, 0.1])
    assert logarithmic([0.011, 80], 0, 1).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])


def test_an_axis_without_values_is_still_an_axis() -> None:
    assert linear([], 0, 1).ticks()
    assert linear([0.0], 0, 1).ticks()
    assert logarithmic([0.0], 0, 1).ticks()


def test_the_least_numbers_that_there_are_do_not_break_an_axis() -> None:
    assert linear([5e-324], 0, 100) == linear([], 0, 100)
    assert logarithmic([5e-324, 3.0], 0, 100) == logarithmic([3.0], 0, 100)


def test_values_outside_are_drawn_at_the_edge() -> None:
    assert Scale(1, 10, 0, 100, log=True).at(0) == 0
    assert Scale(0, 10, 0, 100).at(11) == 100


values = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=5)


@given(values)
def test_every_value_lies_between_the_ends_and_ticks_are_few(known: list[float]) -> None:
    for axis in (linear(known, 0, 100), logarithmic(known, 0, 100)):
        assert axis.low <= min(known) * (1 + 1e-8)
        assert max(known) <= axis.high * (1 + 1e-8)
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 20
        assert all(axis.low * (1 - 1e-8) <= mark <= axis.high * (1 + 1e-8) for mark in ticks)


@given(values, st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
def test_a_larger_value_never_lies_further_left(known: list[float], a: float, b: float) -> None:
    for axis in (linear(known, 0, 100), logarithmic(known, 0, 100)):
        assert axis.at(min(a, b)) <= axis.at(max(a, b))
