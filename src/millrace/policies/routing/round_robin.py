"""Take the ready replicas in turn, whatever they are doing.

Source: the classic; the default of nginx and of vLLM production-stack.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """Counts requests sent by the fleet, so the turn survives a replay."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        return Route(able[fleet.routed % len(able)].id)
