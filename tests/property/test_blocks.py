"""The block pool against a model that is too simple to be wrong: lists searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from millrace.replica.blocks import BlockPool

BLOCKS = 6
chains = st.lists(st.sampled_from([1, 2, 3]), max_size=4).map(
    lambda steps: [hash(tuple(steps[: i + 1])) for i in range(len(steps))]
)


@dataclass(eq=False)
class Slot:
    """A block of the model: what it holds, and how many tables hold it."""

    content: int | None = None
    holders: int = 0


class Pool(RuleBasedStateMachine):
    """Every rule does the same to both and compares what they answer."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(BLOCKS)
        self.free = [Slot() for _ in range(BLOCKS)]
        self.held: list[tuple[list[int], list[Slot]]] = []

    def known(self) -> dict[int, Slot]:
        slots = [*self.free, *(slot for _, slots in self.held for slot in slots)]
        return {slot.content: slot for slot in slots if slot.content is not None}

    def fresh(self) -> Slot:
        slot = next((slot for slot in self.free if slot.content is None), self.free[0])
        self.free.remove(slot)
        slot.content, slot.holders = None, 1
        return slot

    @rule(target=tables, chain=chains, more=st.integers(0, BLOCKS))
    def acquire(self, chain: list[int], more: int) -> object:
        known, found = self.known(), 0
        while found < len(chain) and chain[found] in known:
            found += 1
        assert self.pool.matched(chain) == found
        slots = [known[content] for content in chain[:found]]
        fits = more <= len(self.free) - sum(slot in self.free for slot in slots)
        table = self.pool.acquire(chain[:found], found + more)
        assert (table is not None) == fits
        if table is None:
            return multiple()
        for slot in slots:
            slot.holders += 1
        self.free = [slot for slot in self.free if slot not in slots]
        self.held.append((table, [*slots, *(self.fresh() for _ in range(more))]))
        return self.held[-1]

    @rule(entry=tables, more=st.integers(1, 3))
    def grow(self, entry: tuple[list[int], list[Slot]], more: int) -> None:
        table, slots = entry
        fits = more <= len(self.free)
        assert self.pool.grow(table, more) == fits
        if fits:
            slots.extend(self.fresh() for _ in range(more))

    @rule(entry=tables, chain=chains)
    def publish(self, entry: tuple[list[int], list[Slot]], chain: list[int]) -> None:
        for block, slot, content in zip(*entry, chain, strict=False):
            if slot.content is None:
                self.pool.publish(block, content)
                slot.content = None if content in self.known() else content

    @rule(entry=consumes(tables))
    def release(self, entry: tuple[list[int], list[Slot]]) -> None:
        self.held = [other for other in self.held if other is not entry]
        for slot in reversed(entry[1]):
            slot.holders -= 1
            if not slot.holders:
                self.free.append(slot)
        self.pool.release(entry[0])

    @invariant()
    def both_agree(self) -> None:
        self.pool.audit([table for table, _ in self.held])
        known = self.known()
        assert (self.pool.free, self.pool.findable) == (len(self.free), len(known))
        assert all(self.pool.matched([content]) for content in known)


Pool.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_the_pool_does_what_the_model_does = Pool.TestCase
