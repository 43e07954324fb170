"""What the block pool promises, one promise at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.replica.blocks import BlockPool
from millrace.replica.noting import NotingPool
from millrace.replica.table import Table


def held(pool: BlockPool, hashes: list[int], blocks: int) -> Table:
    """Hold so many blocks, the first of which are known."""
    table = Table()
    assert pool.acquire(table, hashes, blocks)
    return table


def filled(pool: BlockPool, *contents: int) -> Table:
    """Hold blocks with these contents, as a sequence that has computed them does."""
    table = held(pool, [], len(contents))
    pool.publish(table, contents, 0, len(contents))
    return table


def test_a_new_pool_is_free_and_finds_nothing() -> None:
    pool = BlockPool(4)
    assert (pool.free, pool.findable, pool.matched([7])) == (4, 0, 0)


def test_acquiring_takes_all_or_nothing() -> None:
    pool = BlockPool(3)
    table, other = held(pool, [], 2), Table()
    assert not pool.acquire(other, [], 2)
    assert not other
    assert pool.free == 1
    pool.audit([table])


def test_growing_takes_all_or_nothing() -> None:
    pool = BlockPool(3)
    table = Table()
    assert pool.grow(table, 2)
    assert not pool.grow(table, 2)
    assert len(table) == 2
    pool.audit([table])


def test_only_the_leading_blocks_of_a_chain_match() -> None:
    pool = BlockPool(4)
    filled(pool, 1, 2, 3)
    assert pool.matched([1, 2, 9, 3]) == 2


def test_content_outlives_its_last_holder_and_is_shared_by_the_next_two() -> None:
    pool = BlockPool(4)
    first = filled(pool, 1, 2)
    blocks = list(first)
    pool.release(first)
    assert (pool.free, pool.findable) == (4, 2)
    second, third = held(pool, [1, 2], 3), held(pool, [1], 1)
    assert second[:2] == blocks
    assert third == blocks[:1]
    pool.audit([second, third])


def test_a_released_table_is_emptied_and_a_shared_block_stays_held() -> None:
    pool = BlockPool(2)
    first = filled(pool, 1)
    second = held(pool, [1], 1)
    pool.release(first)
    assert first == []
    assert pool.free == 1
    pool.audit([second])


def test_blank_blocks_are_used_before_content_is_forgotten() -> None:
    pool = BlockPool(3)
    pool.release(filled(pool, 1))
    held(pool, [], 2)
    assert pool.matched([1]) == 1


def test_the_content_released_longest_ago_is_forgotten_first() -> None:
    pool = BlockPool(2)
    one, two = filled(pool, 1), filled(pool, 2)
    pool.release(two)
    pool.release(one)
    held(pool, [], 1)
    assert (pool.matched([1]), pool.matched([2])) == (1, 0)


def test_the_tail_of_a_table_is_forgotten_before_its_head() -> None:
    pool = BlockPool(3)
    pool.release(filled(pool, 1, 2, 3))
    held(pool, [], 2)
    assert pool.matched([1, 2, 3]) == 1


def test_matched_blocks_that_nobody_holds_count_as_taken() -> None:
    pool = BlockPool(2)
    pool.release(filled(pool, 1))
    assert not pool.acquire(Table(), [1], 3)
    held(pool, [1], 2)
    assert pool.free == 0


def test_a_duplicate_of_known_content_stays_private() -> None:
    pool = BlockPool(2)
    first, second = filled(pool, 1), filled(pool, 1)
    pool.release(second)
    assert (pool.free, pool.findable) == (1, 1)
    pool.audit([first])


def test_without_caching_nothing_is_ever_found() -> None:
    pool = BlockPool(2, caching=False)
    pool.release(filled(pool, 1))
    assert (pool.matched([1]), pool.findable) == (0, 0)


def test_only_releases_and_new_content_ease() -> None:
    pool = BlockPool(3)
    table = filled(pool, 1)
    eased = pool.eased
    filled(pool, 1)
    pool.grow(table, 1)
    assert pool.eased == eased
    pool.publish(table, [1, 2], 1, 2)
    pool.release(table)
    assert pool.eased == eased + 2


@given(prompts=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), max_size=20))
def test_no_block_is_lost_even_if_names_are_not_chained(prompts: list[list[int]]) -> None:
    pool, tables = BlockPool(12), [Table() for _ in range(3)]
    for turn, names in enumerate(prompts):
        table, hits = tables[turn % 3], pool.matched(names)
        pool.release(table)
        if pool.acquire(table, names[:hits], len(names)):
            assert len(table) == len(names)
            if hits < len(names):
                pool.publish(table, names, hits, len(names))
    for table in tables:
        pool.release(table)
    assert pool.free == 12
    assert pool.acquire(tables[0], [], 12)
    assert sorted(tables[0]) == list(range(12))


def test_the_audit_notices_a_lost_table() -> None:
    pool = BlockPool(2)
    held(pool, [], 1)
    with pytest.raises(AssertionError):
        pool.audit([])


def test_a_pool_that_caches_nothing_notes_nothing() -> None:
    pool = NotingPool(2, caching=False)
    pool.publish(held(pool, [], 2), [7, 8], 0, 2)
    assert (pool.came, pool.left) == ({}, set())


def test_what_came_and_left_again_is_not_noted() -> None:
    pool = NotingPool(2)
    pool.release(filled(pool, 7, 8))
    held(pool, [], 2)
    assert (pool.came, pool.left) == ({}, set())


def test_what_left_and_came_back_is_not_noted() -> None:
    pool = NotingPool(2)
    pool.release(filled(pool, 7, 8))
    pool.came.clear()
    other = held(pool, [7], 2)
    assert (pool.came, pool.left) == ({}, {8})
    pool.publish(other, [7, 8], 1, 2)
    assert (pool.came, pool.left) == ({}, set())


def test_a_content_that_another_block_has_is_noted_once() -> None:
    pool = NotingPool(4)
    filled(pool, 7)
    pool.publish(held(pool, [], 2), [7, 8], 0, 2)
    assert pool.came == {7: None, 8: 7}
