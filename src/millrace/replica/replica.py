"""The mind of one model server: it decides every iteration and books what came of it, but computes nothing.

Source: iteration-level scheduling of Orca (Yu et al., OSDI 2022), chunked prefill of Sarathi-Serve
(Agrawal et al., OSDI 2024), paged KV cache and preemption by recomputation of vLLM.
"""

from __future__ import annotations

from collections import deque

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import ENDLESS
from millrace.core.replica import Limits
from millrace.core.swapping import Swapping
from millrace.replica.adapters import batch_for
from millrace.replica.executor import Chunk, Executor, Run, Step, StepResult
from millrace.replica.forming import chunks_of, decoding, form
from millrace.replica.lasting import chunks_in_a_row
from millrace.replica.progress import NOTHING, End, Progress, Stepped
from millrace.replica.sequence import Sequence


class Replica:
    """One model server: `plan` a step, let an executor run it, `commit` what came of it.

    Who only prices steps need not know which sequence does what: `begin` decides the same, `lasting` says for
    how many iterations it stands, and `finish` books as many at once.

    All calls come from one thread, but the executor may run in another: `add` and `abort` may come while a
    step is in flight, and what it reads and writes is left alone until `commit`. At most one step is in
    flight. If it cannot be carried out, run it again, or abort its sequences and commit it all the same.
    With `lengths`, the shape of a step says how long its longest and shortest decode are; `swap` is how
    sequences give way to others.
    """

    def __init__(
        self, limits: Limits, batching: BatchingPolicy, *, lengths: bool = False, swap: Swapping | None = None
    ) -> None:
        self.limits = limits
        self.batching = batching
        by_priority: bool = getattr(batching, "by_priority", False)
        self.batch = batch_for(limits, by_priority=by_priority, swapping=swap)
        # The last token is sampled but never fed back, so it needs no KV.
        self._capacity = min(limits.context_tokens, limits.kv_blocks * limits.block_tokens + 1)
        self._lengths = lengths
        self._steady: bool = getattr(batching, "steady", False)
        self.eager: bool = self._steady and getattr(batching, "eager", False)
        # With no prompt in sight, so many decodes go on without a word of the policy.
        self._unasked = limits.step_tokens if self.eager else -1
        self._run: Run | None = None
        self._step: Step | None = None
        self._aborted: list[Sequence] = []

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold KV blocks, oldest admission first."""
        return list(self.batch.running)

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
        prompt_tokens, max_tokens = sequence.prompt_tokens, sequence.max_tokens
        if prompt_tokens < 1 or max_tokens < 1:
            raise ValueError("prompt_tokens and max_tokens must be at least 1")
        if prompt_tokens + max_tokens > self._capacity:
            raise ValueError(
                f"{prompt_tokens} prompt_tokens + {max_tokens} max_tokens = {prompt_tokens + max_tokens} "
                f"exceed the {self._capacity} one sequence may have here: shorten the prompt or lower "
                "max_tokens"
            )

    def abort(self, id: str) -> bool:
        """Forget a sequence; False if it is not here. It keeps its blocks until no step is in flight."""
        sequence = self.batch.known.get(id)
        if sequence is None:
            return False
        self.batch.forget(sequence)
        if self._run:
            self._aborted.append(sequence)
        else:
            self.batch.release(sequence)
        return True

    def expect(self, sequence: Sequence) -> None:
        """Let a sequence wait for blocks, into which the KV cache of its prompt will come from elsewhere.

        Raises ValueError for one that can never complete here.
        """
        self.vet(sequence)
        self.batch.known[sequence.id] = sequence
        self.batch.imports.expected.append(sequence)
        self.batch.importing = True

    def reserved(self) -> list[tuple[Sequence, int]]:
        """Return the expected sequences that got their blocks since the last time, and the tokens to come."""
        found, self.batch.imports.reserved = self.batch.imports.reserved, []
        return found

    def land(self, id: str) -> None:
        """Note that a sequence's KV cache is here, all of its prompt: it runs as soon as there is a seat."""
        self.batch.imports.landed.append(self.batch.known[id])
        self.batch.importing = True

    def plan(self) -> Step | None:
        """Decide the next iteration and take the blocks it needs; None if there is nothing to run."""
        run = self.begin(asking=True)
        self._step = None if run is None else Step(chunks_of(run, self.batch), run.shape)
        return self._step

    def begin(self, *, asking: bool = False) -> Run | None:
        """Decide the next iterations and take the blocks of the first; None if there is nothing to run.

        Unless it is for `asking`, a policy is not asked what it has promised to say.
        """
        assert self._run is None, "one step at a time: commit the last one first"
        batch, decodes = self.batch, self.batch.decodes
        if batch.displaced:
            batch.displaced = []
        lacking = decodes.lacking()
        if batch.preempting or (lacking and not decodes.take(batch.pool, lacking)):
            batch.make_room()
        if batch.importing:
            batch.let_in()
        if asking or batch.queue or batch.prefilling or len(decodes.members) > self._unasked:
            run = self._ask()
        else:
            run = decoding(batch, self._lengths)
        self._run = run
        return run

    def lasting(self, run: Run) -> int:
        """How many iterations, from the one just planned on, are known if nobody comes or leaves.

        Always 1 under a batching policy that does not call itself `steady`, and for a plan that preempted:
        it hid those who wait, and the next one will not. So it is while imported sequences wait for blocks.
        They are all alike, but for the last one of a run that has got a `closing` one.
        """
        batch = self.batch
        if not self._steady or batch.preempting or batch.importing or run.paused:
            return 1
        if run.prefills:
            return 1 if run.most < ENDLESS else chunks_in_a_row(run, batch, eager=self.eager)
        return batch.decodes.lasting(batch.pool.free, run.most)

    def taken_tokens(self, run: Run, count: int) -> int:
        """Return for how many more tokens KV blocks are held while the last of `count` iterations goes on."""
        decodes = self.batch.decodes
        return (decodes.blocks(count) - decodes.spare) * self.limits.block_tokens if run.decodes else 0

    def commit(self, step: Step, result: StepResult) -> Stepped:
        """Book what the step computed, publish full blocks, and free those of sequences that are complete."""
        assert step is self._step, "only the step in flight can be committed"
        assert self._run is not None
        run, self._run, self._step = self._run, None, None
        if run.decodes:
            self.batch.decodes.advance(1, self.batch.pool, run.paused)
        if self._aborted:
            self._drop(run, 1)
        emitted: list[Sequence] = []
        first: list[Sequence] = []
        ended: list[End] = []
        for chunk in step.chunks:
            sequence = chunk.sequence
            if not sequence.table:
                continue  # it was aborted meanwhile
            self._book(chunk, 1)
            if not chunk.emits:
                continue
            emitted.append(sequence)
            generated = sequence.generated
            if generated == 1:
                first.append(sequence)
            if sequence.id in result.ended:
                ended.append(End(sequence, "stop"))
            elif generated >= sequence.max_tokens:
                ended.append(End(sequence, "length"))
        for end in ended:
            self.batch.complete(end.sequence)
        return Stepped(first, ended, seconds=result.seconds, emitted=emitted)

    def finish(self, run: Run, count: int) -> Progress:
        """Book `count` iterations, at most as many as `lasting` said; who is complete has `max_tokens`.

        The last of as many as it said may be the `closing` one.
        """
        assert run is self._run, "only the run in flight can be finished"
        self._run = None
        batch = self.batch
        decodes = batch.decodes
        over = run.decodes and decodes.advance(count, batch.pool, run.paused)
        if self._aborted:
            self._drop(run, count)
        if not over and not run.prefills and not decodes.naming:
            return NOTHING  # it was cut, so there is nothing to book for anybody
        if decodes.naming:
            batch.publish_filled()
        first, done = self._computed(run, count) if run.prefills else ([], [])
        if over:
            done[:0] = decodes.ended()
        if not done:
            return Progress(first) if first else NOTHING
        for sequence in done:
            batch.complete(sequence)
        return Progress(first, [End(sequence, "length") for sequence in done])

    def step(self, executor: Executor) -> Stepped | None:
        """Plan, run and commit one iteration; None if there is nothing to run."""
        step = self.plan()
        return None if step is None else self.commit(step, executor.run(step))

    def _ask(self) -> Run | None:
        """Do what the policy says."""
        batch, decide = self.batch, self.batching.plan
        run = form(decide(batch), batch, self._lengths)
        if run is None and batch.running:
            # All it wanted was to admit sequences that do not fit: ask again, now that nobody seems to wait.
            run = form(decide(batch), batch, self._lengths)
        return run

    def _computed(self, run: Run, count: int) -> tuple[list[Sequence], list[Sequence]]:
        """Book the prompts of a run; return who has its first token, and who has all of them already."""
        batch = self.batch
        first: list[Sequence] = []
        done: list[Sequence] = []
        if run.closing and count > run.alike:
            run, count = run.closing, 1
        for chunk in run.prefills:
            sequence = chunk.sequence
            if not sequence.table:
                continue  # it was aborted meanwhile
            sequence.base = chunk.start + chunk.tokens * count
            if sequence.blocks:
                batch.publish(sequence)
            if chunk.emits:
                sequence.sampled += 1
                if sequence.sampled == 1:
                    first.append(sequence)
                if sequence.sampled < sequence.max_tokens:
                    batch.decode(sequence)
                else:
                    done.append(sequence)
        return first, done

    def _drop(self, run: Run, count: int) -> None:
        """Let go of those who were aborted while the run was under way."""
        for chunk in run.prefills if count > 1 else ():
            if chunk.sequence in self._aborted:  # only the last iteration is lost
                self._book(chunk, count - 1)
        for sequence in self._aborted:
            self.batch.release(sequence)
        self._aborted.clear()

    def _book(self, chunk: Chunk, count: int) -> None:
        """Book what a chunk computed in so many iterations; a prompt that is complete decodes from now."""
        sequence, batch = chunk.sequence, self.batch
        prefilled = sequence.pace is None
        if prefilled:
            sequence.base = chunk.start + chunk.tokens * count
            sequence.sampled += chunk.emits
        if sequence.published < len(sequence.blocks):
            batch.publish(sequence)
        if prefilled and chunk.emits and sequence.sampled < sequence.max_tokens:
            batch.decode(sequence)
