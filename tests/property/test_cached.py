"""Whatever an engine says of its cache, in whatever order, the index knows what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from millrace.control.cached import ENTRY_BYTES, CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, CacheCleared, Medium
from millrace.core.request import Request
from millrace.testing import fakes

Path = tuple[int, ...]
"""A block by what is in it and in all blocks in front of it."""

paths = st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple)


def _key(path: Path) -> int:
    """Engines name blocks so: by what is in them and in front of them."""
    return int("".join(map(str, (1, *path))))


def _path(key: int) -> Path:
    return tuple(map(int, str(key)[1:]))


@st.composite
def _stored(draw: st.DrawFn, medium: Medium = "device") -> BlocksStored:
    path = draw(paths)
    first = draw(st.integers(0, len(path) - 1))
    keys = tuple(_key(path[: end + 1]) for end in range(first, len(path)))
    if medium != "device" and draw(st.booleans()):
        return BlocksStored(keys, (), medium=medium)  # named only, as vLLM does it
    return BlocksStored(keys, path[first:], _key(path[:first]) if first else None, medium=medium)


def _removed(medium: Medium) -> st.SearchStrategy[BlocksRemoved]:
    return st.lists(paths, max_size=4).map(lambda some: BlocksRemoved(tuple(map(_key, some)), medium))


changes: st.SearchStrategy[CacheChange] = st.one_of(_stored(), _stored(), _removed("device"))
anywhere: st.SearchStrategy[CacheChange] = st.one_of(
    changes, _stored("host"), _stored("disk"), _removed("host"), _removed("disk")
)
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


class Places:
    """By brute force: what is where, and which blocks are known by what is in front of them."""

    def __init__(self) -> None:
        self.held: dict[Medium, Counter[int]] = {m: Counter() for m in ("device", "host", "disk")}
        self.named: set[int] = set()

    def note(self, change: CacheChange) -> None:
        if isinstance(change, CacheCleared):
            self.__init__()  # type: ignore[misc]
        elif isinstance(change, BlocksRemoved):
            here = self.held[change.medium]
            for key in change.keys:
                here[key] = max(0, here[key] - 1)
        elif change.medium == "device":
            here = self.held["device"]
            found = change.parent is None and all(here[key] and key in self.named for key in change.keys)
            here.update(() if found else change.keys)
        else:
            front = change.parent
            for key in change.keys:
                follows = bool(change.contents) and (front is None or front in self.named)
                if key in self.named or (follows and not self.held["device"][key]):
                    self.named.add(key)
                    self.held[change.medium][key] = 1
                    self._name()  # what waited on the device for this one may come next in the list
                front = key
        self._name()

    def _name(self) -> None:
        """Forget the names of what is nowhere, then name what lies behind a name, until nothing changes."""
        self.named = {key for key in self.named if any(held[key] for held in self.held.values())}
        for _ in range(5):
            for key, copies in self.held["device"].items():
                front = _path(key)[:-1]
                if copies and (not front or _key(front) in self.named):
                    self.named.add(key)

    def matched(self, path: Path) -> tuple[int, ...]:
        found, start = [], 0
        for held in self.held.values():
            end = start
            while end < len(path) and held[_key(path[: end + 1])] and _key(path[: end + 1]) in self.named:
                end += 1
            found.append(end - start)
            start = end
        return tuple(found)


@given(st.lists(st.one_of(anywhere, anywhere, anywhere, st.just(CacheCleared())), max_size=40), st.data())
def test_the_index_knows_on_which_medium_blocks_are(history: list[CacheChange], data: st.DataObject) -> None:
    index, places = CachedPrefixes(1 << 20, clock=Clock()), Places()
    asked = data.draw(st.lists(paths, min_size=1, max_size=6))
    for change in history:
        index.note([change])
        places.note(change)
        for path in asked:
            assert index.matched_by_medium(_prompt(path)) == places.matched(path)
            assert index.matched_tokens(_prompt(path)) == places.matched(path)[0]
    index.note([BlocksRemoved(tuple(places.held["device"]), "device")] * len(history))
    index.note([BlocksRemoved(tuple(places.held[medium]), medium) for medium in ("host", "disk")])
    assert index.held_bytes == 0


@given(st.lists(anywhere, max_size=30), st.integers(0, 6))
def test_a_small_index_of_all_media_stays_small(history: list[CacheChange], entries: int) -> None:
    index = CachedPrefixes(entries * ENTRY_BYTES, clock=Clock())
    for change in history:
        index.note([change])
        assert index.held_bytes <= entries * ENTRY_BYTES


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
