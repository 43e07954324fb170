"""The fleet's mind: notes what happened, then decides what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import assert_never

from millrace.control.flight import Flight
from millrace.control.settings import ControlSettings
from millrace.control.state import State
from millrace.core.event import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.fleet import Hold, QueueingPolicy, Reject, Route, RoutingPolicy

RETRY_AFTER_S = (1.0, 120.0)  # clients refuse to wait longer than two minutes


class Controller:
    """Feed it every event in order; perform every action it answers with.

    Each request that arrived ends exactly once: Finished, Failed after its first token, Cancelled, or
    with a Refuse. Events about requests that have ended are ignored, since a shell may hear late.
    """

    def __init__(
        self,
        routing: RoutingPolicy,
        queueing: QueueingPolicy,
        settings: ControlSettings | None = None,
    ) -> None:
        self.routing = routing
        self.queueing = queueing
        self.settings = settings or ControlSettings()
        self.state = State(self.settings)
        self._expiries: list[tuple[float, str]] = []

    def on(self, event: Event) -> list[Action]:
        """Note the event and return what is to be done now."""
        return [*self._note(event), *self._expire(event.now_s)]

    def next_deadline_s(self) -> float | None:
        """When a Ticked is due next; None while no held request can expire."""
        while self._expiries and not self._still_held(*self._expiries[0]):
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _note(self, event: Event) -> Iterator[Action]:
        match event:
            case Arrived():
                yield from self._arrive(event)
            case Reported():
                self.state.report(event)
                yield from self._place_all(event.now_s, event.replica)
            case Started():
                self._start(event)
            case Finished():
                yield from self._finish(event)
            case Failed():
                yield from self._fail(event)
            case Cancelled():
                yield from self._cancel(event)
            case Ticked():
                pass
            case _:
                assert_never(event)

    def _arrive(self, event: Arrived) -> Iterator[Action]:
        request, state = event.request, self.state
        if request.id in state.flights:
            raise ValueError(f"request id {request.id!r} is in flight already; ids must be unique")
        if not state.serves(request.model):
            yield Refuse(request.id, f"the model {request.model!r} does not exist", 404)
            return
        if len(state.held.get(request.model, ())) >= self.settings.max_held:
            yield Refuse(request.id, "the queue is full", 429, self._retry_after_s(event))
            return
        patience_s = event.now_s + self.settings.max_hold_s
        deadline_s = patience_s if request.deadline_s is None else request.deadline_s
        flight = Flight(request, min(patience_s, deadline_s))
        state.flights[request.id] = flight
        state.hold(flight)
        yield from self._place(request.model, event.now_s)
        if flight.replica is None:
            heappush(self._expiries, (flight.expires_s, request.id))

    def _start(self, event: Started) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is not None and flight.replica is not None and not flight.started:
            self.state.start(flight)

    def _finish(self, event: Finished) -> Iterator[Action]:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        self._end(flight)
        self.state.finish(flight.request.model, event.now_s)
        yield from self._place(flight.request.model, event.now_s)

    def _fail(self, event: Failed) -> Iterator[Action]:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        replica = self.state.land(flight)
        if event.replica_down:
            self.state.lose(replica)
        if flight.started:
            del self.state.flights[flight.request.id]
        elif event.retryable and flight.attempts < self.settings.max_attempts:
            flight.tried |= {replica}
            self.state.hold(flight, first=True)
            heappush(self._expiries, (flight.expires_s, flight.request.id))
        else:
            del self.state.flights[flight.request.id]
            yield Refuse(flight.request.id, f"no replica could answer: {event.why}", 502)
        yield from self._place(flight.request.model, event.now_s)

    def _cancel(self, event: Cancelled) -> Iterator[Action]:
        flight = self.state.flights.get(event.request_id)
        if flight is None:
            return
        replica = self._end(flight)
        if replica is not None:
            yield Cancel(event.request_id, replica)
            yield from self._place(flight.request.model, event.now_s)

    def _place_all(self, now_s: float, replica: str) -> Iterator[Action]:
        for model in [m for m in self.state.held if m in self.state.replicas[replica].spec.models]:
            yield from self._place(model, now_s)

    def _place(self, model: str, now_s: float) -> Iterator[Action]:
        """Send held requests in the order of the queueing policy, until one must be held."""
        while queue := self.state.held.get(model):
            view = self.state.view(now_s)
            chosen = next(iter(self.queueing.order((f.request for f in queue.values()), view)), None)
            if chosen is None:
                return
            flight = queue[chosen.id]
            match self.routing.route(chosen, self.state.view(now_s, flight.tried) if flight.tried else view):
                case Route(replica):
                    self._launch(flight, replica)
                    yield Dispatch(chosen.id, replica, flight.attempts)
                case Reject(why, status):
                    self._end(flight)
                    yield Refuse(chosen.id, why, status)
                case Hold():
                    return

    def _launch(self, flight: Flight, replica: str) -> None:
        known = self.state.replicas.get(replica)
        if known is None or known.phase != "ready":
            raise ValueError(f"{type(self.routing).__module__} chose replica {replica!r}, which is not ready")
        self.state.unhold(flight)
        self.state.launch(flight, replica)

    def _expire(self, now_s: float) -> Iterator[Action]:
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            flight = self.state.flights[heappop(self._expiries)[1]]
            self._end(flight)
            yield self._expired(flight, now_s)

    def _expired(self, flight: Flight, now_s: float) -> Refuse:
        request = flight.request
        if request.deadline_s is not None and request.deadline_s <= now_s:
            return Refuse(request.id, "the request's deadline passed while it waited", 504)
        drain_s = self.state.drain_s(request, now_s)
        return Refuse(request.id, "no replica became free in time", 503, _clamped(drain_s))

    def _retry_after_s(self, event: Arrived) -> float:
        return _clamped(self.state.drain_s(event.request, event.now_s))

    def _end(self, flight: Flight) -> str | None:
        """Forget a request; return the replica that worked on it, if any."""
        del self.state.flights[flight.request.id]
        if flight.replica is not None:
            return self.state.land(flight)
        self.state.unhold(flight)
        return None

    def _still_held(self, expires_s: float, request_id: str) -> bool:
        flight = self.state.flights.get(request_id)
        return flight is not None and flight.replica is None and flight.expires_s == expires_s


def _clamped(seconds: float) -> float:
    low_s, high_s = RETRY_AFTER_S
    return max(low_s, min(high_s, seconds))
