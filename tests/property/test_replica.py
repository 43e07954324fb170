"""A replica's whole life at random, with a KV memory that remembers which token it was given where."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millrace.core.cost import StepShape
from millrace.core.replica import Limits
from millrace.policies import load, names
from millrace.replica.executor import Chunk, Step, StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence

prompts = st.builds(
    lambda shared, length, own: [shared] * length + own,
    st.integers(0, 1),
    st.integers(0, 12),
    st.lists(st.integers(0, 1), min_size=1, max_size=3),
)
limits = st.builds(
    Limits,
    step_tokens=st.integers(1, 20),
    sequences=st.integers(1, 5),
    kv_blocks=st.integers(5, 12),
    block_tokens=st.sampled_from([2, 3, 4]),
    prefix_caching=st.sampled_from([True, True, False]),
)


class Engine:
    """An executor whose KV memory is checked at every read: a wrong or stolen block cannot go unnoticed."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.tokens: dict[Sequence, list[int]] = {}
        self.memory: dict[tuple[int, int], tuple[int, ...]] = {}

    def sequence(self, id: str, prompt: list[int], max_tokens: int) -> Sequence:
        sequence = Sequence(id, len(prompt), max_tokens)
        self.tokens[sequence] = list(prompt)
        self.hash(sequence)
        return sequence

    def hash(self, sequence: Sequence) -> None:
        tokens = self.tokens[sequence]
        while (end := (len(sequence.blocks) + 1) * self.block_tokens) <= len(tokens):
            sequence.blocks.append(hash(tuple(tokens[:end])))

    def run(self, step: Step) -> StepResult:
        for chunk in step.chunks:
            tokens = self.tokens[chunk.sequence]
            for i in range(chunk.start):
                assert self.memory[self.place(chunk, i)] == tuple(tokens[: i + 1])
            for i in range(chunk.start, chunk.start + chunk.tokens):
                self.memory[self.place(chunk, i)] = tuple(tokens[: i + 1])
        return StepResult(1.0)

    def place(self, chunk: Chunk, i: int) -> tuple[int, int]:
        return chunk.sequence.table[i // self.block_tokens], i % self.block_tokens

    def sample(self, sequence: Sequence) -> None:
        self.tokens[sequence].append(len(self.tokens[sequence]) % 2)
        self.hash(sequence)


class Life(RuleBasedStateMachine):
    """Sequences come, run, are aborted and end in every order."""

    @initialize(limits=limits, policy=st.sampled_from(names("batching")))
    def start(self, limits: Limits, policy: str) -> None:
        self.limits = limits
        self.replica = Replica(limits, load("batching", policy))
        self.engine = Engine(limits.block_tokens)
        self.step: Step | None = None
        self.alive: dict[str, Sequence] = {}
        self.doomed: list[Sequence] = []
        self.computed: dict[Sequence, tuple[int, int]] = {}
        self.emitted: dict[Sequence, int] = {}

    @rule(requests=st.lists(st.tuples(prompts, st.integers(1, 16)), min_size=1, max_size=4))
    def arrive(self, requests: list[tuple[list[int], int]]) -> None:
        for prompt, max_tokens in requests:
            self.add(prompt, max_tokens)

    def add(self, prompt: list[int], max_tokens: int) -> None:
        sequence = self.engine.sequence(f"s{len(self.engine.tokens)}", prompt, max_tokens)
        kv_tokens = len(prompt) + max_tokens - 1
        try:
            self.replica.add(sequence)
        except ValueError:
            assert kv_tokens > self.limits.kv_blocks * self.limits.block_tokens
        else:
            assert kv_tokens <= self.limits.kv_blocks * self.limits.block_tokens
            self.alive[sequence.id] = sequence
            self.emitted[sequence] = 0

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = self.alive.pop(data.draw(st.sampled_from(sorted(self.alive))))
        assert self.replica.abort(sequence.id)
        assert not self.replica.abort(sequence.id)
        if self.step:
            self.doomed.append(sequence)

    @precondition(lambda self: self.step is None)
    @rule(iterations=st.integers(1, 8))
    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            self.plan()
            if self.step:
                self.commit(set())

    @precondition(lambda self: self.step is None)
    @rule()
    def plan(self) -> None:
        running, waiting = list(self.replica.running), list(self.replica.waiting)
        self.step = self.replica.plan()
        if self.step is None:
            assert not self.alive
            return
        self.gave_way_and_came_in(running, waiting)
        chunks = self.step.chunks
        assert self.step.shape == shape_of(chunks)
        assert self.step.shape.tokens <= self.limits.step_tokens
        assert len({chunk.sequence.id for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            self.continues(chunk)

    def gave_way_and_came_in(self, running: list[Sequence], waiting: list[Sequence]) -> None:
        """Check that the youngest went back to the head of the queue, and that nobody jumped it."""
        stayed = [sequence for sequence in running if sequence.table]
        admitted = [sequence for sequence in waiting if sequence.table]
        assert self.replica.running == stayed + admitted
        assert list(self.replica.waiting) == running[len(stayed) :] + waiting[len(admitted) :]
        assert not admitted or stayed == running

    def continues(self, chunk: Chunk) -> None:
        """Check that nothing is computed twice or skipped, but for what preemption and the cache explain."""
        sequence = chunk.sequence
        preemptions, end = self.computed.get(sequence, (0, sequence.cached_tokens))
        if sequence.preemptions == preemptions:
            assert chunk.start == end
        assert chunk.emits == (chunk.start + chunk.tokens == sequence.length)
        self.computed[sequence] = (sequence.preemptions, chunk.start + chunk.tokens)

    @precondition(lambda self: self.step is not None)
    @rule(stops=st.sets(st.integers(0, 4)))
    def commit(self, stops: set[int]) -> None:
        assert self.step is not None
        stopped = frozenset(c.sequence.id for i, c in enumerate(self.step.chunks) if i in stops and c.emits)
        survivors = [c.sequence for c in self.step.chunks if c.emits and c.sequence not in self.doomed]
        self.engine.run(self.step)
        progress = self.replica.commit(self.step, StepResult(1.0, stopped))
        self.step = None
        self.doomed.clear()
        assert progress.emitted == survivors
        assert progress.first == [sequence for sequence in survivors if not self.emitted[sequence]]
        for sequence in survivors:
            self.emitted[sequence] += 1
            self.engine.sample(sequence)
        for end in progress.ended:
            assert self.alive.pop(end.sequence.id) is end.sequence
            assert end.why == ("stop" if end.sequence.id in stopped else "length")
        assert all(self.emitted[s] == s.generated < s.max_tokens for s in self.alive.values())

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        running = self.replica.running
        holders = [*running, *(sequence for sequence in self.doomed if sequence.table)]
        pool, decodes = self.replica.batch.pool, self.replica.batch.decodes
        pool.audit([sequence.table for sequence in holders], decodes.stock)
        assert self.step or len(decodes.stock) == decodes.spare, "an engine has named all other blocks"
        assert all(len(s.table) * self.limits.block_tokens >= s.computed for s in holders)
        assert all(s.published == s.computed // self.limits.block_tokens for s in running)
        assert len(running) <= self.limits.sequences
        assert sorted(s.id for s in (*running, *self.replica.waiting)) == sorted(self.alive)
        assert self.replica.queued_tokens == sum(sequence.length for sequence in self.replica.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "replica"):
            return
        if self.step:
            self.commit(set())
        for _ in range(20_000):
            self.plan()
            if self.step is None:
                break
            self.commit(set())
        assert not self.alive, "everybody gets a turn"
        assert self.replica.kv_free_tokens == self.limits.kv_blocks * self.limits.block_tokens
        assert self.replica.preemptions == sum(sequence.preemptions for sequence in self.engine.tokens)


def shape_of(chunks: tuple[Chunk, ...]) -> StepShape:
    """Count a step the slow way, one query-key pair after the other."""
    decodes = [c for c in chunks if c.sequence.generated and c.sequence.missing == 1]
    prefills = [c for c in chunks if c not in decodes]
    return StepShape(
        decodes=len(decodes),
        decode_context_tokens=sum(c.start for c in decodes),
        prefills=len(prefills),
        prefill_tokens=sum(c.tokens for c in prefills),
        prefill_attended_tokens=sum(c.start + i + 1 for c in prefills for i in range(c.tokens)),
        emits=sum(c.emits for c in chunks),
    )


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_no_life_of_a_replica_loses_a_block_a_token_or_a_sequence = Life.TestCase


@given(st.lists(prompts, min_size=1, max_size=8), st.sampled_from([1, 2, 4]))
def test_the_cache_finds_exactly_the_longest_prefix_ever_computed(
    asked: list[list[int]], block_tokens: int
) -> None:
    replica = Replica(Limits(block_tokens=block_tokens), load("batching", "split_fuse"))
    engine = Engine(block_tokens)
    known: set[tuple[int, ...]] = set()
    for i, prompt in enumerate(asked):
        sequence = engine.sequence(f"s{i}", prompt, max_tokens=1)
        ends = range(block_tokens, len(prompt) + 1, block_tokens)
        hits = [end for end in ends if tuple(prompt[:end]) in known and end < len(prompt)]
        replica.add(sequence)
        replica.step(engine)
        assert sequence.cached_tokens == max(hits, default=0)
        known |= {tuple(prompt[:end]) for end in ends}
