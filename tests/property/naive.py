"""Routing policies that do what none should, to see that it is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request


@dataclass(frozen=True)
class TakesUnknownForIdle:
    """Sends to the one that reported the fewest running requests; none reported are none running."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        running = [(r.report and r.report.running) or 0 for r in able]
        return Route(able[draw_least(running, request.id)].id) if able else Hold("no ready replica")


@dataclass(frozen=True)
class TakesTheFirst:
    """Sends everything to the same replica."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(able[0].id) if able else Hold("no ready replica")
