"""Sequences that another replica computed: their KV cache comes over a link, into blocks set aside.

Source: prefill and decode on different replicas, as in Splitwise (Patel et al., ISCA 2024), DistServe (Zhong
et al., OSDI 2024), and the NIXL connector of vLLM, which takes the blocks before it reads the cache;
live migration as in Llumnix (Sun et al., OSDI 2024), which takes them stage by stage, or not at all.
"""

from __future__ import annotations

from collections import deque

from millrace.replica.sequence import Sequence


class Imports:
    """`expected` wait for blocks, first come first; `landed` have their cache and wait for a seat.

    `reserved` got their blocks since it was last looked, with the tokens that have to come: the others are
    in the prefix cache. Those that are `asked` for do not wait: `answered` says which of them have blocks now
    for all their tokens, and how many of these are in the prefix cache; None if there were too few.
    """

    __slots__ = ("answered", "asked", "expected", "landed", "reserved")

    def __init__(self) -> None:
        self.expected: deque[Sequence] = deque()
        self.landed: deque[Sequence] = deque()
        self.reserved: list[tuple[Sequence, int]] = []
        self.asked: list[Sequence] = []
        self.answered: list[tuple[Sequence, int | None]] = []

    @property
    def pending(self) -> bool:
        """Whether anybody waits for blocks or a seat."""
        return bool(self.expected or self.landed)

    def forget(self, sequence: Sequence) -> bool:
        """Take out a sequence that nobody wants any more; False if it does not wait here."""
        for line in (self.expected, self.landed, self.asked):
            if sequence in line:
                line.remove(sequence)
                return True
        return False
