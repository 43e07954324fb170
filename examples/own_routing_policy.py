"""A routing policy in a module of your own: each conversation stays on one replica.

    millrace simulate --trace mooncake_conversation --fleet "4x a100-80g llama-3-8b" \\
        --routing examples.own_routing_policy:Policy,least_work
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """A session's earlier turns are still in its replica's cache. `seed` deals the sessions anew."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if request.session is None:
            return Route(min(able, key=lambda r: r.in_flight).id)
        return Route(max(able, key=lambda r: draw(request.session, r.id, self.seed)).id, why="session")
