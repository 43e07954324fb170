from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.cost import Curve
from millrace.core.cost.curve import at_least, curve

BENT = Curve((1, 2, 4), (10, 20, 30))


@pytest.mark.parametrize(("x", "value"), [(1, 10), (1.5, 15), (2, 20), (3, 25), (4, 30), (6, 40), (0, 0)])
def test_values_lie_on_straight_lines_that_go_on_at_both_ends(x: float, value: float) -> None:
    assert BENT.at(x) == value


def test_a_single_point_is_the_same_everywhere() -> None:
    flat = Curve((5,), (7,))
    assert (flat.at(0), flat.at(100), flat.bend_after(0)) == (7, 7, inf)


def test_only_inner_points_are_bends() -> None:
    assert [BENT.bend_after(x) for x in (0, 1, 1.9, 2, 3, 4)] == [2, 2, 2, inf, inf, inf]


@pytest.mark.parametrize(
    ("points", "values", "problem"),
    [
        ((), (), "0 points and 0 values"),
        ((1, 2), (1,), "2 points and 1 values"),
        ((1, 1), (1, 2), "the points of a curve must rise"),
    ],
)
def test_a_curve_that_is_none_is_refused(
    points: tuple[float, ...], values: tuple[float, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Curve(points, values)


def test_the_order_in_which_values_come_does_not_matter() -> None:
    assert curve({4: 30, 1: 10, 2: 20}) == BENT


@given(st.lists(st.floats(1, 100), min_size=1, max_size=30), st.sampled_from([0.0, 0.01, 0.5]))
def test_a_thinned_curve_stays_near_every_point(values: list[float], tolerance: float) -> None:
    full = Curve(tuple(range(len(values))), tuple(values))
    thin = full.thinned(tolerance)
    assert set(thin.points) <= set(full.points)
    for x, value in zip(full.points, values, strict=True):
        assert thin.at(x) == pytest.approx(value, rel=tolerance + 1e-9)


def test_a_straight_line_is_thinned_to_its_ends() -> None:
    assert Curve(tuple(range(100)), tuple(3 + 2 * x for x in range(100))).thinned(1e-9).points == (0, 99)


def test_sizes_are_rounded_up_to_the_next_one_there_is() -> None:
    assert [at_least((1, 2, 4, 8), x) for x in (1, 3, 8, 9)] == [1, 4, 8, 9]
    assert at_least((), 5) == 5
