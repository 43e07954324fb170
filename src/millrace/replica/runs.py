"""Free block ids in long runs, so that what is taken together can be copied together.

Source: the block groups of FastSwitch (Shen et al., arXiv:2411.18424).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class FreeRuns:
    """Free ids as maximal runs; each is given from the shortest run that will do, or else the longest."""

    def __init__(self, blocks: int) -> None:
        self._ends: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self.count = 0
        if blocks:
            self._put(0, blocks)

    def __iter__(self) -> Iterator[int]:
        for start, end in self._ends.items():
            yield from range(start, end)

    def take(self, blocks: int) -> list[int]:
        """Take so many of the free blocks, of which there are enough, in few runs."""
        taken: list[int] = []
        while len(taken) < blocks:
            left = blocks - len(taken)
            start = self._best(left)
            end = self._ends[start]
            stop = min(end, start + left)
            self._cut(start, start, stop)
            taken += range(start, stop)
        return taken

    def take_after(self, block: int) -> int:
        """Take the block behind this one if it is free, or else one with as much room behind it as can be."""
        wanted = block + 1
        for start, end in self._ends.items():
            if start <= wanted < end:
                self._cut(start, wanted, wanted + 1)
                return wanted
        start = self._best(self.count)
        middle = (start + self._ends[start]) // 2
        self._cut(start, middle, middle + 1)
        return middle

    def give(self, blocks: Iterable[int]) -> None:
        """Give back blocks; runs that touch become one."""
        for start, end in runs_of(sorted(blocks)):
            low, high = self._starts.get(start, start), self._ends.get(end, end)
            if low < start:
                self._drop(low)
            if high > end:
                self._drop(end)
            self._put(low, high)

    def _best(self, blocks: int) -> int:
        """The start of the shortest run that holds so many, or else of the longest, the lowest of equals."""
        lengths = [(end - start, start) for start, end in self._ends.items()]
        fitting = [one for one in lengths if one[0] >= blocks]
        return min(fitting)[1] if fitting else max(lengths)[1]

    def _cut(self, start: int, low: int, high: int) -> None:
        end = self._ends[start]
        self._drop(start)
        if start < low:
            self._put(start, low)
        if high < end:
            self._put(high, end)

    def _put(self, start: int, end: int) -> None:
        self._ends[start], self._starts[end] = end, start
        self.count += end - start

    def _drop(self, start: int) -> None:
        end = self._ends.pop(start)
        del self._starts[end]
        self.count -= end - start


def runs_of(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive ids, in order, as (start, end)."""
    found: list[tuple[int, int]] = []
    for block in blocks:
        if found and found[-1][1] == block:
            found[-1] = found[-1][0], block + 1
        else:
            found.append((block, block + 1))
    return found


def copies(pairs: Iterable[tuple[int, int]]) -> int:
    """Return how many copies of consecutive blocks to consecutive blocks the pairs take."""
    count, before = 0, (-2, -2)
    for source, target in pairs:
        count += (source, target) != (before[0] + 1, before[1] + 1)
        before = source, target
    return count
