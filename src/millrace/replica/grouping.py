"""KV blocks in groups: a sequence gets blocks in a row, and decodes get the block behind their last one."""

from __future__ import annotations

from millrace.replica.blocks import BlockPool
from millrace.replica.decodes import Decodes
from millrace.replica.executor import Chunk
from millrace.replica.runs import FreeRuns
from millrace.replica.sequence import Sequence


class GroupedPool(BlockPool):
    """A pool whose blank blocks are runs; those let go of since the last allocation join them later."""

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        super().__init__(blocks, caching=caching)
        self._blank = []
        self._runs = FreeRuns(blocks)

    @property
    def free(self) -> int:
        """Blocks that nobody holds, with or without content."""
        return len(self._blank) + self._runs.count + self._idle_blocks

    @property
    def blank(self) -> int:
        """Blocks that nobody holds and that have no content to forget."""
        return len(self._blank) + self._runs.count

    def grow(self, table: list[int], blocks: int) -> bool:
        """Append that many blocks to the table, in few runs, or none and return False if fewer are free."""
        if blocks > self.free:
            return False
        self._extend(table, blocks)
        return True

    def grow_after(self, table: list[int], block: int) -> None:
        """Append a free block, if it can be the one behind this one; there must be one."""
        self._collect(1)
        table.append(self._runs.take_after(block))

    def _extend(self, table: list[int], blocks: int) -> None:
        self._collect(blocks)
        table += self._runs.take(blocks)

    def _collect(self, blocks: int) -> None:
        """Have at least so many blocks in runs, forgetting content if need be."""
        lacking = blocks - self.blank
        if lacking > 0:
            forgotten: list[int] = []
            super()._extend(forgotten, len(self._blank) + lacking)
            self._blank += forgotten
        self._runs.give(self._blank)
        self._blank.clear()

    def _unheld(self) -> list[int]:
        return [*self._blank, *self._runs]


class GroupedDecodes(Decodes):
    """Decodes that take the block behind their last one where it is free. They cannot be leapt."""

    __slots__ = ("_meant",)

    def __init__(self, block_tokens: int) -> None:
        super().__init__(block_tokens)
        self._meant: dict[Sequence, int] = {}

    def take(self, pool: BlockPool, blocks: int) -> bool:
        """Take blocks for the iteration to come, or none and return False if fewer are free."""
        if blocks > pool.free:
            return False
        assert isinstance(pool, GroupedPool)
        for sequence in self.members if blocks else ():
            full = sequence.computed >= len(sequence.table) * self.block_tokens
            if full and blocks and self._meant.get(sequence) not in self.stock:
                pool.grow_after(self.stock, sequence.table[-1])
                self._meant[sequence] = self.stock[-1]
                blocks, self.spare = blocks - 1, self.spare + 1
        return super().take(pool, blocks)

    def leave(self, sequence: Sequence) -> None:
        """Let a sequence go, with all its blocks in its table."""
        super().leave(sequence)
        self._meant.pop(sequence, None)

    def next_chunk(self, sequence: Sequence) -> Chunk:
        """Tell what a sequence does in the coming iteration, in a table that has the block for it."""
        meant = self._meant.pop(sequence, None)
        if meant is not None and meant in self.stock:
            self.stock.remove(meant)
            self.stock.append(meant)  # the last one is taken
        return super().next_chunk(sequence)
