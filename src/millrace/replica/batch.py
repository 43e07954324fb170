"""Who runs in a replica, who waits, and which KV blocks they hold: what a batching policy sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from itertools import takewhile
from operator import attrgetter

from millrace.core.batch import SequenceView
from millrace.core.replica import Limits
from millrace.replica.blocks import BlockPool
from millrace.replica.decodes import Decodes
from millrace.replica.imports import Imports
from millrace.replica.sequence import Sequence
from millrace.replica.table import Table


class Batch:
    """The sequences of one replica, between two iterations.

    `queue` are those without KV blocks, first come first; `running` those with, in the order of their
    admission; `known` finds both by id. The running ones are either `prefilling` or among the `decodes`.
    `preempting` is whether the plan under way has preempted somebody for lack of blocks, `displaced` are all
    who lost their blocks to it, `importing` is whether one of the `imports` waits for blocks or a seat.
    With `by_priority` the queue is in the order of priorities, and the least important are preempted first.
    """

    def __init__(self, limits: Limits, *, by_priority: bool = False) -> None:
        self.by_priority = by_priority
        self.step_tokens = limits.step_tokens
        self.sequences = limits.sequences
        self.block_tokens = limits.block_tokens
        self.pool = BlockPool(limits.kv_blocks, caching=limits.prefix_caching)
        self.known: dict[str, Sequence] = {}
        self.queue: deque[Sequence] = deque()
        self.running: dict[Sequence, None] = {}
        self.prefilling: dict[Sequence, None] = {}
        self.decodes = Decodes(limits.block_tokens)
        self.queued_tokens = 0
        self.preemptions = 0
        self.cache_query_tokens = 0
        self.cache_hit_tokens = 0
        self.preempting = False
        self.displaced: list[Sequence] = []
        self.imports = Imports()
        self.importing = False
        self._admitted = 0
        self._stuck_at = -1

    @property
    def decoding(self) -> int:
        """How many decode."""
        return len(self.decodes.members)

    @property
    def context_tokens(self) -> int:
        """Tokens that the decodes have in the KV cache."""
        return self.decodes.context_tokens

    @property
    def waiting(self) -> Collection[Sequence]:
        """The queue, or nobody as long as nobody can be admitted.

        That is in an iteration that preempts, and after the KV cache had no room for one of them until
        something has eased. So a policy need not ask in vain, and what it asks for is done.
        """
        return () if self.preempting or self._stuck_at == self.pool.eased else self.queue

    @property
    def crowded(self) -> bool:
        """Whether nobody can be admitted before something has eased, or somebody has left."""
        return len(self.running) >= self.sequences or self._stuck_at == self.pool.eased

    def missing_tokens(self, sequence: SequenceView) -> int:
        """Tokens the sequence would compute if it were admitted now."""
        waiting = self.known[sequence.id]
        length = waiting.prompt_tokens + waiting.sampled
        return length - self._hits(waiting, length) * self.block_tokens if waiting.blocks else length

    def enqueue(self, sequence: Sequence) -> None:
        """Let a new sequence wait behind all others, or all that are as important."""
        self.known[sequence.id] = sequence
        queue = self.queue
        if self.by_priority and queue and queue[-1].priority < sequence.priority:
            ahead = takewhile(lambda one: one.priority >= sequence.priority, queue)
            queue.insert(sum(1 for _ in ahead), sequence)
            self._stuck_at = -1  # room that was not enough for who is behind it may be for this one
        else:
            queue.append(sequence)
        self.queued_tokens += sequence.length

    def forget(self, sequence: Sequence) -> None:
        """Take out a sequence that nobody wants any more. If it holds blocks, it does so until `release`."""
        del self.known[sequence.id]
        if sequence in self.running:
            del self.running[sequence]
            self.prefilling.pop(sequence, None)
        elif not self.imports.forget(sequence) and not sequence.table:
            self._dequeue(sequence)

    def complete(self, sequence: Sequence) -> None:
        """Take out a running sequence that has all its tokens, and free its blocks, unless it keeps them."""
        del self.running[sequence]
        if sequence.pace is None:
            self.prefilling.pop(sequence, None)
        if not sequence.keeps:
            del self.known[sequence.id]
            self.release(sequence)

    def admit(self, sequence: Sequence) -> bool:
        """Let a waiting sequence run, with blocks for its whole length, or return False for lack of room."""
        if self.preempting or self._stuck_at == self.pool.eased or not self.queue:
            return False
        if len(self.running) >= self.sequences:
            raise ValueError(
                f"batching admitted {sequence.id!r} beyond the {self.sequences} sequences allowed"
            )
        length = sequence.prompt_tokens + sequence.sampled
        hits = self._hits(sequence, length) if sequence.blocks else 0
        blocks = -(-length // self.block_tokens)
        if not self.pool.acquire(sequence.table, sequence.blocks[:hits] if hits else (), blocks):
            self._stuck_at = self.pool.eased
            return False
        self._dequeue(sequence)
        self._seat(sequence)
        sequence.published = hits
        sequence.base = hits * self.block_tokens
        if not sequence.preemptions:
            self._count_hits(sequence)
        return True

    def let_in(self) -> None:
        """Let imported sequences run as there are seats, and give those to come blocks as they are free."""
        imports = self.imports
        while imports.landed and self.join(imports.landed[0]):
            imports.landed.popleft()
        while imports.asked:
            imports.answered.append(self._room_for(imports.asked.pop(0)))
        while imports.expected and self._reserve(imports.expected[0]):
            imports.expected.popleft()
        self.importing = imports.pending

    def host(self, sequence: Sequence) -> None:
        """Take blocks at once for all that a sequence has, whose KV cache comes from elsewhere, or none.

        Called again when it has more by then; `hosted` tells.
        """
        self.known[sequence.id] = sequence
        self.imports.asked.append(sequence)
        self.importing = True

    def hosted(self) -> list[tuple[Sequence, int | None]]:
        """Return who asked for blocks since the last time, and the tokens that were here; None: no room."""
        found, self.imports.answered = self.imports.answered, []
        return found

    def join(self, sequence: Sequence) -> bool:
        """Let a sequence run whose cache is here, all but the last token; False if there is no seat."""
        if len(self.running) >= self.sequences:
            return False
        self._seat(sequence)
        sequence.base, sequence.joined = sequence.length - 1, True
        spare = Table(sequence.table[-(-sequence.length // self.block_tokens) :])
        if spare:
            del sequence.table[-len(spare) :]
            self.pool.release(spare)
        return True

    def set_aside(self, sequence: Sequence) -> bool:
        """Stop a decode, which keeps its blocks and one for its next token; False if there is none for it."""
        if not self.pool.free:
            return False
        del self.running[sequence]
        self.decodes.leave(sequence)
        lacks = -(-sequence.length // self.block_tokens) - len(sequence.table)
        self.pool.grow(sequence.table, lacks)
        return True

    def decode(self, sequence: Sequence) -> None:
        """Let a sequence that prefilled go on as one of the decodes."""
        del self.prefilling[sequence]
        self.decodes.join(sequence)

    def make_room(self) -> None:
        """Take the blocks that the decodes' next tokens lack, preempting as long as need be: the youngest,
        or with `by_priority` the youngest of the least important.

        What is free is taken before anybody is preempted, as if one decode took its block after the other.
        """
        self.preempting = False
        decodes, pool = self.decodes, self.pool
        while not decodes.take(pool, decodes.lacking()):
            decodes.take(pool, pool.free)
            self.evict(self._least_important())
            self.preempting = True

    def evict(self, sequence: Sequence) -> None:
        """Send a running sequence back to the queue, before its like, to be recomputed later (vLLM)."""
        del self.running[sequence]
        self.prefilling.pop(sequence, None)
        self.release(sequence)
        sequence.base = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self.displaced.append(sequence)
        ahead = takewhile(lambda one: one.priority > sequence.priority, self.queue)
        self.queue.insert(sum(1 for _ in ahead) if self.by_priority else 0, sequence)
        self.queued_tokens += sequence.length

    def publish(self, sequence: Sequence) -> None:
        """Make the sequence's computed full blocks findable, as far as their hashes are known."""
        done, full = sequence.published, min(sequence.computed // self.block_tokens, len(sequence.blocks))
        if done < full:
            self.pool.publish(sequence.table, sequence.blocks, done, full)
            sequence.published = full

    def publish_filled(self) -> None:
        """Publish the blocks that decodes have just filled, of those who name them."""
        for sequence in self.decodes.filled():
            self.publish(sequence)

    def release(self, sequence: Sequence) -> None:
        """Take all blocks from a sequence; what was published stays findable until its space is needed."""
        if sequence.pace:
            self.decodes.leave(sequence)
        self.pool.release(sequence.table)

    def _reserve(self, sequence: Sequence) -> bool:
        hits = self._hits(sequence, sequence.prompt_tokens) if sequence.blocks else 0
        blocks = -(-sequence.prompt_tokens // self.block_tokens)
        if not self.pool.acquire(sequence.table, sequence.blocks[:hits], blocks):
            return False
        sequence.published = hits
        self.imports.reserved.append((sequence, sequence.prompt_tokens - hits * self.block_tokens))
        return True

    def _room_for(self, sequence: Sequence) -> tuple[Sequence, int | None]:
        """Take blocks for all that a sequence has by now, and one more, as it grows while its cache comes.

        Who gets none at all is forgotten.
        """
        size, table = self.block_tokens, sequence.table
        blocks = -(-sequence.length // size) + 1
        if table:
            room = self.pool.grow(table, max(0, blocks - len(table)))
        else:
            hits = self._hits(sequence, sequence.prompt_tokens) if sequence.blocks else 0
            room = self.pool.acquire(table, sequence.blocks[:hits], blocks)
            if room:
                sequence.published = hits
            else:
                del self.known[sequence.id]
        return sequence, sequence.published * size if room else None

    def _seat(self, sequence: Sequence) -> None:
        self.running[sequence] = self.prefilling[sequence] = None
        self._admitted += 1
        sequence.rank = self._admitted

    def _least_important(self) -> Sequence:
        youngest_first = reversed(self.running)
        if self.by_priority:
            return min(youngest_first, key=attrgetter("priority"))
        return next(youngest_first)

    def _hits(self, sequence: Sequence, length: int) -> int:
        # The last token is always computed: its logits are what the next one is sampled from.
        return min(self.pool.matched(sequence.blocks), (length - 1) // self.block_tokens)

    def _dequeue(self, sequence: Sequence) -> None:
        if self.queue[0] is sequence:
            self.queue.popleft()
        else:
            self.queue.remove(sequence)
        self.queued_tokens -= sequence.prompt_tokens + sequence.sampled

    def _count_hits(self, sequence: Sequence) -> None:
        # Of an answer that goes on here, what was generated elsewhere may be in the cache too.
        sequence.cached_tokens = min(sequence.base, sequence.prompt_tokens)
        self.cache_query_tokens += sequence.prompt_tokens
        self.cache_hit_tokens += sequence.cached_tokens
