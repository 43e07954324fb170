"""Ids in the order of their ranks, of which the first is always at hand."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any


class Ranked:
    """A heap from which anything can be taken: entering, leaving and looking cost O(log n) each.

    Ranks are whatever can be compared; equal ones are told apart by the ids, so rank with an arrival's number
    at the end. What left stays in the heap until it comes to the top, or until it is half of it.
    """

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._ranks: dict[str, Any] = {}
        self._heap: list[tuple[Any, str]] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, id: object) -> bool:
        return id in self._ranks

    def put(self, id: str, rank: Any) -> None:
        """Let an id enter with this rank, or change it."""
        self._ranks[id] = rank
        heappush(self._heap, (rank, id))
        self._tidy()

    def discard(self, id: str) -> None:
        """Let an id leave, if it is there."""
        if self._ranks.pop(id, None) is not None:
            self._tidy()

    def first(self) -> str | None:
        """Return the id of the lowest rank; None if there are none."""
        return self._heap[0][1] if self._heap else None

    def first_rank(self) -> Any:
        """Return the lowest rank; None if there are none."""
        return self._heap[0][0] if self._heap else None

    def _tidy(self) -> None:
        """See that the top is there, and that less than half of the heap is not."""
        heap, ranks = self._heap, self._ranks
        if len(heap) > 2 * len(ranks) + 8:
            heap[:] = [(rank, name) for name, rank in ranks.items()]
            heapify(heap)
        while heap and ranks.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
