"""Whatever gets lost between an engine and the gateway, the gateway believes in nothing that is not there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from millrace.control.cached import CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents, contents_of
from millrace.gateway.kv_events.decoding import Decoder
from millrace.gateway.kv_events.story import END, Story
from millrace.testing import fakes


class Deed(Struct, frozen=True):
    """A block is stored or removed, or the engine restarts; what is said of it may be lost or garbled."""

    kind: str
    block: int
    fate: str


deeds = st.builds(
    Deed,
    st.sampled_from(["store", "store", "store", "remove", "remove", "remove", "clear", "restart"]),
    st.integers(0, 1),
    st.sampled_from(["heard", "heard", "lost", "lost", "twice", "garbled"]),
)


class World:
    """An engine with a cache of one-token prompts, its publisher, and who listens."""

    def __init__(self, repeats: int) -> None:
        self.cache: set[int] = set()
        self.index = CachedPrefixes(1 << 20, clock=Clock())
        self.story = Story(Decoder(1), self.index.note)
        self._repeats, self._said = repeats, list[list[bytes]]()
        self._number = 0

    def do(self, deed: Deed) -> bool:
        """Let it happen; return whether the listener heard of it."""
        if deed.kind == "restart":
            self.cache.clear()
            self._said.clear()
            self._number = 0
            self.story.begin()
            return False
        return self._say(self._event(deed), deed.fate)

    def believed(self) -> set[int]:
        """The blocks that the listener believes to be there."""
        prompts = {
            n: fakes.request(blocks=chain_contents(contents_of([n], 1)), block_tokens=1) for n in range(2)
        }
        return {n for n, prompt in prompts.items() if self.index.matched_tokens(prompt)}

    def _event(self, deed: Deed) -> Sequence[object] | None:
        there = deed.block in self.cache
        if deed.kind == "store" and not there:
            self.cache.add(deed.block)
            return ["BlockStored", [deed.block], None, [deed.block], 1, None]
        if deed.kind == "remove" and there:
            self.cache.remove(deed.block)
            return ["BlockRemoved", [deed.block]]
        if deed.kind == "clear":
            self.cache.clear()
            return ["AllBlocksCleared"]
        return None

    def _say(self, event: Sequence[object] | None, fate: str) -> bool:
        payload = msgspec.msgpack.encode([1.5, [event] if event else []])
        frames = [b"", self._number.to_bytes(8, "big"), payload]
        self._number += 1
        self._said.append(frames)
        sent = [*frames[:2], b"\xc1"] if fate == "garbled" else frames
        for _ in range({"lost": 0, "twice": 2}.get(fate, 1)):
            if self.story.lacks(sent):
                self._repeat()
            self.story.hear(sent)
        return fate == "heard"

    def _repeat(self) -> None:
        kept = self._said[-self._repeats :] if self._repeats else []
        due = self.story.due.to_bytes(8, "big")
        for frames in (*(one for one in kept if one[1] >= due), [b"", END, b""]):
            self.story.hear_again(frames)


@settings(max_examples=200)
@given(st.lists(deeds, min_size=20, max_size=40), st.sampled_from([0, 0, 1, 3]))
def test_nothing_is_believed_that_is_not_there(history: list[Deed], repeats: int) -> None:
    world = World(repeats)
    for deed in history:
        if world.do(deed):
            assert world.believed() <= world.cache


@given(st.lists(deeds.filter(lambda deed: deed.fate in ("heard", "lost")), max_size=40))
def test_what_is_told_again_is_all_that_is_there(history: list[Deed]) -> None:
    world = World(repeats=100)
    for deed in history:
        if world.do(deed):
            assert world.believed() == world.cache
    assert world.story.counts["dropped"] == 0
