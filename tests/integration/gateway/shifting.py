"""Migration policies that are easy to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from millrace.core.event import Event, Moved
from millrace.core.fleet import FleetView, Sent, Shift


@dataclass
class Restless:
    """Every running request moves to the next replica, so many times."""

    times: int = 1
    period_s: float = 0.01
    moved: Counter[str] = field(default_factory=Counter, init=False)

    def note(self, fact: Event | Sent) -> None:
        if isinstance(fact, Moved):
            self.moved[fact.request_id] += 1

    def rebalance(self, fleet: FleetView) -> Iterator[Shift]:
        names = sorted(replica.id for replica in fleet.replicas)
        for name, flight in fleet.flights.items():
            if flight.started and flight.moving_to is None and self.moved[name] < self.times:
                assert flight.replica is not None
                yield Shift(name, names[(names.index(flight.replica) + 1) % len(names)])


@dataclass
class Queued:
    """Requests without a first token move away from a replica, once."""

    source: str
    target: str
    period_s: float = 0.01
    sent: set[str] = field(default_factory=set, init=False)

    def note(self, fact: Event | Sent) -> None:
        if isinstance(fact, Sent) and fact.moved:
            self.sent.add(fact.request.id)

    def rebalance(self, fleet: FleetView) -> Iterator[Shift]:
        for name, flight in fleet.flights.items():
            if flight.replica == self.source and not flight.started and name not in self.sent:
                yield Shift(name, self.target)
