"""The exact prefix index follows an engine's words, believes in what was sent; it keeps its budget."""

from __future__ import annotations

import gc
import tracemalloc

from millrace.control.cached import ENTRY_BYTES, SENT_TTL_S, CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents, root_of
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, CacheCleared
from millrace.core.request import Request
from millrace.testing import fakes


def _prompt(*contents: int, root: int = 0, prompt_tokens: int = 1000) -> Request:
    return fakes.request(blocks=chain_contents(contents, root), prompt_tokens=prompt_tokens)


def _index(*changes: CacheChange, entries: int = 100, clock: Clock | None = None) -> CachedPrefixes:
    made = CachedPrefixes(entries * ENTRY_BYTES, clock=clock or Clock())
    made.note(changes)
    return made


def _stored(keys: str, contents: tuple[int, ...], parent: str = "") -> BlocksStored:
    """Blocks whose names are letters."""
    return BlocksStored(tuple(map(ord, keys)), contents, ord(parent) if parent else None)


def _removed(keys: str) -> BlocksRemoved:
    return BlocksRemoved(tuple(map(ord, keys)))


def test_a_prompt_matches_as_far_as_its_blocks_are_stored() -> None:
    index = _index(_stored("abc", (1, 2, 3)), _stored("d", (4,), parent="b"))
    assert index.matched_tokens(_prompt(1, 2, 3, 9)) == 48
    assert index.matched_tokens(_prompt(1, 2, 4)) == 48
    assert index.matched_tokens(_prompt(2, 3)) == 0
    assert index.matched_tokens(_prompt()) == 0
    assert index.matched_tokens(_prompt(1, 2, 3, prompt_tokens=20)) == 20


def test_what_is_behind_a_removed_block_counts_again_when_that_block_is_back() -> None:
    index = _index(_stored("abc", (1, 2, 3)), _removed("b"))
    assert index.matched_tokens(_prompt(1, 2, 3)) == 16
    index.note([_stored("b", (2,), parent="a")])
    assert index.matched_tokens(_prompt(1, 2, 3)) == 48


def test_a_block_whose_parent_was_never_heard_of_waits_for_it() -> None:
    index = _index(_stored("cd", (3, 4), parent="b"), _stored("x", (7,), parent="b"))
    assert index.matched_tokens(_prompt(1, 2, 3, 4)) == 0
    index.note([_stored("ab", (1, 2))])
    assert index.matched_tokens(_prompt(1, 2, 3, 4)) == 64
    assert index.matched_tokens(_prompt(1, 2, 7)) == 48


def test_an_orphan_that_is_removed_waits_no_longer() -> None:
    index = _index(_stored("c", (3,), parent="b"), _stored("x", (7,), parent="b"), _removed("c"))
    assert index.held_bytes == ENTRY_BYTES
    index.note([_removed("x"), _stored("ab", (1, 2))])
    assert index.matched_tokens(_prompt(1, 2, 3)) == index.matched_tokens(_prompt(1, 2, 7)) == 32


def test_a_block_that_is_held_thrice_leaves_thrice() -> None:
    index = _index(_stored("a", (1,)), _stored("ab", (1, 2)), _stored("ac", (1, 3)))
    for left in (16, 16, 0):
        index.note([_removed("a")])
        assert index.matched_tokens(_prompt(1)) == left


def test_a_block_that_is_computed_again_behind_others_is_held_twice() -> None:
    index = _index(_stored("ab", (1, 2)), _stored("b", (2,), parent="a"), _removed("b"))
    assert index.matched_tokens(_prompt(1, 2)) == 32


def test_known_blocks_told_again_from_the_first_on_were_only_found() -> None:
    index = _index(_stored("abc", (1, 2, 3)), _stored("ab", (1, 2)), _removed("b"))
    assert index.matched_tokens(_prompt(1, 2, 3)) == 16


def test_what_is_removed_without_having_come_is_no_harm() -> None:
    assert _index(_removed("a"), _stored("a", (1,))).matched_tokens(_prompt(1)) == 16


def test_a_cleared_cache_holds_nothing() -> None:
    index = _index(_stored("ab", (1, 2)), _stored("d", (4,), parent="c"), CacheCleared())
    assert index.matched_tokens(_prompt(1, 2)) == index.held_bytes == 0


def test_the_prompts_of_adapters_share_nothing() -> None:
    stored = BlocksStored((1,), (1,), root=root_of("poet"))
    index = _index(stored)
    assert index.matched_tokens(_prompt(1, root=root_of("poet"))) == 16
    assert index.matched_tokens(_prompt(1)) == 0


def test_what_was_sent_counts_until_it_is_too_long_ago() -> None:
    clock = Clock()
    index = _index(_stored("a", (1,)), clock=clock)
    assert index.remember(_prompt(1, 2, 3)) == 16
    clock.now_s = SENT_TTL_S - 0.5
    assert index.remember(_prompt(1, 2)) == 32
    clock.now_s = SENT_TTL_S
    assert index.matched_tokens(_prompt(1, 2, 3)) == 32
    clock.now_s = 2 * SENT_TTL_S
    assert index.matched_tokens(_prompt(1, 2, 3)) == 16
    assert index.held_bytes == ENTRY_BYTES


def test_what_was_sent_is_known_for_longer_once_its_event_came() -> None:
    clock = Clock()
    index = _index(clock=clock)
    index.remember(_prompt(1, 2))
    index.note([_stored("a", (1,))])
    clock.now_s = 100.0
    assert index.matched_tokens(_prompt(1, 2)) == 16


def test_what_was_sent_counts_no_longer_once_it_was_removed() -> None:
    index = _index(_stored("a", (1,)))
    index.note([_removed("a")])
    index.remember(_prompt(1))
    index.note([_stored("a", (1,)), _removed("a")])
    assert index.matched_tokens(_prompt(1)) == 0


def test_a_full_index_takes_in_no_more_until_something_leaves() -> None:
    index = _index(_stored("abcd", (1, 2, 3, 4)), entries=2)
    index.remember(_prompt(8, 9))
    assert index.held_bytes == 2 * ENTRY_BYTES
    assert index.matched_tokens(_prompt(1, 2, 3, 4)) == 32
    index.note([_removed("b"), _stored("x", (7,), parent="a")])
    assert index.matched_tokens(_prompt(1, 7)) == 32


def test_the_index_takes_no_more_memory_than_it_says() -> None:
    index = CachedPrefixes(1 << 30, clock=Clock())
    gc.collect()
    tracemalloc.start()
    for prompt in range(200):
        first = 2**62 + 100 * prompt
        index.note([BlocksStored(tuple(range(first, first + 100)), tuple(range(first, first + 100)))])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.5 * index.held_bytes < taken < index.held_bytes
