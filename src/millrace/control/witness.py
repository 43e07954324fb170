"""Whoever looks on while a controller decides, and changes nothing."""

from __future__ import annotations

from typing import Protocol

from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Sent
from millrace.core.request import Request


class Witness(Protocol):
    """Is told what happens, as a policy that learns is, and what was decided while the view still holds."""

    def note(self, fact: Event | Sent) -> None:
        """Take note of an event, before it is acted upon, or of a request that was sent."""

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Take note of what the routing policy answered about a request in this fleet."""
