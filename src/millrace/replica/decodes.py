"""All sequences of a replica that decode: they go in lockstep, so what they do is counted, not done to each.

Every iteration gives each of them one token. So a sequence's state is what it was when it joined, and the
iterations since; who ends next is the top of a heap whose keys never change; and how many need another KV
block is told by a ring of counts, one for each iteration of a block's worth. Nothing here takes longer for
more sequences, or for more iterations.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from millrace.core.cost import ENDLESS
from millrace.replica.blocks import BlockPool
from millrace.replica.executor import Chunk
from millrace.replica.sequence import Pace, Sequence

End = list[int | Sequence | None]
"""At which iteration a sequence has its last token, its rank, and itself; None once it has left."""


class Decodes(Pace):
    """The decoding sequences, at the same `iteration`; `context_tokens` of them are in the KV cache.

    Their newest blocks are in `stock`, not in their tables: which is whose matters to nobody before one
    leaves or an engine computes it. `spare` blocks of the stock are for the iteration to come. Those who
    know the names of blocks that they have yet to fill are `naming`.
    """

    __slots__ = (
        "_due",
        "_ends",
        "_lengths",
        "block_tokens",
        "context_tokens",
        "members",
        "naming",
        "spare",
        "stock",
    )

    def __init__(self, block_tokens: int) -> None:
        super().__init__()
        self.block_tokens = block_tokens
        self.members: dict[Sequence, End] = {}
        self.naming: dict[Sequence, None] = {}
        self.context_tokens = 0
        self.stock: list[int] = []
        self.spare = 0
        self._ends: list[End] = []
        # How many need a block in which iteration, modulo a block's tokens; twice in a row, to slice it.
        self._due = [0] * (2 * block_tokens)
        self._lengths: tuple[int, int] | None = None

    def join(self, sequence: Sequence) -> None:
        """Let a sequence go along: it holds blocks for just what it computed, and misses one token."""
        iteration, computed = self.iteration, sequence.base
        end: End = [iteration + sequence.max_tokens - sequence.sampled, sequence.rank, sequence]
        self.members[sequence] = end
        heappush(self._ends, end)
        self.context_tokens += computed
        place = (iteration - computed) % self.block_tokens
        self._due[place] += 1
        self._due[place + self.block_tokens] += 1
        self._lengths = None
        sequence.base = computed - iteration
        sequence.pace = self
        if sequence.published < len(sequence.blocks):
            self.naming[sequence] = None

    def leave(self, sequence: Sequence) -> None:
        """Let a sequence go, with all its blocks in its table."""
        self._part(sequence)
        table, stock = sequence.table, self.stock
        lacks = -(-sequence.base // self.block_tokens) - len(table)
        if self.spare > self._due[self.iteration % self.block_tokens]:
            self.spare -= 1  # it was for this one
            lacks += 1
        if lacks > 0:
            table += stock[-lacks:]
            del stock[-lacks:]

    def filled(self) -> list[Sequence]:
        """Of those that name blocks, return who has just filled one, with all blocks in their tables."""
        size, done = self.block_tokens, []
        for sequence in sorted(self.naming, key=_rank):
            blocks, rest = divmod(sequence.computed, size)
            if not rest:
                lacks = blocks - len(sequence.table)
                sequence.table += [self.stock.pop() for _ in range(lacks)]
                done.append(sequence)
        return done

    def lacking(self) -> int:
        """Blocks to take before all may compute one more token."""
        return self._due[self.iteration % self.block_tokens] - self.spare

    def take(self, pool: BlockPool, blocks: int) -> bool:
        """Take blocks for the iteration to come, or none and return False if fewer are free."""
        if not pool.grow(self.stock, blocks):
            return False
        self.spare += blocks
        return True

    def blocks(self, count: int) -> int:
        """Blocks that so many iterations fill or begin to fill, beyond those held now but for the spare."""
        size = self.block_tokens
        at = self.iteration % size
        if count <= size:
            return sum(self._due[at : at + count])
        whole, part = divmod(count, size)
        return whole * len(self.members) + sum(self._due[at : at + part])

    def lasting(self, free_blocks: int, most: int = ENDLESS) -> int:
        """Return how many iterations, up to `most`, until one has all its tokens or the blocks are used up.

        The first of them has its own blocks. It is one at a time as long as somebody names blocks.
        """
        if self.naming:
            return 1
        count: int = self._ends[0][0] - self.iteration  # type: ignore[operator]
        if count > most:
            count = most
        room = free_blocks + self.spare
        # First by a bound that is nearly always enough.
        if (count // self.block_tokens + 1) * len(self.members) <= room or self.blocks(count) <= room:
            return count
        low, high = 1, count
        while high - low > 1:
            middle = (low + high) // 2
            if self.blocks(middle) <= room:
                low = middle
            else:
                high = middle
        return low

    def next_chunk(self, sequence: Sequence) -> Chunk:
        """Tell what a sequence does in the coming iteration, in a table that has the block for it."""
        computed = sequence.base + self.iteration
        if computed >= len(sequence.table) * self.block_tokens:
            sequence.table.append(self.stock.pop())
        return Chunk(sequence, computed, 1, True)

    def advance(self, count: int, pool: BlockPool, paused: Iterable[Sequence] = ()) -> bool:
        """Let all but the paused ones compute so many tokens each, taking the blocks they need.

        Say whether one of them has all its tokens now.
        """
        if paused:
            for sequence in paused:
                self._part(sequence)
        size, iteration = self.block_tokens, self.iteration
        if count < size:  # `blocks`, inlined: every run comes by here
            at = iteration % size
            lacking = sum(self._due[at : at + count]) - self.spare
        else:
            lacking = self.blocks(count) - self.spare
        if lacking > 0:
            took = pool.grow(self.stock, lacking)
            assert took, "a run of iterations ends before the KV cache is full"
            lacking = 0
        self.spare = -lacking
        self.context_tokens += count * len(self.members)
        self.iteration = iteration = iteration + count
        ends = self._ends
        over = bool(ends) and ends[0][0] <= iteration  # type: ignore[operator]
        if paused:
            for sequence in paused:
                self.join(sequence)
        return over

    def ended(self) -> list[Sequence]:
        """Let go of those that have all their tokens, first admitted first, and return them."""
        ends, done = self._ends, []
        while ends and ends[0][0] <= self.iteration:  # type: ignore[operator]
            sequence = ends[0][2]
            assert isinstance(sequence, Sequence), "who has left is never on top"
            done.append(sequence)
            self.leave(sequence)
        return done

    def lengths(self) -> tuple[int, int]:
        """The most and the least that one of them has computed."""
        if self._lengths is None:
            bases = [sequence.base for sequence in self.members]
            self._lengths = max(bases), min(bases)
        longest, shortest = self._lengths
        return longest + self.iteration, shortest + self.iteration

    def _part(self, sequence: Sequence) -> None:
        computed = sequence.base + self.iteration
        self.members.pop(sequence)[2] = None
        if self.naming:
            self.naming.pop(sequence, None)
        ends = self._ends
        while ends and ends[0][2] is None:
            heappop(ends)
        self.context_tokens -= computed
        place = (self.iteration - computed) % self.block_tokens
        self._due[place] -= 1
        self._due[place + self.block_tokens] -= 1
        self._lengths = None
        sequence.base = computed
        sequence.sampled = computed - sequence.prompt_tokens + 1
        sequence.pace = None


def _rank(sequence: Sequence) -> int:
    return sequence.rank
