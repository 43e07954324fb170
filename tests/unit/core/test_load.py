"""Loads come from books and reports; what is unknown is as bad as the worst known, and never nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.load import cautious, kv_memory, kv_usage, kv_usages, running_requests, waiting_requests
from millrace.core.replica import Limits, Report
from millrace.testing import fakes

SMALL = Limits(kv_blocks=100, block_tokens=10)  # 1000 tokens
counts = st.integers(0, 50)


def test_of_books_and_reports_the_larger_counts() -> None:
    assert cautious([3, 3], [5, 1]) == [5, 3]


def test_who_said_nothing_has_as_much_beside_the_books_as_the_worst_who_did() -> None:
    assert cautious([1, 2, 0, 4], [3, 9, None, None]) == [3, 9, 7, 11]
    assert cautious([1, 2, 5], [0, None, None]) == [1, 2, 5]
    assert cautious([1, 2], [None, None]) == [1, 2]


@given(st.lists(st.tuples(counts, st.none() | counts), min_size=1))
def test_nobody_carries_less_than_the_books_say(loads: list[tuple[int, int | None]]) -> None:
    booked, said = [mine for mine, _ in loads], [what for _, what in loads]
    assert all(load >= mine for load, mine in zip(cautious(booked, said), booked, strict=True))


def test_counts_come_from_reports_of_the_last_seconds() -> None:
    fresh = fakes.replica("a", waiting=1, running=2, report=Report(now_s=90.0, waiting=4, running=6))
    stale = fakes.replica("b", waiting=1, running=9, report=Report(now_s=89.0, waiting=99, running=99))
    silent = fakes.replica("c")
    assert waiting_requests([fresh, stale, silent], 100.0) == [4, 4, 3]
    assert running_requests([fresh, stale, silent], 100.0) == [6, 13, 4]


def test_memory_is_what_was_reported_or_what_is_known_to_be_there() -> None:
    reported = fakes.replica("a", limits=SMALL, report=Report(now_s=0.0, kv_free_tokens=300))
    older = fakes.replica("b", limits=SMALL, context_tokens=800, report=Report(now_s=0.0, kv_free_tokens=300))
    assert kv_memory([reported, older], 1.0) == ([700, 800], [1000, 1000])


def test_queued_prompts_count_as_usage_in_full() -> None:
    replica = fakes.replica(
        "a",
        limits=SMALL,
        queued_tokens=200,
        coming_tokens=300,
        report=Report(now_s=0.0, kv_free_tokens=300),
    )
    assert kv_usages([replica], 1.0) == [1.2]
    assert kv_usage(replica, 1.0) == 1.2


def test_unknown_usage_is_as_bad_as_the_worst_known() -> None:
    idle = fakes.replica("idle", limits=SMALL, report=Report(now_s=0.0, kv_free_tokens=900))
    full = fakes.replica("full", limits=SMALL, report=Report(now_s=0.0, kv_free_tokens=100))
    silent = fakes.replica("silent", limits=SMALL)
    queued = fakes.replica("queued", limits=SMALL, queued_tokens=50, report=Report(now_s=0.0))
    assert kv_usages([idle, full, silent, queued], 1.0) == pytest.approx([0.1, 0.9, 0.9, 0.95])


def test_usage_that_nobody_knows_is_what_the_books_say() -> None:
    replicas = [fakes.replica("a", limits=SMALL, context_tokens=100), fakes.replica("b", limits=SMALL)]
    assert kv_usages(replicas, 0.0) == [0.1, 0.0]
    assert [kv_usage(r, 0.0) for r in replicas] == [None, None]


def test_a_cache_of_unknown_size_is_as_small_as_the_smallest_known_or_usual() -> None:
    unknown = fakes.replica("a", context_tokens=100, report=Report(now_s=0.0, kv_free_tokens=5))
    known = fakes.replica("b", limits=SMALL)
    larger = fakes.replica("c", limits=Limits(kv_blocks=1000))
    assert kv_memory([unknown, larger, known], 0.0) == ([100, 0, 0], [1000, 16000, 1000])
    assert kv_memory([unknown], 0.0) == ([100], [65536])
    assert kv_usage(unknown, 0.0) is None


def test_a_report_of_the_past_is_no_report() -> None:
    replica = fakes.replica("a", limits=SMALL, report=Report(now_s=0.0, kv_free_tokens=0))
    assert kv_usage(replica, 10.0) == 1.0
    assert kv_usage(replica, 10.125) is None
