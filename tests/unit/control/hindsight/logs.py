"""Logs of small fleets, and a policy that is wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from millrace.control import Controller, ControlSettings
from millrace.control.log import entry, header
from millrace.core.event import Arrived, Event, Reported
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes

SPEC = ReplicaSpec(models=("m",), prefill_tokens_per_s=100.0, limits=Limits(step_tokens=10))


def joined(*names: str, spec: ReplicaSpec = SPEC) -> list[Event]:
    """Replicas that compute a hundred tokens a second."""
    return [Reported(0.0, name, "ready", spec) for name in names]


def arrived(now_s: float, id: str, **fields: Any) -> Event:
    """A request of a hundred tokens."""
    return Arrived(now_s, fakes.request(id, **fields))


def log_of(events: Iterable[Event], routing: Any = "least_work", **settings: Any) -> list[bytes]:
    """Return what a controller with these settings writes down."""
    policy = load("routing", routing) if isinstance(routing, str) else routing
    made = Controller(policy, load("queueing", "fcfs"), ControlSettings(**settings))
    return [header(made), *(entry(event, made.on(event)) for event in events)]


@dataclass
class Contrary:
    """Sends to the last replica, and to nobody what it was told was sent before."""

    seen: set[str] = field(init=False, default_factory=set)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able or request.session in self.seen:
            return Hold("seen before")
        return Route(able[-1].id)

    def note(self, fact: Event | Sent) -> None:
        if isinstance(fact, Sent) and fact.request.session is not None:
            self.seen.add(fact.request.session)
