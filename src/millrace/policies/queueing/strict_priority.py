"""The highest priority first, and first come first served among equals.

Nothing is reserved for low priorities here: a share that they always get, and for how long anybody may be
overtaken, are rules of the queue (`bands` and `starvation_s` of its settings), which hold under every policy.

Source: priority scheduling of vLLM and of llm-d's router (flow control, bands of priorities served in order).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millrace.core.event import Event
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.lines import Lines
from millrace.core.request import Request


def _lines() -> Lines:
    return Lines(lambda held: -held.request.priority)


@dataclass(slots=True)
class Policy:
    """No settings: a request's own `priority` counts, larger ones first."""

    _lines: Lines = field(init=False, repr=False, compare=False, default_factory=_lines)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda request: -request.priority)

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Keep who is held in order."""
        self._lines.note(fact)

    def first(self, model: str, fleet: FleetView) -> str | None:
        return self._lines.first(model)
