"""Pages arrive before they are used, the buffer never overflows, and a fast link needs little memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.memory_tiers import Tier
from millrace.core.paging import Page, Paging, Visit, least_local, mistakes, paged, spread

PAGES = [Page(size_bytes=10, use_s=1.0) for _ in range(8)]


def remote(bytes_per_s: float) -> Tier:
    return Tier(name="remote", capacity_bytes=1e9, bytes_per_s=bytes_per_s, source="made up")


def test_a_fast_link_streams_everything_at_no_cost() -> None:
    found = paged(PAGES, frozenset(), remote(20))
    assert found.step_s == pytest.approx(8)
    assert found.local_bytes == found.buffer_bytes == 20


def test_a_slow_link_sets_the_pace() -> None:
    assert paged(PAGES, frozenset(), remote(5)).step_s == pytest.approx(16)
    assert paged(PAGES, spread(8, 4), remote(5)).step_s == pytest.approx(8)


def test_without_streaming_nothing_is_fetched() -> None:
    found = paged(PAGES, frozenset(range(8)), remote(1))
    assert (found.step_s, found.local_bytes, found.buffer_bytes) == (8, 80, 0)
    assert all(v.fetch_s == v.arrived_s == v.began_s for v in found.visits)


def test_with_one_buffer_fetching_and_using_take_turns() -> None:
    assert paged(PAGES, frozenset(), remote(10), buffers=1).step_s == pytest.approx(16)
    assert paged(PAGES, frozenset(), remote(10), buffers=2).step_s == pytest.approx(8)


def test_writing_what_arrives_slows_only_what_is_fetched() -> None:
    pages = [Page(size_bytes=10, use_s=1.0, write_s=0.5)] * 4
    assert paged(pages, frozenset(), remote(100)).step_s == pytest.approx(6)
    assert paged(pages, spread(4, 2), remote(100)).step_s == pytest.approx(5)


def test_a_page_larger_than_others_waits_for_several_to_leave() -> None:
    pages = [Page(size_bytes=size, use_s=1.0) for size in (1, 1, 1, 3)]
    found = paged(pages, frozenset(), remote(100), buffers=1)
    assert mistakes(pages, found) == []


def test_pages_that_are_streamed_lie_at_even_distances() -> None:
    assert sorted(spread(8, 2)) == [0, 1, 2, 4, 5, 6]
    assert spread(5, 0) == frozenset(range(5))
    assert spread(5, 5) == frozenset()


def test_the_least_memory_falls_as_the_link_gets_faster() -> None:
    needs = [least_local(PAGES, remote(rate), loss=0.05).local_bytes for rate in (0.1, 2, 5, 10, 20)]
    assert needs == sorted(needs, reverse=True)
    assert (needs[0], needs[-1]) == (80, 20)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 5)), min_size=1, max_size=12),
    st.data(),
    st.floats(0.5, 500),
    st.integers(1, 3),
)
def test_no_paging_makes_a_mistake(
    sizes: list[tuple[int, float]], data: st.DataObject, rate: float, buffers: int
) -> None:
    pages = [Page(size_bytes=size, use_s=use_s) for size, use_s in sizes]
    resident = data.draw(st.frozensets(st.integers(0, len(pages) - 1)))
    found = paged(pages, resident, remote(rate), buffers=buffers)
    assert mistakes(pages, found) == []
    assert found.step_s >= sum(page.use_s for page in pages) * (1 - 1e-9)


def test_mistakes_are_found() -> None:
    wrong = Paging(
        resident=frozenset(),
        buffer_bytes=10,
        local_bytes=10,
        step_s=2,
        visits=(Visit(0, 0, 2, 1, 3), Visit(1, 2, 3, 3, 4)),
    )
    assert mistakes(PAGES[:2], wrong) == ["page 0 is used before it arrives", "the buffer is too full at 2 s"]
