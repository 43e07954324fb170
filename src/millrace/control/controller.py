"""The fleet's mind: notes what happened, then decides what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import assert_never

from msgspec import UNSET

from millrace.control.budget import Purse
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
from millrace.core.request import Request

RETRY_AFTER_S = (1.0, 120.0)  # clients refuse to wait longer than two minutes


class Controller:
    """Feed it every event in order; perform every action it answers with.

    Each request that arrived ends exactly once: Finished, Failed after its first token, Cancelled, or
    with a Refuse. Events about requests that have ended are ignored, since a shell may hear late; but a
    shell must not speak of an attempt any more once it said that the attempt Failed, because events name
    the request only. A deadline binds while a request is held; in flight it is its client's to give up.
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
        budget = self.settings.retry_budget
        self._purse = None if budget is UNSET else Purse(budget)
        self._expiries: list[tuple[float, str]] = []

    def on(self, event: Event) -> list[Action]:
        """Note the event and return what is to be done now."""
        actions = list(self._note(event))
        if self._expiries:
            actions += self._expire(event.now_s)
        return actions

    def next_deadline_s(self) -> float | None:
        """When a Ticked is due next; None while no held request can expire."""
        while self._expiries and not self._still_held(*self._expiries[0]):
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _note(self, event: Event) -> Iterable[Action]:
        match event:
            case Arrived():
                return self._arrive(event)
            case Started():
                return self._start(event)
            case Finished():
                return self._finish(event)
            case Failed():
                return self._fail(event)
            case Cancelled():
                return self._cancel(event)
            case Reported():
                self.state.report(event)
                return self._place_on(event.replica, event.now_s)
            case Ticked():
                return ()
            case _:
                assert_never(event)

    def _arrive(self, event: Arrived) -> Iterator[Action]:
        request, state = event.request, self.state
        if request.id in state.flights:
            raise ValueError(f"request id {request.id!r} is in flight already; ids must be unique")
        if request.fallbacks:
            request = self._first_choice(request)
        if not state.serves(request.model):
            yield Refuse(request.id, f"the model {request.model!r} does not exist", 404)
        elif len(state.held.get(request.model, ())) >= self.settings.max_held:
            yield Refuse(request.id, "the queue is full", 429, self._retry_after_s(request, event.now_s))
        else:
            flight = state.admit(event.request)
            flight.request = request
            yield from self._hold(flight, event.now_s)

    def _start(self, event: Started) -> Iterable[Action]:
        flight = self._sent(event.request_id)
        if flight is None or flight.started:
            return ()
        return self._place_on(self.state.start(flight), event.now_s)

    def _finish(self, event: Finished) -> Iterable[Action]:
        flight = self._sent(event.request_id)
        if flight is None:
            return ()
        replica = self.state.land(flight)
        self.state.forget(flight)
        self.state.finish(flight.request.model, event.now_s)
        return self._place_on(replica, event.now_s)

    def _fail(self, event: Failed) -> Iterator[Action]:
        flight = self._sent(event.request_id)
        if flight is None:
            return
        replica = self.state.land(flight)
        if event.replica_down:
            self.state.lose(replica)
        if flight.started:
            self.state.forget(flight)
        elif not event.retryable or (flight.attempts >= flight.allowed and not self._fall_back(flight)):
            self.state.forget(flight)
            yield Refuse(event.request_id, f"no replica could answer: {event.why}", 502)
        elif not self._may_try_again(event.now_s):
            self.state.forget(flight)
            why = f"no replica could answer: {event.why}; too much was tried again already"
            yield Refuse(event.request_id, why, 503, self._retry_after_s(flight.request, event.now_s))
        else:
            flight.tried |= {replica}
            if flight.request.fallbacks and not self.state.takes(flight.request.model):
                self._fall_back(flight)
            yield from self._hold(flight, event.now_s)
        yield from self._place_on(replica, event.now_s)

    def _may_try_again(self, now_s: float) -> bool:
        state = self.state
        return self._purse is None or self._purse.take(
            now_s, arrivals=state.arrivals, in_flight=len(state.flights)
        )

    def _first_choice(self, request: Request) -> Request:
        """Return the request as it is for the first of its models that takes it, else for one that exists."""
        if self.state.takes(request.model):
            return request
        choices = [request, *request.alternatives()]
        taken = (choice for choice in choices if self.state.takes(choice.model))
        known = (choice for choice in choices if self.state.serves(choice.model))
        return next(taken, None) or next(known, request)

    def _fall_back(self, flight: Flight) -> bool:
        """Turn to the next fallback that takes the request, if there is one."""
        for choice in flight.request.alternatives():
            if self.state.takes(choice.model):
                self.state.turn(flight, choice)
                return True
        return False

    def _cancel(self, event: Cancelled) -> Iterator[Action]:
        flight = self.state.flights.get(event.request_id)
        if flight is None:
            return
        if flight.replica is None:
            self._drop(flight)
            yield from self._place(flight.request.model, event.now_s)
        else:
            replica = self.state.land(flight)
            self.state.forget(flight)
            yield Cancel(event.request_id, replica)
            yield from self._place_on(replica, event.now_s)

    def _hold(self, flight: Flight, now_s: float) -> Iterator[Action]:
        """Queue a request and try to place it; if it has to wait, then only until it expires."""
        deadline_s = flight.request.deadline_s
        flight.expires_s = min(now_s + self.settings.max_hold_s, inf if deadline_s is None else deadline_s)
        self.state.hold(flight)
        yield from self._place(flight.request.model, now_s)
        if flight.replica is None:
            heappush(self._expiries, (flight.expires_s, flight.request.id))

    def _place_on(self, replica: str, now_s: float) -> Iterator[Action]:
        """Ask again about whatever is held for a replica on which something changed."""
        if not self.state.held:
            return
        models = self.state.replicas[replica].spec.models
        for model in [held for held in self.state.held if held in models]:
            yield from self._place(model, now_s)

    def _place(self, model: str, now_s: float) -> Iterator[Action]:
        """Send held requests in the order of the queueing policy, until one must be held."""
        while queue := self.state.held.get(model):
            view = self.state.view(now_s, model)
            chosen = next(iter(self.queueing.order((f.request for f in queue.values()), view)), None)
            if chosen is None:
                return
            flight = queue[chosen.id]
            if flight.expires_s < now_s:
                yield from self._expired(flight, now_s)
                continue
            if flight.tried:
                view = self.state.view(now_s, model, flight.tried)
            match decision := self.routing.route(chosen, view):
                case Route(replica):
                    yield self._launch(flight, replica)
                case Reject(why, status):
                    self.state.unhold(flight)
                    if self._fall_back(flight):
                        yield from self._hold(flight, now_s)
                    else:
                        self.state.forget(flight)
                        yield Refuse(chosen.id, why, status)
                case Hold():
                    return
                case _:
                    raise ValueError(f"{self._policy} answered {decision!r}; it must Route, Hold or Reject")

    def _launch(self, flight: Flight, replica: str) -> Dispatch:
        known, request = self.state.replicas.get(replica), flight.request
        if known is None or known.phase != "ready" or request.model not in known.spec.models:
            raise ValueError(
                f"{self._policy} chose {replica!r}, which is no ready replica of {request.model!r}"
            )
        self.state.unhold(flight)
        self.state.launch(flight, replica)
        model = UNSET if request.model == flight.model else request.model
        return Dispatch(request.id, replica, flight.attempts, model)

    def _expire(self, now_s: float) -> Iterator[Action]:
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            flight = self.state.flights[heappop(self._expiries)[1]]
            model = flight.request.model
            yield from self._expired(flight, now_s)
            yield from self._place(model, now_s)

    def _expired(self, flight: Flight, now_s: float) -> Iterator[Action]:
        self.state.unhold(flight)
        request = flight.request
        late = request.deadline_s is not None and request.deadline_s <= now_s
        if not late and self._fall_back(flight):
            yield from self._hold(flight, now_s)
            return
        self.state.forget(flight)
        if late:
            yield Refuse(request.id, "the request's deadline passed while it waited", 504)
        else:
            retry_after_s = self._retry_after_s(request, now_s)
            yield Refuse(request.id, "no replica became free in time", 503, retry_after_s)

    def _retry_after_s(self, request: Request, now_s: float) -> float:
        low_s, high_s = RETRY_AFTER_S
        return max(low_s, min(high_s, self.state.drain_s(request, now_s)))

    @property
    def _policy(self) -> str:
        return type(self.routing).__module__

    def _sent(self, request_id: str) -> Flight | None:
        """Return the request if a replica is working on it."""
        flight = self.state.flights.get(request_id)
        return flight if flight is not None and flight.replica is not None else None

    def _drop(self, flight: Flight) -> None:
        """Forget a held request."""
        self.state.unhold(flight)
        self.state.forget(flight)

    def _still_held(self, expires_s: float, request_id: str) -> bool:
        flight = self.state.flights.get(request_id)
        return flight is not None and flight.replica is None and flight.expires_s == expires_s
