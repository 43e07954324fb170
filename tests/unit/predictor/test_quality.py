"""How good predictions are, by hand and against definitions."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.predictor.conformal import classes_of, least_share
from millrace.predictor.quality import pairs_in_order, rank_correlation

FEW = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=20)


@given(FEW)
def test_pairs_in_order_are_counted_one_by_one(answers: list[tuple[int, int]]) -> None:
    right = [
        0.5 if a == b else float((a < b) == (c < d)) for (a, c), (b, d) in combinations(answers, 2) if c != d
    ]
    wanted = sum(right) / len(right) if right else 0.5
    assert pairs_in_order([a for a, _ in answers], [c for _, c in answers]) == pytest.approx(wanted)


def test_rank_correlation_is_of_places_and_equals_share_theirs() -> None:
    assert rank_correlation([1, 2, 3], [10, 200, 3000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [1, 2, 3, 4]) == pytest.approx(0.894427)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == rank_correlation([], []) == 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
def test_at_least_the_promised_share_of_what_was_calibrated_on_is_covered(
    shares: list[float], coverage: float
) -> None:
    least = least_share(shares, coverage)
    assert sum(share >= least for share in shares) >= coverage * len(shares)


def test_too_few_to_promise_anything_get_every_class() -> None:
    assert least_share([0.9] * 3, 0.9) == 0.0
    assert classes_of([0.7, 0.2, 0.1], 0.0) == (0, 1, 2)
    assert classes_of([0.1, 0.2, 0.7], 0.9) == (2,)
    with pytest.raises(ValueError, match="coverage is 2"):
        least_share([0.5], 2)
