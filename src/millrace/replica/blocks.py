"""A pool of KV cache blocks with a prefix cache: shared by content, forgotten least recently used first.

Sources: PagedAttention (Kwon et al., SOSP 2023) and the automatic prefix caching of vLLM; content is kept by
segments of prompts, as in the radix tree of SGLang (Zheng et al., NeurIPS 2024).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from millrace.core.blocks import in_common
from millrace.replica.table import Segment, Table


class BlockPool:
    """Block ids 0 … blocks - 1, each free or held by one or more tables.

    A published block can be found by the chained hash of its content. It stays findable after its last
    release, until its space is needed: blank blocks go first, then the one released longest ago.
    `eased` counts what may let an allocation succeed that failed before: releases and new content.

    A prompt comes and goes in one piece or few, so nothing here is done to its blocks one by one. A segment
    is found by its first block only: as hashes are chained, whoever has a block inside came in at the front.
    If they are not, content may be missed, but no block is lost.
    """

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        self.blocks = blocks
        self.caching = caching
        self.eased = 0
        self._blank = list(range(blocks))
        self._starts: dict[int, Segment] = {}
        self._idle: OrderedDict[Segment, None] = OrderedDict()  # the one released longest ago first
        self._idle_blocks = 0

    @property
    def free(self) -> int:
        """Blocks that nobody holds, with or without content."""
        return len(self._blank) + self._idle_blocks

    @property
    def blank(self) -> int:
        """Blocks that nobody holds and that have no content to forget."""
        return len(self._blank)

    @property
    def findable(self) -> int:
        """Blocks that can be found by their content, held or not."""
        return sum(len(segment.blocks) for segment in self._starts.values())

    def contents(self) -> Iterator[int]:
        """Return the hashes by which blocks can be found, in no order."""
        return chain.from_iterable(segment.contents for segment in self._starts.values())

    def matched(self, hashes: Sequence[int]) -> int:
        """Return how many of the leading hashes are here."""
        at, starts = 0, self._starts
        while at < len(hashes) and (segment := starts.get(hashes[at])):
            at += in_common(segment.contents, hashes, at)
        return at

    def acquire(self, table: Table, hashes: Sequence[int], blocks: int) -> bool:
        """Fill an empty table with `blocks` blocks, or with none and return False if too few are free.

        Its first blocks are those that hold `hashes`, all of which must be here.
        """
        if not hashes:
            return self.grow(table, blocks)
        at = woken = 0
        while at < len(hashes):
            segment = self._starts[hashes[at]]
            count = in_common(segment.contents, hashes, at)
            at += count
            if not segment.holders:
                woken += count
        if blocks - at + woken > self.free:
            return False
        while len(table) < at:
            self._hold(table, hashes)
        self._extend(table, blocks - at)
        return True

    def grow(self, table: list[int], blocks: int) -> bool:
        """Append that many blocks to the table, or none and return False if fewer are free."""
        blank = self._blank
        if blocks > len(blank):
            if blocks > len(blank) + self._idle_blocks:
                return False
            self._extend(table, blocks)
        elif blocks:
            table += blank[-blocks:]
            del blank[-blocks:]
        return True

    def publish(self, table: Table, contents: Sequence[int], done: int, full: int) -> None:
        """Make the table's blocks done … full - 1 findable by their contents, unless others already are.

        Those in front of them were published before, with the contents in front.
        """
        if not self.caching:
            return
        new, segments = contents[done:full], table.segments
        last, count = segments[-1] if segments else (None, 0)
        if not self._starts.keys().isdisjoint(new) or (last and not last.contents):
            self._publish_unknown(table, contents[:full], done)
            return
        self.eased += full - done
        if last and last.holders == 1 and count == len(last.blocks):
            last.blocks += table[done:full]
            last.contents += new
            table.segments = (*segments[:-1], (last, count + full - done))
        else:
            self._starts[new[0]] = segment = Segment(table[done:full], list(new))
            table.segments = (*segments, (segment, full - done))

    def release(self, table: Table) -> None:
        """Let go of every block of the table and empty it; its tail will be forgotten before its head."""
        named = 0
        for segment, count in reversed(table.segments):
            named += count
            while count > 0:
                count -= len(segment.blocks)
                front, segment.holders = segment.front, segment.holders - 1
                if not segment.holders:
                    self._rest(segment)
                segment = front or segment
        self._blank += table[named:]
        if named:
            table.segments = ()
        table.clear()
        self.eased += 1

    def audit(self, tables: Iterable[Table], stock: Iterable[int] = ()) -> None:
        """Assert that exactly these tables and this stock are held, and no block is lost, or there twice."""
        holders: Counter[Segment] = Counter()
        private = [*stock]
        for table in tables:
            parts = list(_parts(table))
            named = [block for part in reversed(parts) for block in part.blocks]
            assert table[: len(named)] == named
            private += table[len(named) :]
            holders.update(parts)
        assert all(part.holders == count for part, count in holders.items())
        assert all(part.contents and not part.holders for part in self._idle)
        assert self._idle_blocks == sum(len(part.blocks) for part in self._idle)
        every = [*holders, *self._idle]
        blocks = [block for part in every for block in part.blocks]
        assert sorted([*self._unheld(), *private, *blocks]) == list(range(self.blocks)), (
            "each is somewhere, once"
        )
        found = [part for part in every if part.contents]
        assert self._starts == {part.contents[0]: part for part in found}
        assert all(len(part.contents) == len(part.blocks) for part in found)
        contents = [content for part in found for content in part.contents]
        assert len(contents) == len({*contents}), "a content has one block"

    def _unheld(self) -> list[int]:
        return self._blank

    def _extend(self, table: list[int], blocks: int) -> None:
        """Append blocks, of which enough are free, forgetting content if need be."""
        blank, idle = self._blank, self._idle
        taken = min(blocks, len(blank))
        if taken:
            table += blank[-taken:]
            del blank[-taken:]
        left = blocks - taken
        self._idle_blocks -= left
        while left:
            segment = next(iter(idle))
            gone = segment.blocks[-left:]
            if len(gone) == len(segment.blocks):
                del idle[segment]
                if self._starts.get(segment.contents[0]) is segment:
                    del self._starts[segment.contents[0]]
            else:
                del segment.blocks[-left:], segment.contents[-left:]
            table += gone
            left -= len(gone)

    def _hold(self, table: Table, hashes: Sequence[int]) -> None:
        """Append the next blocks that hold these hashes to a table that holds them from now."""
        at = len(table)
        segment = self._starts[hashes[at]]
        count = in_common(segment.contents, hashes, at)
        if not segment.holders:
            self._idle_blocks -= count
            if count == len(segment.blocks):
                del self._idle[segment]
        if count < len(segment.blocks):
            segment = self._cut(segment, count)
        segment.holders += 1
        table += segment.blocks
        table.segments = (*table.segments, (segment, count))

    def _cut(self, segment: Segment, count: int) -> Segment:
        """Make the first so many blocks of a segment one of their own, and return that."""
        blocks, contents = segment.blocks, segment.contents
        front = Segment(blocks[:count], contents[:count], segment.holders, segment.front)
        del blocks[:count], contents[:count]
        segment.front = front
        self._starts[front.contents[0]] = front
        self._starts[contents[0]] = segment
        return front

    def _rest(self, segment: Segment) -> None:
        """Note that nobody holds a segment any more: it can be found until its space is needed, or never."""
        segment.front = None
        if segment.contents:
            self._idle[segment] = None
            self._idle_blocks += len(segment.blocks)
        else:
            self._blank += segment.blocks

    def _publish_unknown(self, table: Table, contents: Sequence[int], done: int) -> None:
        """Publish one block after the other, from the one numbered `done`, as others may be known."""
        known: set[int] = set()
        at = 0
        while at < len(contents):
            found = self._starts.get(contents[at])
            count = in_common(found.contents, contents, at) if found else 1
            known.update(range(at, at + count) if found else ())
            at += count
        new = [
            Segment([table[at]], [] if at in known else [contents[at]]) for at in range(done, len(contents))
        ]
        table.segments = (*table.segments, *((segment, 1) for segment in new))
        for segment in new:
            if segment.contents:
                self._starts[segment.contents[0]] = segment
                self.eased += 1


def _parts(table: Table) -> Iterator[Segment]:
    """Yield the segments that a table holds, its tail first."""
    for segment, count in reversed(table.segments):
        part: Segment | None = segment
        while count:
            assert part is not None, "what was cut is told by its end"
            yield part
            count -= len(part.blocks)
            part = part.front
