"""A pool of KV cache blocks that notes what enters and leaves its prefix cache: whoever publishes it asks."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.replica.blocks import BlockPool
from millrace.replica.table import Table


class NotingPool(BlockPool):
    """Notes contents that can be found since the notes were last emptied, and those that no longer can.

    `came` says which content is in front of each, None at the beginning of a prompt. What came and left again
    is in neither.
    """

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        super().__init__(blocks, caching=caching)
        self.came: dict[int, int | None] = {}
        self.left: set[int] = set()

    def publish(self, table: Table, contents: Sequence[int], done: int, full: int) -> None:
        """Make the table's blocks done … full - 1 findable, and note those that others are not already."""
        before = len(table.segments)
        super().publish(table, contents, done, full)
        if not self.caching:
            return
        added = table.segments[before:]
        named = {content for segment, _ in added for content in segment.contents}
        for at in range(done, full):
            if not added or contents[at] in named:  # else somebody else's block is found by it
                self._gain(contents[at], contents[at - 1] if at else None)

    def _extend(self, table: list[int], blocks: int) -> None:
        left = blocks - len(self._blank)
        for segment in self._idle:
            if left <= 0:
                break
            for content in segment.contents[-left:]:
                self._lose(content)
            left -= len(segment.blocks)
        super()._extend(table, blocks)

    def _gain(self, content: int, front: int | None) -> None:
        if content in self.left:
            self.left.remove(content)
        else:
            self.came[content] = front

    def _lose(self, content: int) -> None:
        if content in self.came:
            del self.came[content]
        else:
            self.left.add(content)
