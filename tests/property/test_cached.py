"""Whatever an engine says of its cache, in whatever order, the index knows what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from millrace.control.cached import ENTRY_BYTES, CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, CacheCleared
from millrace.core.request import Request
from millrace.testing import fakes

Path = tuple[int, ...]
"""A block by what is in it and in all blocks in front of it."""

paths = st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple)


def _key(path: Path) -> int:
    """Engines name blocks so: by what is in them and in front of them."""
    return int("".join(map(str, (1, *path))))


@st.composite
def _stored(draw: st.DrawFn) -> BlocksStored:
    path = draw(paths)
    first = draw(st.integers(0, len(path) - 1))
    keys = tuple(_key(path[: end + 1]) for end in range(first, len(path)))
    return BlocksStored(keys, path[first:], _key(path[:first]) if first else None)


removed = st.lists(paths, max_size=4).map(lambda some: BlocksRemoved(tuple(map(_key, some))))
changes: st.SearchStrategy[CacheChange] = st.one_of(_stored(), _stored(), removed)
histories = st.lists(st.one_of(changes, changes, changes, st.just(CacheCleared())), max_size=30)


def _copies(history: Sequence[CacheChange]) -> Counter[int]:
    """By brute force: how often the cache holds each block, by name."""
    held: Counter[int] = Counter()
    for change in history:
        if isinstance(change, BlocksStored):
            found = change.parent is None and all(held[key] for key in change.keys)
            held.update(() if found else change.keys)
        elif isinstance(change, BlocksRemoved):
            for key in change.keys:
                held[key] = max(0, held[key] - 1)
        else:
            held.clear()
    return held


def _matched(held: Counter[int], path: Path) -> int:
    ends = range(1, len(path) + 1)
    return next((end - 1 for end in ends if not held[_key(path[:end])]), len(path))


def _prompt(path: Path) -> Request:
    return fakes.request(blocks=chain_contents(path), block_tokens=1, prompt_tokens=100)


@given(histories, st.lists(paths, min_size=1, max_size=8))
def test_the_index_holds_what_the_cache_holds(history: list[CacheChange], asked: list[Path]) -> None:
    index = CachedPrefixes(1 << 20, clock=Clock())
    for number, change in enumerate(history, 1):
        index.note([change])
        held = _copies(history[:number])
        assert [index.matched_tokens(_prompt(path)) for path in asked] == [_matched(held, p) for p in asked]
    assert index.held_bytes == ENTRY_BYTES * sum(map(bool, _copies(history).values()))


@given(histories, st.integers(0, 6), paths)
def test_a_small_index_stays_small_and_knows_nothing_wrong(
    history: list[CacheChange], entries: int, asked: Path
) -> None:
    index = CachedPrefixes(entries * ENTRY_BYTES, clock=Clock())
    for number, change in enumerate(history, 1):
        index.note([change])
        assert index.held_bytes <= entries * ENTRY_BYTES
        assert index.matched_tokens(_prompt(asked)) <= _matched(_copies(history[:number]), asked)


words = st.integers(0, 6)
garbage = st.one_of(
    st.builds(lambda key, parent: BlocksStored((key, key + 1), (key, parent), parent), words, words),
    st.lists(words, max_size=3).map(lambda keys: BlocksRemoved(tuple(keys))),
)


@given(st.lists(garbage, max_size=40))
def test_blocks_that_are_their_own_parents_are_no_harm(history: list[CacheChange]) -> None:
    index = CachedPrefixes(1 << 20, clock=Clock())
    index.note(history)
    index.note([BlocksRemoved(tuple(range(8)))] * len(history))
    assert index.held_bytes == 0


@given(paths, st.lists(changes, max_size=10), st.floats(0.0, 5.0))
def test_what_was_sent_adds_to_what_is_known_for_two_seconds(
    sent: Path, history: list[CacheChange], later_s: float
) -> None:
    clock = Clock()
    index, plain = CachedPrefixes(1 << 20, clock=clock), CachedPrefixes(1 << 20, clock=clock)
    for one in (index, plain):
        one.note(history)
    assert index.remember(_prompt(sent)) == plain.matched_tokens(_prompt(sent))
    clock.now_s = later_s
    known = len(sent) if later_s < 2.0 else plain.matched_tokens(_prompt(sent))
    assert index.matched_tokens(_prompt(sent)) == known
