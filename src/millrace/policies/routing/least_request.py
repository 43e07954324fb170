"""Send the request to the replica with the fewest requests in flight.

Counted are requests of this gateway that were sent and have not ended, which is never late; ties are drawn.

Source: AIBrix (e3e10f9) `least-request`, whose gateway counts what it sent as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request
from millrace.core.weighed import Explanation


@dataclass(frozen=True, slots=True)
class Policy:
    """Ties are drawn by request and `seed`."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        in_flight = [r.waiting + r.running for r in able]
        return Route(able[draw_least(in_flight, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell how many requests each replica has."""
        able = fleet.able(request)
        counts = [r.in_flight for r in able]
        terms = {"waiting": [r.waiting for r in able], "running": [r.running for r in able]}
        return explanation("requests in flight, the fewest win", able, counts, totals=counts, terms=terms)
