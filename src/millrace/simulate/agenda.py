"""Virtual time: everything that is still to happen, in the order in which it will."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

Deed = Callable[[Any], None]
"""What happens; it is told to whom."""


class Agenda:
    """Of the things due at the same moment, the one that was planned first happens first.

    What is due later waits in a heap. What is due at once has a queue of its own, which is cheaper: whatever
    in the heap is due now was planned before, so it comes first, and the order is that of a single heap.
    Who knows that something is due at once may append it to `soon` without asking for the time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._later: list[tuple[float, int, Deed, Any]] = []
        self.soon: deque[tuple[Deed, Any]] = deque()
        self._order = count()

    def __bool__(self) -> bool:
        """Whether anything is still to happen."""
        return bool(self._later or self.soon)

    def at(self, time_s: float, happen: Deed, whom: Any) -> None:
        """Plan something for a moment; what is over is now."""
        if time_s > self.now_s:
            heappush(self._later, (time_s, next(self._order), happen, whom))
        else:
            self.soon.append((happen, whom))

    def play(self) -> None:
        """Let everything happen, until nothing is left."""
        later, soon = self._later, self.soon
        while True:
            while soon and not (later and later[0][0] == self.now_s):
                happen, whom = soon.popleft()
                happen(whom)
            if not later:
                return
            self.now_s, _, happen, whom = heappop(later)
            happen(whom)
