"""What an HTTP request waits for: the growing answers to its prompts.

A reader that is slower than the engine finds what it missed merged, so what waits for it is never more
than the rest of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from millrace.engine.errors import ApiError
from millrace.engine.generation import Delta, Generation


class Part(Struct, frozen=True):
    """More of choice number `index`; `finish` says why it ended: "stop", "length", or None if it goes on."""

    index: int
    delta: Delta
    finish: str | None

    def merged(self, earlier: Part | None) -> Part:
        """This part behind an earlier one that nobody has read yet."""
        return self if earlier is None else Part(self.index, earlier.delta + self.delta, self.finish)


class Answer:
    """The sequences that answer one request, one per choice."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self.generations = generations
        self._unread: dict[int, Part] = {}
        self._open = len(generations)
        self._news = asyncio.Event()
        self._error: ApiError | None = None
        self.parted = False

    def push(self, part: Part) -> None:
        """Add to a choice."""
        self._unread[part.index] = part.merged(self._unread.get(part.index))
        self._open -= part.finish is not None
        self._news.set()

    def close(self, error: ApiError | None = None) -> None:
        """End every choice; whoever reads gets the error, if there is one."""
        self._open, self._error = 0, self._error or error
        self._news.set()

    def part_with(self) -> None:
        """End an answer whose rest comes from elsewhere."""
        self.parted = True
        self.close()

    async def parts(self) -> AsyncIterator[list[Part]]:
        """Yield what is new, in lists that belong together, until every choice has ended."""
        while self._open or self._unread:
            await self._news.wait()
            self._news.clear()
            new, self._unread = list(self._unread.values()), {}
            if new:
                yield new
        if self._error:
            raise self._error
