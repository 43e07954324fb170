"""The mind of one model server: it decides every iteration and books what came of it, but computes nothing.

Source: iteration-level scheduling of Orca (Yu et al., OSDI 2022), chunked prefill of Sarathi-Serve
(Agrawal et al., OSDI 2024), paged KV cache and preemption by recomputation of vLLM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from millrace.core.batch import BatchingPolicy, Grant
from millrace.core.cost import StepShape
from millrace.core.replica import Limits
from millrace.replica.batch import Batch
from millrace.replica.executor import Chunk, Executor, Step, StepResult
from millrace.replica.lasting import iterations
from millrace.replica.progress import End, Progress
from millrace.replica.sequence import Sequence


class Replica:
    """One model server: `plan` a step, let an executor run it, `commit` what came of it.

    All calls come from one thread, but the executor may run in another: `add` and `abort` may come while a
    step is in flight, and what it reads and writes is left alone until `commit`. At most one step is in
    flight. If it cannot be carried out, run it again, or abort its sequences and commit it all the same.
    With `lengths`, the shape of a step says how long its longest and shortest decode are.
    """

    def __init__(self, limits: Limits, batching: BatchingPolicy, *, lengths: bool = False) -> None:
        self.limits = limits
        self.batching = batching
        self.batch = Batch(_checked(limits))
        self._lengths = lengths
        self._in_flight: Step | None = None
        self._aborted: list[Sequence] = []

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold KV blocks, oldest admission first."""
        return self.batch.running

    @property
    def waiting(self) -> deque[Sequence]:
        """Sequences that hold none, next to be admitted first."""
        return self.batch.queue

    @property
    def queued_tokens(self) -> int:
        """Known tokens of the waiting sequences, including what the prefix cache may spare them."""
        return self.batch.queued_tokens

    @property
    def kv_free_tokens(self) -> int:
        """Tokens for which KV blocks are free."""
        return self.batch.pool.free * self.limits.block_tokens

    @property
    def preemptions(self) -> int:
        """Times a sequence lost its KV blocks to an older one, so far."""
        return self.batch.preemptions

    @property
    def cache_query_tokens(self) -> int:
        """Prompt tokens looked up in the prefix cache when their sequence was first admitted, so far."""
        return self.batch.cache_query_tokens

    @property
    def cache_hit_tokens(self) -> int:
        """Those of them that were found, so far."""
        return self.batch.cache_hit_tokens

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait its turn. Raises ValueError for one that can never complete here."""
        self.vet(sequence)
        self.batch.enqueue(sequence)

    def vet(self, sequence: Sequence) -> None:
        """Raise ValueError for a sequence that can never complete here, or whose id is taken."""
        if sequence.id in self.batch.known:
            raise ValueError(f"id {sequence.id!r} is already running or waiting: choose another")
        if sequence.prompt_tokens < 1 or sequence.max_tokens < 1:
            raise ValueError("prompt_tokens and max_tokens must be at least 1")
        total = sequence.prompt_tokens + sequence.max_tokens
        # The last token is sampled but never fed back, so it needs no KV.
        capacity = min(self.limits.context_tokens, self.limits.kv_blocks * self.limits.block_tokens + 1)
        if total > capacity:
            raise ValueError(
                f"{sequence.prompt_tokens} prompt_tokens + {sequence.max_tokens} max_tokens = {total} "
                f"exceed the {capacity} one sequence may have here: shorten the prompt or lower max_tokens"
            )

    def abort(self, id: str) -> bool:
        """Forget a sequence; False if it is not here. It keeps its blocks until no step is in flight."""
        sequence = self.batch.known.get(id)
        if sequence is None:
            return False
        self.batch.forget(sequence)
        if self._in_flight:
            self._aborted.append(sequence)
        else:
            self.batch.release(sequence)
        return True

    def plan(self) -> Step | None:
        """Decide the next iteration and take the blocks it needs; None if there is nothing to run."""
        assert self._in_flight is None, "one step at a time: commit the last one first"
        self.batch.make_room()
        step = self._form(self.batching.plan(self.batch))
        if step is None and self.batch.running:
            # All it wanted was to admit sequences that do not fit: ask again, now that nobody seems to wait.
            step = self._form(self.batching.plan(self.batch))
        self._in_flight = step
        return step

    def lasting(self, step: Step) -> int:
        """How many iterations like the step just planned follow each other if nobody comes or leaves.

        Always 1 under a batching policy that does not call itself `steady`, and for a plan that preempted:
        it hid those who wait, and the next one will not.
        """
        steady = getattr(self.batching, "steady", False) and not self.batch.preempting
        return iterations(step, self.limits, self.batch.pool.free) if steady else 1

    def commit(self, step: Step, result: StepResult, *, count: int = 1) -> Progress:
        """Book what the step computed, publish full blocks, and free those of sequences that are complete.

        `count` books that many iterations in a row, at most as many as `lasting` said.
        """
        assert step is self._in_flight, "only the step in flight can be committed"
        self._in_flight = None
        progress = Progress(result.seconds, [], [], [])
        self._book(self._surviving(step), result.ended, count, progress)
        if progress.ended:
            self.batch.complete(end.sequence for end in progress.ended)
        return progress

    def step(self, executor: Executor) -> Progress | None:
        """Plan, run and commit one iteration; None if there is nothing to run."""
        step = self.plan()
        return None if step is None else self.commit(step, executor.run(step))

    def _form(self, grants: list[Grant]) -> Step | None:
        """Turn grants into a step, admitting the waiting sequences among them while the KV cache has room.

        A decode is a sequence that has generated and lacks one token; everything else is prefill, also
        the one token left of a cached prompt and what a preempted sequence computes again.
        """
        known, refused = self.batch.known, 0
        chunks: dict[str, Chunk] = {}
        decodes = context = prefilled = attended = emits = 0
        for grant in grants:
            sequence = known[grant.id]
            if not sequence.table and not self.batch.admit(sequence):
                refused += 1
                continue
            start = sequence.computed
            missing = sequence.prompt_tokens + sequence.generated - start
            if missing == 1 and sequence.generated:
                chunks[grant.id] = Chunk(sequence, start, 1, True)
                decodes += 1
                context += start
                continue
            tokens = min(grant.tokens, missing)
            if tokens < 1:
                raise ValueError(f"batching granted {grant.tokens} tokens to {grant.id!r}: grant at least 1")
            chunks[grant.id] = Chunk(sequence, start, tokens, tokens == missing)
            prefilled += tokens
            attended += tokens * start + tokens * (tokens + 1) // 2
            emits += tokens == missing
        if not chunks:
            return None
        self._check(grants, len(chunks) + refused, decodes + prefilled)
        prefills = len(chunks) - decodes
        longest, shortest = _decode_lengths(chunks.values()) if self._lengths else (0, 0)
        shape = StepShape(decodes, context, prefills, prefilled, attended, emits + decodes, longest, shortest)
        return Step(tuple(chunks.values()), shape)

    def _check(self, grants: list[Grant], sequences: int, tokens: int) -> None:
        if tokens > self.limits.step_tokens:
            raise ValueError(
                f"batching granted {tokens} tokens; step_tokens allows {self.limits.step_tokens}"
            )
        if sequences < len(grants):
            raise ValueError("batching granted one sequence twice in a step: grant it once")

    def _surviving(self, step: Step) -> tuple[Chunk, ...]:
        if not self._aborted:
            return step.chunks
        for sequence in self._aborted:
            self.batch.release(sequence)
        self._aborted.clear()
        return tuple(chunk for chunk in step.chunks if chunk.sequence.table)

    def _book(
        self, chunks: tuple[Chunk, ...], stopped: frozenset[str], count: int, progress: Progress
    ) -> None:
        block_tokens = self.limits.block_tokens
        emitted = progress.emitted
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = computed = chunk.start + chunk.tokens * count
            filled = computed % block_tokens == 0
            if count > 1 and computed > len(sequence.table) * block_tokens:
                self.batch.extend(sequence)
            if sequence.published < len(sequence.blocks) and (filled or chunk.tokens > 1 or count > 1):
                self.batch.publish(sequence)
            if not chunk.emits:
                continue
            emitted.append(sequence)
            sequence.generated = generated = sequence.generated + count
            if generated == count:
                progress.first.append(sequence)
            if stopped and sequence.id in stopped:
                progress.ended.append(End(sequence, "stop"))
            elif generated >= sequence.max_tokens:
                progress.ended.append(End(sequence, "length"))
            elif filled:
                self.batch.short.append(sequence)


def _decode_lengths(chunks: Iterable[Chunk]) -> tuple[int, int]:
    """The most and the least cached tokens of one decode."""
    lengths = [c.start for c in chunks if c.tokens == 1 and c.emits and c.sequence.generated]
    return (max(lengths), min(lengths)) if lengths else (0, 0)


def _checked(limits: Limits) -> Limits:
    for name in ("step_tokens", "sequences", "kv_blocks", "block_tokens"):
        if getattr(limits, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(limits, name)}")
    return limits
