"""Keep every session on one replica, where its earlier turns are still in the cache.

Replicas are ranked by rendezvous hashing of the session, so gateways agree without a table of sessions, and
a replica that leaves moves only its own. A request of no session goes to the replica with the fewest
requests in flight. There is no bound on load: one busy session stays where it is.

Source: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates", 1998 (rendezvous);
AIBrix (e3e10f9) `session-affinity` and the `session` router of vLLM production-stack (a6c01db), which keep
replicas by cookie and on a ring, and turn to others than the least loaded without a session.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_each, draw_least
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """Another `seed` deals the sessions anew."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if request.session is None:
            in_flight = [r.waiting + r.running for r in able]
            return Route(able[draw_least(in_flight, request.id, self.seed)].id)
        draws = draw_each(request.session, [r.id for r in able], self.seed)
        return Route(able[draws.index(max(draws))].id)
