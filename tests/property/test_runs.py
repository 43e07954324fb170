"""Two replicas live the same life, one in runs, the other step by step: nothing tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.batch import BatchingPolicy, BatchView, Grant, Plan, informed
from millrace.core.draw import draw_below
from millrace.core.replica import Limits
from millrace.policies import load
from millrace.replica.executor import StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from tests.property.test_world import Affine
from tests.property.whole import BATCHINGS


@dataclass(frozen=True)
class Choosy:
    """Lets some decodes go on, each chosen by a draw, and rests when it has chosen nobody."""

    def plan(self, batch: BatchView) -> Plan:
        grants, left = [], batch.step_tokens
        free = batch.sequences - len(batch.running)
        for sequence in (*batch.running, *list(batch.waiting)[:free]):
            tokens = draw_below(4, "choosy", sequence.id, sequence.length, sequence.computed)
            tokens = min(tokens, sequence.missing, batch.missing_tokens(sequence), left)
            if tokens > 0:
                grants.append(Grant(sequence.id, tokens))
                left -= tokens
        return Plan(0, grants)


@dataclass(frozen=True)
class Some:
    """Lets all decodes but the last one go on, and computes one prompt beside them."""

    steady: ClassVar[bool] = True

    def plan(self, batch: BatchView) -> Plan:
        decodes = min(max(batch.decoding - 1, 1), batch.decoding, batch.step_tokens)
        left = batch.step_tokens - decodes
        free = batch.sequences > len(batch.running)
        for sequence in (*batch.prefilling, *list(batch.waiting)[:free]):
            if left:
                return Plan(decodes, [Grant(sequence.id, left)])
        return Plan(decodes)


BATCHING: list[BatchingPolicy] = [informed(load("batching", text), Affine()) for text in BATCHINGS]
BATCHING += [Choosy(), Some()]

limits = st.builds(
    Limits,
    step_tokens=st.integers(1, 20),
    sequences=st.integers(1, 6),
    kv_blocks=st.integers(8, 24),
    block_tokens=st.sampled_from([1, 2, 4]),
    prefix_caching=st.sampled_from([True, True, False]),
)
prompts = st.tuples(st.integers(1, 16), st.integers(1, 40), st.integers(0, 2), st.sampled_from([0, 0, -1, 1]))
lives = st.lists(
    st.one_of(
        st.lists(prompts, min_size=1, max_size=3),
        st.tuples(st.just("run"), st.integers(1, 60)),
        st.tuples(st.just("abort"), st.integers(0, 9)),
        st.tuples(st.just("abort in a run"), st.integers(0, 9)),
    ),
    max_size=25,
)


class Twins:
    """A replica in runs, and one in steps."""

    def __init__(self, limits: Limits, batching: BatchingPolicy) -> None:
        self.limits = limits
        self.runs, self.steps = Replica(limits, batching), Replica(limits, batching)
        self.added = 0

    def add(self, prompt: int, answer: int, kind: int, priority: int) -> None:
        size = self.limits.block_tokens
        if prompt + answer > self.limits.kv_blocks * size:
            return
        for replica in (self.runs, self.steps):
            named = (0, prompt, prompt + answer)[kind] // size
            blocks = [kind * 1000 + n for n in range(named)]
            replica.add(Sequence(f"s{self.added}", prompt, answer, blocks, priority=priority))
        self.added += 1

    def abort(self, which: int) -> None:
        ids = sorted(self.runs.batch.known)
        if ids:
            for replica in (self.runs, self.steps):
                assert replica.abort(ids[which % len(ids)])

    def run(self, longest: int, *, abort: int | None = None) -> bool:
        """Let one go on in a run of up to so many iterations, the other in as many steps."""
        run = self.runs.begin()
        count = min(self.runs.lasting(run), longest) if run else 1
        marks = []
        for i in range(count):
            step = self.steps.plan()
            assert (step is None) == (run is None)
            if run is None or step is None:
                return False
            if i == 0:
                assert step.shape == run.shape
            if run.closing and i == run.alike:
                assert step.shape == run.closing.shape
            free = self.runs.kv_free_tokens - (self.runs.taken_tokens(run, i + 1) if i else 0)
            assert free == self.steps.kv_free_tokens
            if abort is not None and i == count - 1:
                self.abort(abort)
            marks.append(self.steps.commit(step, StepResult(1.0)))
        assert run is not None
        progress = self.runs.finish(run, count)
        assert all(not mark.ended and not mark.first for mark in marks[:-1])
        assert [s.id for s in progress.first] == [s.id for s in marks[-1].first]
        assert [e.sequence.id for e in progress.ended] == [e.sequence.id for e in marks[-1].ended]
        return True

    def agree(self) -> None:
        assert state(self.runs) == state(self.steps)
        decodes = self.runs.batch.decodes
        tables = [sequence.table for sequence in self.runs.running]
        self.runs.batch.pool.audit(tables, decodes.stock)
        assert decodes.context_tokens == sum(sequence.computed for sequence in decodes.members)


def state(replica: Replica) -> object:
    """Everything that can make a difference later; which blank block is whose cannot."""
    batch, pool = replica.batch, replica.batch.pool
    of = [(s.id, s.computed, s.generated, s.cached_tokens, s.preemptions) for s in batch.known.values()]
    order = [[s.id for s in part] for part in (batch.running, batch.prefilling, batch.queue)]
    forgotten_next = [name for segment in pool._idle for name in reversed(segment.contents)]
    counts = (replica.preemptions, replica.cache_hit_tokens, replica.queued_tokens, pool.free, pool.blank)
    return of, order, sorted(s.id for s in batch.decodes.members), forgotten_next, counts


@settings(max_examples=250, deadline=None)
@given(limits=limits, batching=st.sampled_from(BATCHING), life=lives)
def test_a_life_in_runs_is_a_life_in_steps(
    limits: Limits, batching: BatchingPolicy, life: list[object]
) -> None:
    twins = Twins(limits, batching)
    for event in life:
        match event:
            case list():
                for prompt in event:
                    twins.add(*prompt)
            case ("run", int(longest)):
                twins.run(longest)
            case ("abort", int(which)):
                twins.abort(which)
            case ("abort in a run", int(which)):
                twins.run(1 + which, abort=which)
        twins.agree()
    while twins.run(1000):
        twins.agree()
    if not isinstance(batching, Choosy):
        assert not twins.runs.batch.known
        assert twins.runs.kv_free_tokens == limits.kv_blocks * limits.block_tokens
