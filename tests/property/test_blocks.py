"""The block pool against a model that is too simple to be wrong: lists searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from millrace.replica.noting import NotingPool
from millrace.replica.table import Table

BLOCKS = 9
chains = st.lists(st.sampled_from([1, 2]), max_size=6).map(
    lambda steps: [hash(tuple(steps[: i + 1])) for i in range(len(steps))]
)


@dataclass(eq=False)
class Slot:
    """A block of the model: what it holds, and how many tables hold it."""

    content: int | None = None
    holders: int = 0


@dataclass(eq=False)
class Held:
    """A table of both, the prompt it is for, and how much of that was published."""

    table: Table
    slots: list[Slot]
    chain: list[int]
    done: int


class Pool(RuleBasedStateMachine):
    """Every rule does the same to both and compares what they answer."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = NotingPool(BLOCKS)
        self.told: set[int] = set()
        self.free = [Slot() for _ in range(BLOCKS)]
        self.held: list[Held] = []

    def known(self) -> dict[int, Slot]:
        slots = [*self.free, *(slot for held in self.held for slot in held.slots)]
        return {slot.content: slot for slot in slots if slot.content is not None}

    def fresh(self) -> Slot:
        slot = next((slot for slot in self.free if slot.content is None), self.free[0])
        self.free.remove(slot)
        slot.content, slot.holders = None, 1
        return slot

    @rule(target=tables, chain=chains, more=st.integers(0, 5))
    def acquire(self, chain: list[int], more: int) -> object:
        known, found = self.known(), 0
        while found < len(chain) and chain[found] in known:
            found += 1
        assert self.pool.matched(chain) == found
        slots = [known[content] for content in chain[:found]]
        fits = more <= len(self.free) - sum(slot in self.free for slot in slots)
        table = Table()
        assert self.pool.acquire(table, chain[:found], found + more) == fits
        if not fits:
            assert not table
            return multiple()
        assert len(table) == found + more
        for slot in slots:
            slot.holders += 1
        self.free = [slot for slot in self.free if slot not in slots]
        self.held.append(Held(table, [*slots, *(self.fresh() for _ in range(more))], chain, found))
        return self.held[-1]

    @rule(held=tables, more=st.integers(1, 3))
    def grow(self, held: Held, more: int) -> None:
        fits = more <= len(self.free)
        assert self.pool.grow(held.table, more) == fits
        if fits:
            held.slots.extend(self.fresh() for _ in range(more))

    @rule(held=tables, most=st.integers(1, 6))
    def publish(self, held: Held, most: int) -> None:
        done, full = held.done, min(held.done + most, len(held.chain), len(held.slots))
        if done == full:
            return
        eased, new = self.pool.eased, 0
        self.pool.publish(held.table, held.chain, done, full)
        for slot, content in zip(held.slots[done:full], held.chain[done:full], strict=True):
            slot.content = None if content in self.known() else content
            new += slot.content is not None
        assert self.pool.eased == eased + new
        held.done = full

    @rule(held=consumes(tables))
    def release(self, held: Held) -> None:
        self.held.remove(held)
        for slot in reversed(held.slots):
            slot.holders -= 1
            if not slot.holders:
                self.free.append(slot)
        self.pool.release(held.table)

    @rule()
    def note(self) -> None:
        """What came and left since the last time makes of what was there what is there."""
        pool = self.pool
        assert pool.left <= self.told
        assert self.told.isdisjoint(pool.came)
        self.told = (self.told - pool.left) | pool.came.keys()
        assert self.told == set(pool.contents()) == self.known().keys()
        pool.left.clear()
        pool.came.clear()

    @invariant()
    def both_agree(self) -> None:
        self.pool.audit([held.table for held in self.held])
        assert (self.pool.free, self.pool.findable) == (len(self.free), len(self.known()))
        assert self.pool.blank == sum(slot.content is None for slot in self.free)
        order = [name for segment in self.pool._idle for name in reversed(segment.contents)]
        assert order == [slot.content for slot in self.free if slot.content is not None]


Pool.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_pool_does_what_the_model_does = Pool.TestCase
