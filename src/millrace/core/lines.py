"""Held requests in one line per model, by a rank that each has from when it is held until it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millrace.core.event import Event
from millrace.core.fleet import Held, Left, Sent
from millrace.core.ranked import Ranked


class Lines:
    """Listens for who is held and who leaves; of equal ranks, the first to come is in front."""

    __slots__ = ("_lines", "_rank")

    def __init__(self, rank: Callable[[Held], Any]) -> None:
        self._rank = rank
        self._lines: dict[str, Ranked] = {}

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Let a request enter its model's line, or leave it; nothing else matters here."""
        if isinstance(fact, Held):
            line = self._lines.setdefault(fact.request.model, Ranked())
            line.put(fact.request.id, (self._rank(fact), fact.number))
        elif isinstance(fact, Left):
            line = self._lines[fact.request.model]
            line.discard(fact.request.id)
            if not line:
                del self._lines[fact.request.model]

    def first(self, model: str) -> str | None:
        """Return the id of who is first in a model's line; None if nobody is held for it."""
        line = self._lines.get(model)
        return None if line is None else line.first()
