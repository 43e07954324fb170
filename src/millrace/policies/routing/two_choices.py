"""Draw two ready replicas and take the one with fewer requests in flight.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Ray Serve's default.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """The draw belongs to (request, seed): the same request draws the same two in both worlds."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if len(able) == 1:
            return Route(able[0].id)
        first = draw_below(len(able), request.id, self.seed, "first")
        second = draw_below(len(able) - 1, request.id, self.seed, "second")
        one, other = able[first], able[second + (second >= first)]  # any but the first
        return Route(one.id if one.in_flight <= other.in_flight else other.id)
