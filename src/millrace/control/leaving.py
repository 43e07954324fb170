"""Answers leave a replica that drains: from time to time, each by the way that is soonest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf

from msgspec import UNSET

from millrace.control.flight import Flight
from millrace.control.state import State
from millrace.core.event import Move
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.ways import Assumed, Way, Ways, context_bytes, soonest, told

MOST_AT_ONCE = 16  # answers that are looked at before anything else may happen
PAUSE_S = 0.001


class Leaving:
    """`due_s` is when to look again at whoever is on a replica that drains; infinite while none does."""

    def __init__(self, assumed: Assumed, state: State) -> None:
        self.due_s = inf
        self._ways = Ways(assumed)
        self._state = state
        self._left_to_ask: deque[str] = deque()
        self._draining: set[str] = set()

    def begin(self, replica: str, now_s: float) -> None:
        """A replica drains, as it says, perhaps for the first time."""
        if replica not in self._draining:
            self.due_s = now_s

    def turn(self, now_s: float) -> Iterator[tuple[Flight, Move]]:
        """Book who leaves now, and yield each once it is booked."""
        asking, state = self._left_to_ask, self._state
        phases = ((name, one) for name, one in state.replicas.items() if one.phase == "draining")
        draining = self._draining = {name for name, one in phases if one.in_flight}
        if not asking:
            asking.extend(name for name, one in state.flights.items() if one.replica in draining)
        ahead_bytes: dict[str, float] = {}
        waiting: dict[str, list[Flight]] = {}
        for _ in range(min(MOST_AT_ONCE, len(asking))):
            flight = state.flights.get(asking.popleft())
            if flight is None or flight.replica not in draining:
                continue
            if flight.prefill_on is not None or flight.moving_to is not None:
                continue
            source = state.replicas[flight.replica]
            if source.id not in waiting:
                there = [one for one in state.flights.values() if one.replica == source.id]
                waiting[source.id] = [one for one in there if not one.started]
                ahead_bytes[source.id] = _bytes_under_way(there, source, now_s)
            if move := self._leave(flight, source, now_s, waiting[source.id], ahead_bytes):
                yield flight, move
        self.due_s = now_s + PAUSE_S if asking else now_s + self._ways.assumed.period_s if draining else inf

    def _leave(
        self,
        flight: Flight,
        source: ReplicaView,
        now_s: float,
        waiting: list[Flight],
        ahead_bytes: dict[str, float],
    ) -> Move | None:
        """Book the soonest way, None if that is to stay. Who was `waiting` there may have left meanwhile."""
        request, state = flight.request, self._state
        view = state.view(now_s, request.model, flight.tried)
        ways = self._ways.on(
            flight,
            source,
            self._targets(flight, view),
            view,
            waiting=waiting,
            ahead_bytes=ahead_bytes[source.id],
            barred=flight.failed,
        )
        way = soonest(ways)
        if way.kind == "stay":
            return None
        replays = flight.started and way.kind == "replay"
        if not flight.started:
            state.shift(flight, way.replica, now_s)
        else:
            if not replays:
                ahead_bytes[source.id] += context_bytes(flight, source, now_s) or 0.0
            state.set_out(flight, way.replica, replays=replays)
        return _move(flight, source, way, ways)

    def _targets(self, flight: Flight, view: FleetView) -> list[ReplicaView]:
        """Return who else may answer, and has no more than may wait or be there at all."""
        limits = self._state.settings
        waiting = inf if limits.max_waiting is UNSET else limits.max_waiting
        there = inf if limits.max_in_flight is UNSET else limits.max_in_flight
        return [
            one
            for one in view.able(flight.request)
            if one.id != flight.replica and one.waiting < waiting and _expected(one) < there
        ]


def _bytes_under_way(there: list[Flight], source: ReplicaView, now_s: float) -> float:
    moving = (one for one in there if one.moving_to and not one.replays)
    return sum(context_bytes(one, source, now_s) or 0.0 for one in moving)


def _expected(target: ReplicaView) -> int:
    """Count the requests there; whoever is on the way, and shows by its tokens only, as one."""
    return target.in_flight + (target.coming_tokens > 0)


def _move(flight: Flight, source: ReplicaView, way: Way, ways: list[Way]) -> Move:
    return Move(
        flight.request.id,
        source.id,
        way.replica,
        running=flight.moving_to is not None,
        replayed=flight.replays,
        reasons=told(way, ways),
    )
