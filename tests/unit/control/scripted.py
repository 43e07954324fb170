"""Small fleets to speak to, and policies that do one simple thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from millrace.control import Controller, ControlSettings
from millrace.core.event import Action, Arrived, Event, Reported
from millrace.core.fleet import Decision, FleetView, Hold, QueueingPolicy, Reject, Route, RoutingPolicy
from millrace.core.replica import Phase, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes


def controller_of(
    *ready: str,
    routing: RoutingPolicy | str = "least_work",
    queueing: QueueingPolicy | None = None,
    **settings: Any,
) -> Controller:
    """Return a controller whose fleet is these ready replicas of model "m"."""
    policy = load("routing", routing) if isinstance(routing, str) else routing
    made = Controller(policy, queueing or load("queueing", "fcfs"), ControlSettings(**settings))
    for name in ready:
        join(made, name)
    return made


def join(controller: Controller, replica: str, phase: Phase = "ready", *models: str) -> list[Action]:
    """Let a replica of these models (of "m", if none is named) join at time 0."""
    return controller.on(Reported(0.0, replica, phase, ReplicaSpec(models=models or ("m",))))


def arrive(controller: Controller, id: str, now_s: float = 0.0, **fields: Any) -> list[Action]:
    """Let a request of 100 prompt tokens for model "m" arrive."""
    return controller.on(Arrived(now_s, fakes.request(id, **fields)))


def play(controller: Controller, *events: Event) -> list[Action]:
    """Let several things happen; return everything that is to be done."""
    return [action for event in events for action in controller.on(event)]


def counts(controller: Controller, replica: str) -> tuple[int, int, int, int]:
    """Return waiting, running, queued tokens and context tokens of a replica."""
    view = controller.state.replicas[replica]
    return view.waiting, view.running, view.queued_tokens, view.context_tokens


@dataclass(frozen=True)
class Capped:
    """Holds while every able replica has `most` requests waiting for their first token."""

    most: int = 1

    def route(self, request: Request, fleet: FleetView) -> Decision:
        free = [r for r in fleet.able(request) if r.waiting < self.most]
        return Route(free[0].id) if free else Hold("everybody is busy")


@dataclass(frozen=True)
class Picky:
    """Holds long prompts for ever and sends the others to anybody."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(able[0].id) if able and request.prompt_tokens <= 100 else Hold("too long")


@dataclass(frozen=True)
class Insists:
    """Always chooses the same replica."""

    replica: str

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route(self.replica)


@dataclass(frozen=True)
class Mute:
    """Forgets to answer."""

    def route(self, request: Request, fleet: FleetView) -> Any:
        return None


@dataclass(frozen=True)
class Sheds:
    """Rejects everything."""

    status: Literal[400, 404, 429, 503] = 429

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Reject("over budget", self.status)


@dataclass(frozen=True)
class Urgent:
    """Puts the highest priority first."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda r: -r.priority)


@dataclass(frozen=True)
class Shy:
    """Puts nobody forward."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return ()
