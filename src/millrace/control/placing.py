"""Where requests go: ask the policies, send or hold what they say, refuse what was held for too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import UNSET, UnsetType

from millrace.control.expiry import Expiries
from millrace.control.flight import Flight
from millrace.control.lawful import complaint
from millrace.control.state import State
from millrace.control.witness import Witness
from millrace.core.event import Action, Dispatch, Event, Refuse
from millrace.core.explanation import reasons
from millrace.core.fleet import (
    Decision,
    FleetView,
    Hold,
    QueueingPolicy,
    Reject,
    ReplicaView,
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
        self._learners = learners
        self._witness = witness

    def may_go_on(self, flight: Flight) -> bool:
        """Whether a request that failed may be tried once more, if need be as one for its next fallback."""
        return flight.attempts < flight.allowed or self.fall_back(flight)

    def fall_back(self, flight: Flight) -> bool:
        """Turn to the next fallback that takes the request, if there is one."""
        for choice in flight.request.alternatives():
            if self.state.takes(choice.model):
                self.state.turn(flight, choice)
                return True
        return False

    def hold(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        """Send a request, or queue it until it can be sent; if it has to wait, then only until it expires."""
        request = flight.request
        flight.expires_s = now_s + self.settings.max_hold_s
        if request.deadline_s is not None:
            flight.expires_s = min(flight.expires_s, request.deadline_s)
        if request.model in self.state.held or flight.expires_s < now_s:
            self.state.hold(flight)
            self.place(request.model, now_s, actions)
        elif self._place_alone(flight, now_s, actions):
            return
        else:
            self.state.hold(flight)
        if flight.replica is None:
            self.expiries.add(flight)

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
            for flight in self.state.turn_stranded():
                self.hold(flight, now_s, actions)
        models = self.state.replicas[replica].spec.models
        for model in [held for held in self.state.held if held in models]:
            self.place(model, now_s, actions)

    def place(self, model: str, now_s: float, actions: list[Action]) -> None:
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
            self._carry_out(decision, flight, view, actions)

    def _decide(self, flight: Flight, chosen: Request, view: FleetView) -> Decision:
        """Ask the routing policy, and check that its answer can be carried out."""
        avoid = flight.tried
        if self.settings.max_waiting is not UNSET:
            full, room = _parted(view.ready_for(chosen.model), self.settings.max_waiting)
            if full and not room:
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
        self, decision: Route | Reject, flight: Flight, view: FleetView, actions: list[Action]
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
            model = UNSET if request.model == flight.model else request.model
            before = UNSET if prefill_on is None else prefill_on
            after = flight.resumed_tokens or UNSET
            actions.append(
                Dispatch(request.id, decision.replica, flight.attempts, model, before, after, told)
            )
            for note in self._learners:
                note(Sent(now_s, request, prefill_on or decision.replica, queued_tokens=flight.queued_tokens))
        elif self.fall_back(flight):
            self.hold(flight, now_s, actions)
        else:
            self.state.forget(flight)
            actions.append(Refuse(flight.request.id, decision.why, decision.status))

    def expire(self, now_s: float, actions: list[Action]) -> None:
        """Turn away those that were held until now."""
        while (flight := self.expiries.take(now_s)) is not None:
            model = flight.request.model
            self._expired(flight, now_s, actions)
            self.place(model, now_s, actions)

    def _expired(self, flight: Flight, now_s: float, actions: list[Action]) -> None:
        self.state.unhold(flight)
        request = flight.request
        late = request.deadline_s is not None and request.deadline_s <= now_s
        if not late and self.fall_back(flight):
            self.hold(flight, now_s, actions)
            return
        self.state.forget(flight)
        if late:
            actions.append(Refuse(request.id, "the request's deadline passed while it waited", 504))
        else:
            retry_after_s = self.state.retry_after_s(request, now_s)
            actions.append(Refuse(request.id, "no replica became free in time", 503, retry_after_s))


def _parted(ready: Iterable[ReplicaView], most: int) -> tuple[frozenset[str], frozenset[str]]:
    """Tell the replicas at which as many requests wait as may from those that have room."""
    full = frozenset(one.id for one in ready if one.waiting >= most)
    return full, frozenset(one.id for one in ready) - full
