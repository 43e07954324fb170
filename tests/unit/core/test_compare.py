"""Intervals that hold what they should, and are the same every time."""

from __future__ import annotations

import pytest

from millrace.core.compare import Estimate, blocks_of, estimate, mean_of, paired, redrawn


def test_values_are_cut_into_contiguous_blocks_that_lose_none() -> None:
    assert blocks_of([1.0, 2.0, 3.0, 4.0, 5.0], blocks=2) == [(3.0, 2), (12.0, 3)]


def test_there_are_never_more_blocks_than_values() -> None:
    assert blocks_of([1.0, 2.0]) == [(1.0, 1), (2.0, 1)]
    assert blocks_of([]) == []


def test_a_mean_weighs_blocks_by_their_size() -> None:
    assert mean_of([(3.0, 2), (12.0, 3)], [0, 1, 1]) == 27 / 8


def test_names_decide_what_is_drawn() -> None:
    first, again, other = (list(redrawn(20, name, draws=3)) for name in ("a", "a", "b"))
    assert first == again != other
    assert all(0 <= index < 20 for chosen in first for index in chosen)


def test_a_constant_has_no_spread() -> None:
    assert estimate([2.0] * 80, "x") == Estimate(mean=2.0, low=2.0, high=2.0)


def test_the_interval_of_independent_values_is_as_wide_as_theory_says() -> None:
    found = estimate([float(n % 2) for n in redrawn(1000, "coin", draws=1).__next__()], "x")
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.35)


def test_what_pairs_share_cancels_out() -> None:
    base = [float(n * n) for n in range(100)]
    found = paired(base, [value + 0.5 for value in base], "x")
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)


def test_pairs_must_match_and_there_must_be_some() -> None:
    with pytest.raises(ValueError, match="1 and 2 values"):
        paired([1.0], [1.0, 2.0], "x")
    with pytest.raises(ValueError, match="empty"):
        estimate([], "x")
