"""Sequences go to host memory and come back: no block is lost, written too early, or another one's."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.replica import Limits
from millrace.core.swapping import Swapping
from millrace.policies import load
from millrace.replica.executor import StepResult
from millrace.replica.replica import Replica
from millrace.replica.runs import FreeRuns, copies
from millrace.replica.sequence import Sequence
from millrace.replica.swapping import Swap, SwappingBatch
from tests.property.test_replica import Engine, limits, prompts

swappings = st.builds(
    Swapping,
    host_blocks=st.sampled_from([0, 3, 12, 30]),
    copy_s=st.sampled_from([0.0, 1.0]),
    block_s=st.sampled_from([None, 0.01, 1.0]),
    token_s=st.sampled_from([None, 0.5, 100.0, 100.0]),
    grouped=st.booleans(),
    overlapped=st.booleans(),
    reusing=st.booleans(),
    preempting=st.booleans(),
)
priorities = st.integers(0, 2)
lives = st.lists(
    st.one_of(
        *[st.tuples(st.just("add"), st.tuples(prompts, st.integers(1, 16), priorities))] * 2,
        st.tuples(st.just("prioritise"), st.tuples(st.integers(0, 9), priorities)),
        st.tuples(st.just("abort"), st.integers(0, 9)),
        st.tuples(st.just("run"), st.integers(1, 8)),
        st.tuples(st.just("arrive"), st.integers(1, 2)),
    ),
    min_size=12,
    max_size=60,
)


class Host:
    """A replica with a device memory and a host memory; swaps are carried out as late as they may be."""

    def __init__(self, limits: Limits, swapping: Swapping) -> None:
        self.replica = Replica(limits, load("batching", "split_fuse"), swap=swapping)
        assert isinstance(self.replica.batch, SwappingBatch)
        self.batch = self.replica.batch
        self.engine = Engine(limits.block_tokens)
        self.limits = limits
        self.under_way: deque[Swap] = deque()
        self.host: dict[tuple[int, int], tuple[int, ...]] = {}

    def add(self, prompt: list[int], max_tokens: int, priority: int) -> None:
        sequence = self.engine.sequence(f"s{len(self.engine.tokens)}", prompt, max_tokens)
        sequence.priority = priority
        if len(prompt) + max_tokens - 1 <= self.limits.kv_blocks * self.limits.block_tokens:
            self.replica.add(sequence)

    def arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.under_way))):
            swap = self.under_way.popleft()
            for device, host in swap.pairs:
                for offset in range(self.limits.block_tokens):
                    here, there = (device, offset), (host, offset)
                    if swap.out and here in self.engine.memory:
                        self.host[there] = self.engine.memory[here]
                    elif not swap.out and there in self.host:
                        self.engine.memory[here] = self.host[there]
            self.batch.swapped(swap)

    def step(self) -> bool:
        step = self.replica.plan()
        self.under_way += self.batch.asked()
        if self.batch.waiting_for_swaps:
            self.arrive(len(self.under_way))
            self.batch.waiting_for_swaps = False
        if step is None:
            return False
        self.engine.run(step)
        progress = self.replica.commit(step, StepResult(1.0))
        for sequence in progress.emitted:
            self.engine.sample(sequence)
        return True

    def nobody_lacks_anything(self) -> None:
        batch = self.batch
        swaps = [*batch.leaving, *(s for s in self.under_way if not s.out and not s.done)]
        held = [*batch.running, *batch.imports.landed]
        tables = [*(one.table for one in held), *(swap.table for swap in swaps)]
        batch.pool.audit(tables, batch.decodes.stock)
        batch.tier.audit()
        assert len(batch.running) <= self.limits.sequences
        everybody = [*batch.running, *batch.queue, *batch.incoming, *batch.imports.landed]
        assert sorted(one.id for one in everybody) == sorted(batch.known)
        assert self.replica.queued_tokens == sum(one.length for one in batch.queue)


@settings(max_examples=200, deadline=None)
@given(limits, swappings, lives)
def test_a_life_with_swaps_loses_no_block_and_no_token(
    limits: Limits, swapping: Swapping, life: list[tuple[str, object]]
) -> None:
    world = Host(limits, swapping)
    for event in life:
        known = sorted(world.batch.known)
        match event:
            case ("add", (list() as prompt, int(max_tokens), int(priority))):
                world.add(prompt, max_tokens, priority)
            case ("prioritise", (int(which), int(priority))):
                found = world.batch.prioritise(known[which % len(known)] if known else "", priority)
                assert found == bool(known)
            case ("abort", int(which)) if known:
                assert world.replica.abort(known[which % len(known)])
            case ("run", int(count)):
                for _ in range(count):
                    world.step()
            case ("arrive", int(count)):
                world.arrive(count)
        world.nobody_lacks_anything()
    for _ in range(20_000):
        if not world.step() and not world.under_way:
            break
        world.arrive(1)
        world.nobody_lacks_anything()
    assert not world.batch.known, "everybody gets a turn"
    assert world.replica.kv_free_tokens == limits.kv_blocks * limits.block_tokens
    counts = world.batch.counts
    assert counts.swapped + counts.recomputed == world.replica.preemptions


@given(st.lists(st.tuples(st.sampled_from(["take", "after", "give"]), st.integers(1, 6))))
def test_runs_are_what_a_set_of_free_blocks_says(deeds: list[tuple[str, int]]) -> None:
    runs, free, held = FreeRuns(12), set(range(12)), list[int]()
    for deed, count in deeds:
        if deed == "give":
            runs.give(held[:count])
            free |= {*held[:count]}
            del held[:count]
        elif deed == "take" and count <= len(free):
            longest = max(run_length(free, start) for start in free)
            taken = runs.take(count)
            assert copies([(block, i) for i, block in enumerate(taken)]) == 1 or longest < count
            assert {*taken} <= free
            free -= {*taken}
            held += taken
        elif deed == "after" and free:
            block = runs.take_after(count)
            assert block in free
            assert block == count + 1 or count + 1 not in free
            free.remove(block)
            held.append(block)
        assert sorted(runs) == sorted(free)
        assert runs.count == len(free)


def run_length(free: set[int], start: int) -> int:
    return next(n for n in range(1, len(free) + 1) if start + n not in free)


def test_what_was_copied_before_is_not_copied_again() -> None:
    swapping = Swapping(host_blocks=40, block_s=0.0, token_s=1.0, preempting=True)
    made = Host(Limits(kv_blocks=12, block_tokens=2, sequences=1, prefix_caching=False), swapping)
    made.add([1] * 10, 8, 0)
    for urgent in range(2):
        for _ in range(4):
            made.step()
            made.arrive(1)
        made.add([0] * 4, 2, 1)
        while any(one.priority for one in made.batch.known.values()):
            made.step()
            made.arrive(1)
        assert made.batch.counts.swapped == urgent + 1
    while made.step() or made.under_way:
        made.arrive(1)
    assert made.batch.counts.reused_blocks >= 5
    assert made.batch.counts.copies <= 5, "blocks in a row are copied at once"
    assert all(isinstance(one, Sequence) for one in made.engine.tokens)
