"""A pool of KV cache blocks with a prefix cache: shared by content, forgotten least recently used first.

Source: PagedAttention (Kwon et al., SOSP 2023) and the automatic prefix caching of vLLM.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """Block ids 0 … blocks - 1, each free or held by one or more tables.

    A published block can be found by the hash of its content. It stays findable after its last release,
    until its space is needed: blank blocks go first, then the one released longest ago.
    `eased` counts what may let an allocation succeed that failed before: releases and new content.
    """

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        self.blocks = blocks
        self.caching = caching
        self.eased = 0
        self._blank = list(range(blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        # Only blocks with content can be held more than once; few are, so only those are counted.
        self._shared: dict[int, int] = {}
        self._content: dict[int, int] = {}
        self._holder: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody holds, with or without content."""
        return len(self._blank) + len(self._idle)

    @property
    def blank(self) -> int:
        """Blocks that nobody holds and that have no content to forget."""
        return len(self._blank)

    @property
    def findable(self) -> int:
        """Blocks that can be found by their content, held or not."""
        return len(self._holder)

    def matched(self, hashes: Iterable[int]) -> int:
        """Return how many of the leading hashes are here."""
        holder, count = self._holder, 0
        for name in hashes:
            if name not in holder:
                break
            count += 1
        return count

    def acquire(self, hashes: Sequence[int], blocks: int) -> list[int] | None:
        """Return a table of `blocks` blocks, or None if too few are free.

        Its first blocks are those that hold `hashes`, all of which must be here.
        """
        if not hashes:
            table: list[int] = []
            return table if self.grow(table, blocks) else None
        table = [self._holder[name] for name in hashes]
        woken = sum(block in self._idle for block in table)
        if blocks - len(table) + woken > self.free:
            return None
        idle, shared = self._idle, self._shared
        for block in table:
            if block in idle:
                del idle[block]
            else:
                shared[block] = shared.get(block, 1) + 1
        self._extend(table, blocks - len(table))
        return table

    def grow(self, table: list[int], blocks: int) -> bool:
        """Append that many blocks to the table, or none and return False if fewer are free."""
        blank = self._blank
        if blocks > len(blank):
            if blocks > len(blank) + len(self._idle):
                return False
            self._extend(table, blocks)
        elif blocks:
            table += blank[-blocks:]
            del blank[-blocks:]
        return True

    def publish(self, block: int, content: int) -> None:
        """Make a computed block findable by the hash of its content, unless another one already is."""
        self.publish_all((block,), (content,))

    def publish_all(self, blocks: Iterable[int], contents: Iterable[int]) -> None:
        """Publish each block with its content."""
        if not self.caching:
            return
        holder, content_of = self._holder, self._content
        known = len(holder)
        for block, content in zip(blocks, contents, strict=True):
            if content not in holder:
                assert block not in content_of, "a block has one content"
                holder[content] = block
                content_of[block] = content
        self.eased += len(holder) - known

    def release(self, table: list[int], *, named: int | None = None) -> None:
        """Let go of every block of the table and empty it; its tail will be forgotten before its head.

        Only the first `named` blocks, or any if it is not said, may have content.
        """
        tail = len(table) if named is None else named
        self._blank += table[: tail - 1 if tail else None : -1]
        named_blocks, shared, idle = self._content, self._shared, self._idle
        for block in reversed(table[:tail]) if tail else ():
            if block not in named_blocks:
                self._blank.append(block)
            elif block not in shared:
                idle[block] = None
            elif shared[block] > 2:
                shared[block] -= 1
            else:
                del shared[block]
        table.clear()
        self.eased += 1

    def audit(self, tables: Iterable[Sequence[int]]) -> None:
        """Assert that exactly these tables are held, and that no block is lost, free twice or misnamed."""
        held = Counter(block for table in tables for block in table)
        assert {block: count for block, count in held.items() if count > 1} == self._shared
        assert self._shared.keys() <= self._content.keys()
        free = [*self._blank, *self._idle]
        assert sorted([*free, *held]) == list(range(self.blocks)), "every block is either free or held"
        assert self._holder == {content: block for block, content in self._content.items()}
        assert self._content.keys().isdisjoint(self._blank)
        assert self._content.keys() >= self._idle.keys()

    def _extend(self, table: list[int], blocks: int) -> None:
        blank = self._blank
        taken = min(blocks, len(blank))
        if taken:
            table += blank[: -taken - 1 : -1]
            del blank[-taken:]
        idle, holder, content_of = self._idle, self._holder, self._content
        for _ in range(blocks - taken):
            block, _ = idle.popitem(last=False)
            del holder[content_of.pop(block)]
            table.append(block)
