"""Copies of KV blocks in the memory of the machine, kept for sequences that may lose theirs on the device."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from millrace.replica.runs import FreeRuns
from millrace.replica.sequence import Sequence


@dataclass(slots=True, eq=False)
class HostCopy:
    """Host blocks with the first `tokens` tokens of a sequence; one that is `needed` is not thrown away."""

    blocks: list[int] = field(default_factory=list)
    tokens: int = 0
    needed: bool = False


class HostTier:
    """Host blocks 0 … blocks - 1. Copies that nobody needs go when space is short, the oldest first."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.free = FreeRuns(blocks)
        self.copies: OrderedDict[Sequence, HostCopy] = OrderedDict()

    def reserve(self, sequence: Sequence, blocks: int) -> HostCopy | None:
        """Return the copy of a sequence with room for so many blocks, or None if there is none."""
        copy = self.copies.get(sequence, HostCopy())
        lacking = blocks - len(copy.blocks)
        others = [(one, old) for one, old in self.copies.items() if not old.needed and old is not copy]
        if lacking > self.free.count + sum(len(old.blocks) for _, old in others):
            return None
        for one, _ in others:
            if lacking <= self.free.count:
                break
            self.drop(one)
        for _ in range(lacking):
            copy.blocks.append(self.free.take_after(copy.blocks[-1] if copy.blocks else self.blocks))
        self.copies[sequence] = copy
        self.copies.move_to_end(sequence)
        return copy

    def drop(self, sequence: Sequence) -> None:
        """Free the copy of a sequence, if it has one."""
        if copy := self.copies.pop(sequence, None):
            self.free.give(copy.blocks)

    def audit(self) -> None:
        """Assert that every host block is free, or in one copy."""
        held = [block for copy in self.copies.values() for block in copy.blocks]
        assert sorted([*held, *self.free]) == list(range(self.blocks)), "each is somewhere, once"
