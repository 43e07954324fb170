"""The fleet's mind: notes what happened, then decides what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from msgspec import UNSET

from millrace.control.budget import Purse
from millrace.control.flight import Flight
from millrace.control.lawful import complaint
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
    Prefilled,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.fleet import Decision, FleetView, Hold, QueueingPolicy, Reject, Route, RoutingPolicy
from millrace.core.request import Request


class Controller:
    """Feed it every event in order; perform every action it answers with.

    Each request that arrived ends exactly once: Finished, Failed after its first token, Cancelled, or
    with a Refuse. Events about requests that have ended are ignored, since a shell may hear late; but a
    shell must not speak of an attempt any more once it said that the attempt Failed, because events name
    the request only. A deadline binds while a request is held; in flight it is its client's to give up.

    A request with nobody in front of it is sent without ever entering a queue. Both policies are asked all
    the same, about it alone: the queueing policy may hold it back by not naming it.
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
        # Found by its type at once: a match would try the kinds of events one after the other.
        self._handlers: dict[type[Event], Callable[[Any, list[Action]], None]] = {
            Arrived: self._arrive,
            Reported: self._report,
            Prefilled: self._hand_over,
            Started: self._start,
            Finished: self._finish,
            Failed: self._fail,
            Cancelled: self._cancel,
            Ticked: self._tick,
        }

    def on(self, event: Event) -> list[Action]:
        """Note the event and return what is to be done now."""
        actions: list[Action] = []
        self._handlers[type(event)](event, actions)
        if self._expiries:
            self._expire(event.now_s, actions)
        return actions

    def next_deadline_s(self) -> float | None:
        """When a Ticked is due next; None while no held request can expire."""
        while self._expiries and not self._still_held(*self._expiries[0]):
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _arrive(self, event: Arrived, actions: list[Action]) -> None:
        request, state = event.request, self.state
        if request.id in state.flights:
            raise ValueError(f"request id {request.id!r} is in flight already; ids must be unique")
        if request.fallbacks:
            request = self._first_choice(request)
        if not state.serves(request.model):
            actions.append(Refuse(request.id, f"the model {request.model!r} does not exist", 404))
        elif request.model in state.held and len(state.held[request.model]) >= self.settings.max_held:
            retry_after_s = self.state.retry_after_s(request, event.now_s)
            actions.append(Refuse(request.id, "the queue is full", 429, retry_after_s))
        else:
            self._hold(state.admit(request, event.request.model), event.now_s, actions)

    def _hand_over(self, event: Prefilled, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is not None and flight.prefill_on is not None:
            self._place_on(self.state.hand_over(flight), event.now_s, actions)

    def _start(self, event: Started, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None or flight.started:
            return
        replica = self.state.start(flight)
        if self.state.held:
            self._place_on(replica, event.now_s, actions)

    def _finish(self, event: Finished, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        replica = self.state.land(flight)
        self.state.finish(flight, event.now_s)
        if self.state.held:
            self._place_on(replica, event.now_s, actions)

    def _fail(self, event: Failed, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        landed = self.state.land(flight)
        replica = landed if event.replica is None else event.replica
        if event.replica_down:
            self.state.lose(replica)
        if flight.started:
            self.state.forget(flight)
        elif not event.retryable or (flight.attempts >= flight.allowed and not self._fall_back(flight)):
            self.state.forget(flight)
            actions.append(Refuse(event.request_id, f"no replica could answer: {event.why}", 502))
        elif not self._may_try_again(event.now_s):
            self.state.forget(flight)
            why = f"no replica could answer: {event.why}; too much was tried again already"
            retry_after_s = self.state.retry_after_s(flight.request, event.now_s)
            actions.append(Refuse(event.request_id, why, 503, retry_after_s))
        else:
            flight.tried |= {replica}
            if flight.request.fallbacks and not self.state.takes(flight.request.model):
                self._fall_back(flight)
            self._hold(flight, event.now_s, actions)
        self._place_on(replica, event.now_s, actions)

    def _cancel(self, event: Cancelled, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None:
            return
        if flight.replica is None:
            self.state.unhold(flight)
            self.state.forget(flight)
            self._place(flight.request.model, event.now_s, actions)
        else:
            replica = self.state.land(flight)
            self.state.forget(flight)
            actions.append(Cancel(event.request_id, replica))
            self._place_on(replica, event.now_s, actions)

    def _report(self, event: Reported, actions: list[Action]) -> None:
        self.state.report(event)
        self._place_on(event.replica, event.now_s, actions)

    def _tick(self, event: Ticked, actions: list[Action]) -> None:
        """Time passed: whatever expired by now is looked at after every event."""

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

    def _hold(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """Send a request, or queue it until it can be sent; if it has to wait, then only until it expires."""
        request = flight.request
        flight.expires_s = now_s + self.settings.max_hold_s
        if request.deadline_s is not None:
            flight.expires_s = min(flight.expires_s, request.deadline_s)
        if request.model in self.state.held or flight.expires_s < now_s:
            self.state.hold(flight)
            self._place(request.model, now_s, actions)
        elif self._place_alone(flight, now_s, actions):
            return
        else:
            self.state.hold(flight)
        if flight.replica is None:
            heappush(self._expiries, (flight.expires_s, request.id))

    def _place_alone(self, flight: Flight, now_s: float, actions: list[Action]) -> bool:
        """Ask about a request with nobody in front of it; return whether it need not be held."""
        request = flight.request
        view = self.state.view(now_s, request.model)
        for chosen in self.queueing.order((request,), view):
            decision = self._decide(flight, chosen, view)
            if isinstance(decision, Hold):
                return False
            self._carry_out(decision, flight, now_s, actions)
            return True
        return False

    def _place_on(self, replica: str, now_s: float, actions: list[Action]) -> None:
        """Ask again about whatever is held for a replica on which something changed."""
        if not self.state.held:
            return
        if self.state.readiness_changed:
            for flight in self.state.turn_stranded():
                self._hold(flight, now_s, actions)
        models = self.state.replicas[replica].spec.models
        for model in [held for held in self.state.held if held in models]:
            self._place(model, now_s, actions)

    def _place(self, model: str, now_s: float, actions: list[Action]) -> None:
        """Send held requests in the order of the queueing policy, until one must be held."""
        while queue := self.state.held.get(model):
            view = self.state.view(now_s, model)
            chosen = next(iter(self.queueing.order((f.request for f in queue.values()), view)), None)
            if chosen is None:
                return
            flight = queue[chosen.id]
            if flight.expires_s < now_s:
                self._expired(flight, now_s, actions)
                continue
            decision = self._decide(flight, chosen, view)
            if isinstance(decision, Hold):
                return
            self.state.unhold(flight)
            self._carry_out(decision, flight, now_s, actions)

    def _decide(self, flight: Flight, chosen: Request, view: FleetView) -> Decision:
        """Ask the routing policy, and check that its answer can be carried out."""
        if flight.tried:
            view = self.state.view(view.now_s, chosen.model, flight.tried)
        decision = self.routing.route(chosen, view)
        if wrong := complaint(decision, chosen, self.state.replicas):
            raise ValueError(f"{type(self.routing).__module__} {wrong}")
        return decision

    def _carry_out(
        self, decision: Route | Reject, flight: Flight, now_s: float, actions: list[Action]
    ) -> None:
        """Send a request that is in no queue, or turn it away."""
        if isinstance(decision, Route):
            request, prefill_on = flight.request, decision.prefill_on
            if prefill_on is None:
                self.state.launch(flight, decision.replica)
            else:
                self.state.launch_apart(flight, decision.replica, prefill_on)
            model = UNSET if request.model == flight.model else request.model
            before = UNSET if prefill_on is None else prefill_on
            actions.append(Dispatch(request.id, decision.replica, flight.attempts, model, before))
        elif self._fall_back(flight):
            self._hold(flight, now_s, actions)
        else:
            self.state.forget(flight)
            actions.append(Refuse(flight.request.id, decision.why, decision.status))

    def _expire(self, now_s: float, actions: list[Action]) -> None:
        while (due_s := self.next_deadline_s()) is not None and due_s <= now_s:
            flight = self.state.flights[heappop(self._expiries)[1]]
            model = flight.request.model
            self._expired(flight, now_s, actions)
            self._place(model, now_s, actions)

    def _expired(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        self.state.unhold(flight)
        request = flight.request
        late = request.deadline_s is not None and request.deadline_s <= now_s
        if not late and self._fall_back(flight):
            self._hold(flight, now_s, actions)
            return
        self.state.forget(flight)
        if late:
            actions.append(Refuse(request.id, "the request's deadline passed while it waited", 504))
        else:
            retry_after_s = self.state.retry_after_s(request, now_s)
            actions.append(Refuse(request.id, "no replica became free in time", 503, retry_after_s))

    def _still_held(self, expires_s: float, request_id: str) -> bool:
        flight = self.state.flights.get(request_id)
        return flight is not None and flight.replica is None and flight.expires_s == expires_s
