"""A routing policy that sends, holds and rejects by a draw, to see whatever a policy may do."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, Reject, Route
from millrace.core.request import Request


@dataclass(frozen=True)
class Moody:
    """Its mood changes with what is in flight, so a held request may be sent later."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        mood = draw_below(5, request.id, fleet.routed, sum(r.in_flight for r in able))
        if mood == 0:
            return Reject("not today", 503)
        if mood == 1 or not able:
            return Hold("perhaps later")
        return Route(able[mood % len(able)].id)
