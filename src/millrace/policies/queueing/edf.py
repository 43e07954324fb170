"""Earliest deadline first: who has least time left for a first token.

The deadline of a request is its own `deadline_s`, or else its TTFT objective after it was held. Requests with
neither come after all others, first come first served.

Best while all can be in time; beyond, it serves those who are late anyway and so makes others late, which
`drop_late` of the queue's settings prevents.

Source: Liu and Layland, Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment (JACM
1973); the edf and slo-deadline ordering of llm-d's router.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from millrace.core.event import Event
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.lines import Lines
from millrace.core.request import Request


def _lines() -> Lines:
    return Lines(lambda held: _due_s(held.request, held.now_s))


@dataclass(slots=True)
class Policy:
    """No settings: deadlines and objectives come with the requests."""

    _lines: Lines = field(init=False, repr=False, compare=False, default_factory=_lines)
    _held_s: dict[str, float] = field(init=False, repr=False, compare=False, default_factory=dict)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda request: _due_s(request, self._held_s.get(request.id)))

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Keep who is held in order, and since when."""
        self._lines.note(fact)
        if isinstance(fact, Held):
            self._held_s[fact.request.id] = fact.now_s
        elif isinstance(fact, Left):
            del self._held_s[fact.request.id]

    def first(self, model: str, fleet: FleetView) -> str | None:
        return self._lines.first(model)


def _due_s(request: Request, held_s: float | None) -> float:
    if request.deadline_s is not None:
        return request.deadline_s
    objective_s = request.slo.ttft_s
    return inf if objective_s is None or held_s is None else held_s + objective_s
