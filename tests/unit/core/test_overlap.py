"""Overlapping never breaks an order, never beats its bound, and gains what the closed form says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.overlap import (
    RESOURCES,
    Operation,
    Run,
    bound_s,
    fused_s,
    fused_speedup,
    relayed_s,
    schedule,
    sequential_s,
    violations,
)

SECONDS = st.floats(1e-6, 1e3)


@st.composite
def operations(draw: st.DrawFn) -> list[Operation]:
    """Operations that wait for some of those before them."""
    count = draw(st.integers(1, 12))
    return [
        Operation(
            name=str(i),
            resource=draw(st.sampled_from(RESOURCES)),
            seconds=draw(st.floats(0.01, 10)),
            after=tuple(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else (),
        )
        for i in range(count)
    ]


@given(SECONDS, SECONDS, st.integers(1, 300))
def test_the_closed_form_is_what_following_the_pieces_gives(a: float, b: float, pieces: int) -> None:
    assert fused_s(a, b, pieces) == pytest.approx(relayed_s([(a / pieces, b / pieces)] * pieces))


@given(SECONDS, SECONDS, st.integers(1, 300))
def test_overlapping_gains_at_most_the_shorter_part(a: float, b: float, pieces: int) -> None:
    assert 1 - 1e-9 <= fused_speedup(a, b, pieces) <= (a + b) / max(a, b) + 1e-9


def test_one_piece_gains_nothing_and_many_hide_nearly_all() -> None:
    assert fused_speedup(3, 1, 1) == 1
    assert fused_speedup(3, 1, 10_000) == pytest.approx(4 / 3, rel=1e-3)
    assert fused_speedup(1, 1, 10_000, rest_s=1) == pytest.approx(1.5, rel=1e-3)


def test_pieces_of_unequal_length_wait_for_each_other() -> None:
    assert relayed_s([(1, 5), (1, 1)]) == 7
    assert relayed_s([(1, 1), (5, 1)]) == 7
    assert relayed_s([]) == 0


@given(operations(), st.floats(0.4, 1.0))
def test_a_schedule_is_valid_and_between_its_bound_and_one_after_the_other(
    found: list[Operation], together: float
) -> None:
    runs = schedule(found, together=together)
    end_s = max(run.end_s for run in runs)
    assert violations(found, runs) == []
    assert end_s >= bound_s(found) * (1 - 1e-9)
    assert end_s <= sequential_s(found) / together * (1 + 1e-9)


def test_operations_on_different_resources_run_at_the_same_time() -> None:
    two = [
        Operation(name="product", resource="compute", seconds=2.0),
        Operation(name="cache", resource="memory", seconds=1.0),
    ]
    assert schedule(two) == [Run(0, 2), Run(0, 1)]
    slowed = schedule(two, together=0.5)
    assert slowed == [Run(0, 3), Run(0, 2)]


def test_each_resource_takes_the_first_that_may_begin() -> None:
    three = [
        Operation(name="a", resource="compute", seconds=1.0),
        Operation(name="b", resource="compute", seconds=1.0, after=(0,)),
        Operation(name="c", resource="compute", seconds=1.0),
    ]
    assert [run.start_s for run in schedule(three)] == [0, 1, 2]


def test_a_wrong_schedule_is_called_wrong() -> None:
    two = [
        Operation(name="a", resource="compute", seconds=2.0),
        Operation(name="b", resource="compute", seconds=2.0, after=(0,)),
    ]
    assert violations(two, [Run(0, 2), Run(2, 4)]) == []
    assert violations(two, [Run(0, 2), Run(2, 3)]) == ["b takes less than its 2 s"]
    assert violations(two, [Run(0, 2), Run(1, 3)]) == [
        "b begins before a has ended",
        "b shares its compute with a",
    ]
    assert violations([], []) == []
