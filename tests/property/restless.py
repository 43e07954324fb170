"""A migration policy that moves requests by a draw, to see whatever a policy may move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from millrace.core.draw import draw_below
from millrace.core.fleet import ANSWERING, FleetView, Shift


@dataclass(frozen=True)
class Restless:
    """Moves one of `one_in` requests each time it is asked, wherever it is and whatever it does, until a
    moment: who is moved again and again before its first token never gets one.
    """

    period_s: float = 0.0531
    one_in: int = 6
    until_s: float = 6.0

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        ready = sorted(r.id for r in fleet.replicas if r.phase == "ready" and r.spec.role in ANSWERING)
        if fleet.now_s > self.until_s:
            return
        moment = round(fleet.now_s / self.period_s)
        for name, flight in list(fleet.flights.items()):
            movable = flight.replica is not None and flight.prefill_on is None and flight.moving_to is None
            others = [one for one in ready if one != flight.replica]
            if movable and others and not draw_below(self.one_in, name, moment):
                yield Shift(name, others[draw_below(len(others), name, moment, "to")])
