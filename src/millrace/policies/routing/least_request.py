"""Send the request to the replica with the fewest requests in flight.

Counted are requests of this gateway that were sent and have not ended, which is never late; ties are drawn.

Source: AIBrix (e3e10f9) `least-request`, whose gateway counts what it sent as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


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
