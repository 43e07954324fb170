"""Fairness under preemption: the more important run, and who gives way goes to host memory if that is sooner.

Source: FastSwitch (Shen et al., arXiv:2411.18424): blocks in groups, copies beside the steps, and host copies
that are kept, so that only what is new has to be copied when a sequence gives way again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile

from millrace.core.replica import Limits
from millrace.core.swapping import Swapping
from millrace.replica.batch import Batch
from millrace.replica.grouping import GroupedDecodes, GroupedPool
from millrace.replica.host import HostCopy, HostTier
from millrace.replica.runs import copies
from millrace.replica.sequence import Sequence
from millrace.replica.table import Table


@dataclass(slots=True, eq=False)
class Swap:
    """Blocks to copy: `pairs` of a device block and a host block, `out` to the host or in from it.

    Swaps are carried out in the order in which they were asked for; `table` holds the device blocks.
    """

    sequence: Sequence
    table: Table
    pairs: list[tuple[int, int]]
    copies: int
    out: bool
    done: bool = False


@dataclass(slots=True)
class SwapCounts:
    """Blocks copied each way, copy operations, blocks not copied again, and preemptions by kind."""

    out_blocks: int = 0
    in_blocks: int = 0
    copies: int = 0
    reused_blocks: int = 0
    swapped: int = 0
    recomputed: int = 0


class SwappingBatch(Batch):
    """A batch by priority, whose preempted sequences may come back from host memory.

    Who carries out its steps asks for `asked` swaps before each, and tells of each when it is done; the step
    has to wait for all of them if it is `waiting_for_swaps`.
    """

    def __init__(self, limits: Limits, swapping: Swapping) -> None:
        super().__init__(limits, by_priority=True)
        self.swapping = swapping
        if swapping.grouped:
            self.pool = GroupedPool(limits.kv_blocks, caching=limits.prefix_caching)
            self.decodes = GroupedDecodes(limits.block_tokens)
        self.tier = HostTier(swapping.host_blocks)
        self.counts = SwapCounts()
        self.incoming: dict[Sequence, Swap] = {}
        self.leaving: list[Swap] = []
        self.waiting_for_swaps = False
        self.importing = True  # so that it is asked before every step
        self._asked: list[Swap] = []
        self._saved: dict[Sequence, int] = {}

    @property
    def waiting(self) -> Collection[Sequence]:
        """Who can be admitted: those in front of the first who comes back from the host."""
        if not self._saved:
            return super().waiting
        return [*takewhile(lambda one: one not in self._saved, super().waiting)]

    @property
    def seats(self) -> int:
        """How many more sequences may run, beside those on their way."""
        return self.sequences - len(self.running) - len(self.incoming) - len(self.imports.landed)

    def asked(self) -> list[Swap]:
        """Return the swaps to begin, since the last time, in their order."""
        found, self._asked = self._asked, []
        return found

    def swapped(self, swap: Swap) -> None:
        """Note that a swap is done, between two steps: blocks that left are free, who came in may run."""
        if swap.done:
            return
        swap.done = True
        if swap.out:
            self.leaving.remove(swap)
            self.pool.release(swap.table)
        elif self.incoming.pop(swap.sequence, None):
            swap.sequence.table = swap.table
            self.imports.landed.append(swap.sequence)
        else:
            self.pool.release(swap.table)  # it was aborted meanwhile

    def prioritise(self, id: str, priority: int) -> bool:
        """Change how important a sequence is, running or not; False if it is not here."""
        sequence = self.known.get(id)
        if sequence is None:
            return False
        sequence.priority = priority
        if sequence in self.queue:
            self.queue.remove(sequence)
            ahead = takewhile(lambda one: one.priority >= priority, self.queue)
            self.queue.insert(sum(1 for _ in ahead), sequence)
        self._stuck_at = -1
        return True

    def let_in(self) -> None:
        """Let those run who have come, fetch who comes next from the host, and make room for it."""
        super().let_in()
        while self.queue and not self.preempting:
            first = self.queue[0]
            if self.swapping.preempting:
                self._make_way(first)
            if first not in self._saved or not self._fetch(first):
                break
            super().let_in()
        self.importing = True

    def join(self, sequence: Sequence) -> bool:
        """Let a sequence run that has come; False if there is no seat."""
        if sequence not in self._saved:
            return super().join(sequence)
        if len(self.running) >= self.sequences:
            return False
        self._seat(sequence)
        sequence.base = self._saved.pop(sequence)
        self.publish(sequence)
        return True

    def make_room(self) -> None:
        """Take the blocks that the decodes' next tokens lack; the step waits for those that are leaving."""
        self.preempting = False
        decodes, pool = self.decodes, self.pool
        while not decodes.take(pool, decodes.lacking()):
            decodes.take(pool, pool.free)
            if self.leaving:
                self.waiting_for_swaps = True
                self.swapped(self.leaving[0])
            else:
                self.evict(self._least_important())
                self.preempting = True

    def evict(self, sequence: Sequence) -> None:
        """Send a running sequence back to the queue; its blocks go to the host if that pays."""
        if sequence.pace:
            self.decodes.leave(sequence)
        computed = sequence.base
        swapped = computed > 0 and self._copy_out(sequence, computed)
        super().evict(sequence)
        if swapped:
            self._saved[sequence] = computed
            self.counts.swapped += 1
        else:
            self.counts.recomputed += 1

    def complete(self, sequence: Sequence) -> None:
        """Take out a running sequence that has all its tokens, and forget its host copy."""
        super().complete(sequence)
        self.tier.drop(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Take out a sequence that nobody wants any more; blocks being written are free after that."""
        if self.incoming.pop(sequence, None):
            del self.known[sequence.id]
        else:
            super().forget(sequence)
        self._saved.pop(sequence, None)
        self.tier.drop(sequence)

    def _make_way(self, first: Sequence) -> None:
        """Let as many of the less important give way as it takes for the first to run, if that is enough."""
        need = -(-first.length // self.block_tokens) + (len(self.running) if first in self._saved else 0)
        room = self.pool.free + sum(len(swap.table) for swap in self.leaving)
        seats, giving = self.seats, []
        lower = [one for one in self.running if one.priority < first.priority]
        for one in sorted(lower, key=lambda one: (one.priority, -one.rank)):
            if room >= need and seats > 0:
                break
            giving.append(one)
            room, seats = room + -(-one.computed // self.block_tokens), seats + 1
        if room >= need and seats > 0:
            for one in giving:
                self.evict(one)

    def _copy_out(self, sequence: Sequence, computed: int) -> bool:
        """Begin to copy a sequence's blocks to the host; False if that has no room or does not pay."""
        blocks, size, how = -(-computed // self.block_tokens), self.block_tokens, self.swapping
        if how.block_s is None or (copy := self.tier.reserve(sequence, blocks)) is None:
            return False
        kept = copy.tokens // size if how.reusing else 0
        pairs = list(zip(sequence.table[kept:blocks], copy.blocks[kept:blocks], strict=True))
        count = self._operations(pairs)
        back = self._operations(list(zip(range(blocks), copy.blocks, strict=False)))
        if not how.pays(computed, how.seconds(len(pairs), count) + how.seconds(blocks, back)):
            return False
        copy.tokens, copy.needed = max(copy.tokens, computed), True
        self.counts.reused_blocks += kept
        self._ask(Swap(sequence, self._hand_over(sequence), pairs, count, out=True))
        return True

    def _fetch(self, sequence: Sequence) -> bool:
        """Begin to copy a sequence's blocks back; False if there is no seat or no room."""
        if self.seats < 1 or self._stuck_at == self.pool.eased:
            return False
        length, saved = sequence.length, self._saved[sequence]
        hits = self._hits(sequence, length) if sequence.blocks else 0
        blocks = -(-length // self.block_tokens)
        if self.pool.free < blocks + len(self.running):
            return False  # else it would give way again at once, for the next blocks of those who run
        took = self.pool.acquire(sequence.table, sequence.blocks[:hits], blocks)
        assert took, "there is room for all of it"
        self._dequeue(sequence)
        sequence.published = hits
        self._saved[sequence] = max(saved, hits * self.block_tokens)
        copy = self.tier.copies[sequence]
        copy.needed = False
        pairs = self._pairs(sequence, copy, hits, -(-saved // self.block_tokens))
        swap = Swap(sequence, self._hand_over(sequence), pairs, self._operations(pairs), out=False)
        self.incoming[sequence] = swap
        self._ask(swap)
        return True

    def _pairs(self, sequence: Sequence, copy: HostCopy, hits: int, held: int) -> list[tuple[int, int]]:
        return list(zip(sequence.table[hits:held], copy.blocks[hits:held], strict=True))

    def _operations(self, pairs: list[tuple[int, int]]) -> int:
        return copies(pairs) if self.swapping.grouped else len(pairs)

    def _hand_over(self, sequence: Sequence) -> Table:
        table, sequence.table = sequence.table, Table()
        return table

    def _ask(self, swap: Swap) -> None:
        self.counts.copies += swap.copies
        if swap.out:
            self.counts.out_blocks += len(swap.pairs)
            self.leaving.append(swap)
        else:
            self.counts.in_blocks += len(swap.pairs)
        self._asked.append(swap)
        if not self.swapping.overlapped:
            self.waiting_for_swaps = True
            self.swapped(swap)
