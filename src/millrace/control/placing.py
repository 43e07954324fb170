"""Where requests go: ask the policies, send or hold what they say, refuse what was held for too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf

from msgspec import UNSET, UnsetType

from millrace.control.expiry import Expiries
from millrace.control.flight import Flight
from millrace.control.gate import Gate, too_late
from millrace.control.held import Queue
from millrace.control.lawful import complaint
from millrace.control.refusals import ABANDONED, EXPIRED, OVERDUE, SATURATED, Why
from millrace.control.state import State
from millrace.control.turns import Turns
from millrace.control.witness import Witness
from millrace.core.event import Action, Dispatch, Event, Reason, Refuse
from millrace.core.explanation import reasons
from millrace.core.fleet import (
    Decision,
    FleetView,
    Hold,
    QueueingPolicy,
    Reject,
    Route,
    RoutingPolicy,
    Sent,
)
from millrace.core.request import Request
from millrace.core.weighed import Explanation


class Placer:
    """Consults a routing and a queueing policy; `learners` are told what was sent."""

    def __init__(
        self,
        routing: RoutingPolicy,
        queueing: QueueingPolicy,
        state: State,
        learners: Sequence[Callable[[Event | Sent], None]],
        *,
        witness: Witness | None = None,
    ) -> None:
        self.routing = routing
        self.queueing = queueing
        self.state = state
        self.settings = state.settings
        self.expiries = Expiries(state.flights)
        self.gate = Gate(state.settings)
        self._turns = Turns(queueing, state.held)
        self._to_place: deque[str] = deque()
        self._learners = learners
        self._witness = witness

    def may_go_on(self, flight: Flight) -> bool:
        """Whether a request that failed may be tried once more, if need be as one for its next fallback."""
        return flight.attempts < flight.allowed or self.fall_back(flight)

    def fall_back(self, flight: Flight) -> bool:
        """Turn to the next fallback that takes the request, if there is one."""
        for choice in flight.request.alternatives():
            if self.state.takes(choice):
                self.state.turn(flight, choice)
                return True
        return False

    def accept(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """Send or hold a request that comes, unless it may be shed, and its model has no room for it."""
        request = flight.request
        if request.priority < 0 and self.gate.sheds(request, self.state.view(now_s, request.model)):
            self._give_up(flight, SATURATED, now_s, actions)
        else:
            self.hold(flight, now_s, actions)

    def hold(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """Send a request, or queue it until it can be sent; if it has to wait, then only until it expires."""
        request, held = flight.request, self.state.held
        flight.expires_s = flight.held_until_s = now_s + held.patience_s(request)
        if request.deadline_s is not None:
            flight.expires_s = min(flight.expires_s, request.deadline_s)
        if request.model in held or flight.expires_s < now_s:
            held.hold(flight, now_s)
            self.place(request.model, now_s, actions)
        elif self._place_alone(flight, now_s, actions):
            return
        else:
            held.hold(flight, now_s)
        if flight.replica is None:
            self._wait(flight, now_s, actions)

    def _wait(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """See that a held request is looked at when it expires, or as soon as no replica could be in time."""
        foresight, queue = self.gate.foresight, self.state.held.get(flight.request.model)
        if foresight is not None and queue is not None and flight.request.id in queue:
            view = self.state.view(now_s, flight.request.model)
            latest_s = foresight.latest_s(flight, view)
            if latest_s < inf and now_s + self._held_s(queue, flight, latest_s, view) > latest_s:
                self._give_up(flight, too_late(flight), now_s, actions)
                return
            flight.expires_s = min(flight.expires_s, latest_s)
        self.expiries.add(flight)

    def _held_s(self, queue: Queue, flight: Flight, latest_s: float, view: FleetView) -> float:
        """Predict how long a request is held yet, as far as it matters; 0 if that is not known."""
        each_s = queue.drain_s(1, view.now_s)
        if each_s is None or self._turns.keeps_order:
            return 0.0
        most = int(max(0.0, min((latest_s - view.now_s) / each_s, len(queue)))) + 1
        requests = (other.request for other in queue.values())
        front = [one.id for one in islice(self.queueing.order(requests, view), most)]
        return each_s * (front.index(flight.request.id) if flight.request.id in front else most)

    def _place_alone(self, flight: Flight, now_s: float, actions: list[Action]) -> bool:
        """Ask about a request with nobody in front of it; return whether it need not be held."""
        request = flight.request
        view = self.state.view(now_s, request.model)
        for chosen in self.queueing.order((request,), view):
            decision = self._decide(flight, chosen, view)
            if isinstance(decision, Hold):
                return False
            self._carry_out(decision, flight, view, actions)
            return True
        return False

    def place_on(self, replica: str, now_s: float, actions: list[Action]) -> None:
        """Ask again about whatever is held for a replica on which something changed."""
        if not self.state.held:
            return
        if self.state.readiness_changed:
            for flight in self.state.turn_stranded(now_s):
                self.hold(flight, now_s, actions)
        models, held = self.state.replicas[replica].spec.models, self.state.held
        waiting = [model for model in held if model in models]
        if len(waiting) > 1 and self.settings.queue is not UNSET:
            waiting.sort(key=lambda model: held[model].oldest().number)
        for model in waiting:
            self.place(model, now_s, actions)

    def place(self, model: str, now_s: float, actions: list[Action]) -> None:
        """Send held requests, each when it is its turn, until one must be held.

        Who turns to a fallback on the way there is looked at afterwards: each might turn the next one.
        """
        if model in self._to_place:
            return
        self._to_place.append(model)
        if len(self._to_place) > 1:
            return
        try:
            while self._to_place:
                self._place(self._to_place[0], now_s, actions)
                self._to_place.popleft()
        finally:
            self._to_place.clear()

    def _place(self, model: str, now_s: float, actions: list[Action]) -> None:
        held = self.state.held
        while queue := held.get(model):
            view = self.state.view(now_s, model)
            if self.gate.counts and self.gate.is_closed(view.ready_for(model)):
                return
            flight = self._turns.next(queue, model, view)
            if flight is None:
                return
            if flight.expires_s < now_s:
                self._expired(flight, now_s, actions)
                continue
            decision = self._decide(flight, flight.request, view)
            if isinstance(decision, Hold):
                return
            if isinstance(decision, Route):
                self._turns.sent(queue, held.band_of(flight.request))
            held.release(flight, now_s)
            self._carry_out(decision, flight, view, actions)

    def _decide(self, flight: Flight, chosen: Request, view: FleetView) -> Decision | Why:
        """Ask the routing policy, and check that its answer can be carried out; unless the gate is closed."""
        gate, avoid = self.gate, flight.tried
        if gate.watches and (stopped := gate.stops(flight, view)):
            return stopped
        if gate.counts and (full := gate.full(ready := view.ready_for(chosen.model))):
            room = {one.id for one in ready} - full
            if not room:
                return Hold("at every replica as many wait as may")
            avoid = full | avoid if room - avoid else full
        if avoid:
            view = self.state.view(view.now_s, chosen.model, avoid)
        decision = self.routing.route(chosen, view)
        if wrong := complaint(decision, chosen, self.state.replicas):
            raise ValueError(f"{type(self.routing).__module__} {wrong}")
        if self._witness is not None:
            self._witness.decided(chosen, view, decision)
        return decision

    def _carry_out(
        self, decision: Route | Reject | Why, flight: Flight, view: FleetView, actions: list[Action]
    ) -> None:
        """Send a request that is in no queue, or turn it away; the view is as the policy saw it."""
        now_s = view.now_s
        if isinstance(decision, Route):
            request, prefill_on = flight.request, decision.prefill_on
            told: Explanation | UnsetType = UNSET
            if self.settings.log_scores is True:
                told = reasons(self.routing, request, view, decision.why)
            if prefill_on is None:
                self.state.launch(flight, decision.replica, now_s)
            else:
                self.state.launch_apart(flight, decision.replica, prefill_on, now_s)
            self._tell(flight, actions, told)
        elif isinstance(decision, Why):
            self._give_up(flight, decision, now_s, actions)
        elif self.fall_back(flight):
            self.hold(flight, now_s, actions)
        else:
            self.state.forget(flight)
            reason: Reason | UnsetType = UNSET if self.settings.queue is UNSET else "rejected-other"
            actions.append(Refuse(flight.request.id, decision.why, decision.status, reason=reason))

    def send(self, flight: Flight, replica: str, now_s: float, actions: list[Action]) -> None:
        """Send a request that is in no queue to a replica that somebody else has chosen."""
        self.state.launch(flight, replica, now_s)
        self._tell(flight, actions, UNSET)

    def _tell(self, flight: Flight, actions: list[Action], told: Explanation | UnsetType) -> None:
        """Say where a request was sent."""
        request, replica, prefill_on = flight.request, flight.replica, flight.prefill_on
        assert replica is not None
        model = UNSET if request.model == flight.model else request.model
        before = UNSET if prefill_on is None else prefill_on
        after = flight.resumed_tokens or UNSET
        actions.append(Dispatch(request.id, replica, flight.attempts, model, before, after, told))
        for note in self._learners:
            note(Sent(flight.sent_s, request, prefill_on or replica, queued_tokens=flight.queued_tokens))

    def expire(self, now_s: float, actions: list[Action]) -> None:
        """Turn away those that were held until now."""
        while (flight := self.expiries.take(now_s)) is not None:
            model = flight.request.model
            self._expired(flight, now_s, actions)
            self.place(model, now_s, actions)

    def _expired(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """Turn away who has waited for too long, or cannot be in time any more by what is known now."""
        request, foresight = flight.request, self.gate.foresight
        if request.deadline_s is not None and request.deadline_s <= now_s:
            self.state.held.release(flight, now_s)
            self.state.forget(flight)
            actions.append(self.state.refusal(request, OVERDUE, now_s))
        elif foresight is not None and now_s < flight.held_until_s:
            latest_s = foresight.latest_s(flight, self.state.view(now_s, request.model))
            if latest_s <= now_s:
                self._give_up(flight, too_late(flight), now_s, actions)
            else:
                deadline_s = inf if request.deadline_s is None else request.deadline_s
                flight.expires_s = min(flight.held_until_s, deadline_s, latest_s)
                self.expiries.add(flight)
        else:
            ready = self.state.view(now_s, request.model).ready_for(request.model)
            self._give_up(flight, EXPIRED if ready else ABANDONED, now_s, actions)

    def _give_up(self, flight: Flight, why: Why, now_s: float, actions: list[Action]) -> None:
        """Let a request turn to a fallback, or turn it away."""
        self.state.held.release(flight, now_s)
        if self.fall_back(flight):
            self.hold(flight, now_s, actions)
        else:
            self.state.forget(flight)
            actions.append(self.state.refusal(flight.request, why, now_s))
