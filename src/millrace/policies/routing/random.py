"""Draw a ready replica for each request, whatever they are doing.

The draw belongs to the request, so a log replays, and a request that failed draws anew among the others.

Source: the classic; `random` in SMG (73da68c) and AIBrix (e3e10f9).
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """Another `seed` deals the requests anew."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        return Route(able[draw_below(len(able), request.id, self.seed)].id)
