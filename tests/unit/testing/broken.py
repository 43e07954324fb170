"""Policies that each break one rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

from msgspec.structs import replace

from millrace.core.fleet import Decision, FleetView, Hold, Reject, Route
from millrace.core.request import Request


def _first(request: Request, fleet: FleetView) -> Decision:
    able = fleet.able(request)
    return Route(able[0].id) if able else Hold("nobody is able")


@dataclass(frozen=True)
class Blind:
    """Never looks whether a replica is ready."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route(fleet.replicas[0].id) if fleet.replicas else Hold("no replica")


@dataclass(frozen=True)
class Silent:
    """Forgets to answer."""

    def route(self, request: Request, fleet: FleetView) -> Any:
        return None


@dataclass(frozen=True)
class Teapot:
    """Rejects with a status that no log may hold."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Reject("short and stout", 418)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Meddler:
    """Writes into what it may only read."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        for replica in fleet.able(request):
            replica.waiting += 1
        return _first(request, fleet)


@dataclass(frozen=True)
class FirstListed:
    """Depends on the order in which replicas are listed."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = {r.id for r in fleet.able(request)}
        return next((Route(r.id) for r in fleet.replicas if r.id in able), Hold("nobody is able"))


@dataclass(frozen=True)
class Clockwork:
    """Depends on the hour."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(able[int(fleet.now_s / 7) % len(able)].id) if able else Hold("nobody is able")


@dataclass
class Fickle:
    """Remembers being asked."""

    asked: Any = field(init=False, default_factory=count)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(able[next(self.asked) % len(able)].id) if able else Hold("nobody is able")


@dataclass
class Hidden:
    """Has a setting that is no field."""

    def __post_init__(self) -> None:
        self.last = False

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(able[-1 if self.last else 0].id) if able else Hold("nobody is able")


@dataclass(frozen=True)
class Endless:
    """Has a setting that a log cannot hold."""

    patience_s: float | None = inf

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return _first(request, fleet)


class Bare:
    """Is no dataclass."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return _first(request, fleet)


@dataclass(frozen=True)
class Stubborn:
    """Sends a request back to where it failed."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = replace(fleet, avoid=frozenset()).able(request)
        return Route(able[0].id) if able else Hold("nobody is able")


@dataclass(frozen=True)
class Forgetful:
    """Orders only the requests of one tenant."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return (r for r in held if r.tenant == "default")


@dataclass(frozen=True)
class Twice:
    """Yields every request twice."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        for request in held:
            yield from (request, request)


@dataclass
class Alternating:
    """Turns the queue around every other time."""

    asked: Any = field(init=False, default_factory=count)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda r: r.id, reverse=next(self.asked) % 2 == 0)
