"""Intervals that hold what they should, and are the same every time."""

from __future__ import annotations

import pytest

from millrace.core.compare import Estimate, blocks_of, compared, estimate, matched, mean_of, paired, redrawn
from millrace.core.outcome import Outcome, Status


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


def outcome(id: str, scheduled_s: float, took_s: float, status: Status = "completed") -> Outcome:
    first_s = scheduled_s + took_s / 2 if status == "completed" else None
    return Outcome(
        id=id,
        scheduled_s=scheduled_s,
        status=status,
        prompt_tokens=1,
        first_token_s=first_s,
        finished_s=scheduled_s + took_s,
    )


def test_requests_that_both_completed_are_paired_by_id_in_order_of_arrival() -> None:
    base = [outcome("a", 0, 1), outcome("b", 1, 1), outcome("c", 2, 1, "failed"), outcome("d", 3, 1)]
    other = [outcome("b", 1, 2), outcome("a", 0, 2), outcome("c", 2, 2), outcome("d", 3, 2, "refused")]
    assert [(x.id, y.id) for x, y in matched(base, other)] == [("a", "a"), ("b", "b")]


def test_a_policy_that_is_always_later_by_as_much_is_so_without_doubt() -> None:
    base = [outcome(str(n), n, 1 + n % 5) for n in range(60)]
    other = [outcome(str(n), n, 2 + n % 5) for n in range(60)]
    found = compared(matched(base, other))
    assert found is not None
    assert found.requests == 60
    assert (found.e2e_s.low, found.e2e_s.mean, found.e2e_s.high) == pytest.approx((1, 1, 1))
    assert found.ttft_s.mean == pytest.approx(0.5)


def test_nothing_in_common_is_no_comparison() -> None:
    assert compared([]) is None
