"""The fleet's mind: notes what happened, then decides what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from msgspec import UNSET

from millrace.control.budget import Purse
from millrace.control.flight import Flight
from millrace.control.leaving import Leaving
from millrace.control.moves import Moves, over
from millrace.control.placing import Placer
from millrace.control.settings import ControlSettings
from millrace.control.state import State
from millrace.control.waiting import waiting
from millrace.control.witness import Witness
from millrace.core.event import (
    Action,
    Arrived,
    CacheChanged,
    Cancel,
    Cancelled,
    Event,
    Failed,
    Finished,
    Move,
    Moved,
    Prefilled,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.fleet import FleetView, MigrationPolicy, QueueingPolicy, RoutingPolicy, Sent, Waiting


class Controller:
    """Feed it every event in order; perform every action it answers with.

    Each request that arrived ends exactly once: Finished, Failed after its first token, Cancelled, or
    with a Refuse. Events about requests that have ended are ignored, since a shell may hear late; but a
    shell must not speak of an attempt any more once it said that the attempt Failed, because events name
    the request only, nor of the replica that a Move without a first token took a request from. A deadline
    binds while a request is held; in flight it is its client's to give up.

    A request with nobody in front of it is sent without ever entering a queue. Both policies are asked all
    the same, about it alone: the queueing policy may hold it back by not naming it.

    A `witness` looks on: it is told what happens and what is decided, and has no say.
    """

    def __init__(
        self,
        routing: RoutingPolicy,
        queueing: QueueingPolicy,
        settings: ControlSettings | None = None,
        *,
        migration: MigrationPolicy | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.routing = routing
        self.queueing = queueing
        self.migration = migration
        self.settings = settings or ControlSettings()
        self.state = State(self.settings)
        budget = self.settings.retry_budget
        self._purse = None if budget is UNSET else Purse(budget)
        self._moves = None if migration is None else Moves(migration, self.state)
        assumed = self.settings.leaving
        self._leaving = None if assumed is UNSET else Leaving(assumed, self.state)
        policies = (routing, queueing, migration, witness)
        self._learners = [note for policy in policies if (note := getattr(policy, "note", None))]
        self._placer = Placer(routing, queueing, self.state, self._learners, witness=witness)
        if self._placer.gate.foresight is not None:
            self._learners.append(self._placer.gate.foresight.forecast.note)
        self.state.held.told = getattr(queueing, "note", None)
        self._expiries = self._placer.expiries
        # Found by its type at once: a match would try the kinds of events one after the other.
        self._handlers: dict[type[Event], Callable[[Any, list[Action]], None]] = {
            Arrived: self._arrive,
            Reported: self._report,
            Prefilled: self._hand_over,
            Started: self._start,
            Moved: self._move,
            Finished: self._finish,
            Failed: self._fail,
            Cancelled: self._cancel,
            CacheChanged: self._follow,
            Ticked: self._tick,
        }

    def on(self, event: Event) -> list[Action]:
        """Note the event and return what is to be done now."""
        actions: list[Action] = []
        self.state.prefixes.clock.now_s = event.now_s
        for note in self._learners:
            note(event)
        self._handlers[type(event)](event, actions)
        if self._expiries:
            self._placer.expire(event.now_s, actions)
        if self._leaving and self._leaving.due_s <= event.now_s:
            self._set_out(self._leaving.turn(event.now_s), event.now_s, actions)
        if self._moves:
            self._set_out(self._moves.turn(event.now_s), event.now_s, actions)
        return actions

    def view(self, now_s: float, model: str) -> FleetView:
        """Return a window on the fleet, for a question about a request of this model that nobody acts on."""
        self.state.prefixes.clock.now_s = now_s
        return self.state.view(now_s, model)

    def next_deadline_s(self) -> float | None:
        """When a Ticked is due next; None while no held request can expire and nobody asks for moves."""
        expiry_s = self._expiries.next_s() if self._expiries else None
        move_s = self._moves.due_s if self._moves else None
        if self._leaving and self._leaving.due_s < inf:
            move_s = self._leaving.due_s if move_s is None else min(move_s, self._leaving.due_s)
        if expiry_s is None or move_s is None:
            return move_s if expiry_s is None else expiry_s
        return min(expiry_s, move_s)

    def waiting(self, now_s: float) -> list[Waiting]:
        """Return who is held, by model, priority and tenant, as seen at this moment."""
        return waiting(self.state.held, now_s)

    def prefix_index_bytes(self) -> dict[str, int]:
        """Memory that the prefix index of each replica takes."""
        return self.state.prefixes.held_bytes()

    def _arrive(self, event: Arrived, actions: list[Action]) -> None:
        request, state = event.request, self.state
        if request.id in state.flights:
            raise ValueError(f"request id {request.id!r} is in flight already; ids must be unique")
        if request.fallbacks:
            request = state.first_choice(request)
        if not state.serves(request.model):
            actions.append(Refuse(request.id, f"the model {request.model!r} does not exist", 404))
        elif full := state.held.objection(request):
            actions.append(state.refusal(request, full, event.now_s))
        else:
            flight = state.admit(request, event.request.model)
            flight.arrived_s = event.now_s
            self._placer.accept(flight, event.now_s, actions)

    def _hand_over(self, event: Prefilled, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is not None and flight.prefill_on is not None:
            self._placer.place_on(self.state.hand_over(flight), event.now_s, actions)

    def _start(self, event: Started, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None or flight.started:
            return
        if flight.prefill_on is not None:  # a first token says that the prompt is computed
            self._placer.place_on(self.state.hand_over(flight), event.now_s, actions)
        replica = self.state.start(flight, event.now_s)
        if self.state.held:
            self._placer.place_on(replica, event.now_s, actions)

    def _move(self, event: Moved, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is not None and flight.moving_to is not None:
            left = over(self.state, flight, event)
            if left is not None:
                self._placer.place_on(left, event.now_s, actions)

    def _finish(self, event: Finished, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        if flight.prefill_on is None:
            self.state.prefixes.learn(flight, event)
        replica = self.state.land(flight)
        self.state.finish(flight, event.now_s)
        if self.state.held:
            self._placer.place_on(replica, event.now_s, actions)

    def _fail(self, event: Failed, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None or flight.replica is None:
            return
        planned = flight.moving_to if flight.replays else None
        landed = self.state.land(flight)
        replica = landed if event.replica is None else event.replica
        if event.replica_down:
            self.state.lose(replica)
        if flight.started and event.resume_tokens is not None:
            self.state.resume(flight, event.resume_tokens)
        if flight.started:
            self.state.forget(flight)
        elif planned is not None and self.state.replicas[planned].phase == "ready":
            flight.allowed, flight.failed = flight.allowed + 1, frozenset()
            self._placer.send(flight, planned, event.now_s, actions)
        elif not event.retryable or not self._placer.may_go_on(flight):
            self.state.forget(flight)
            actions.append(Refuse(event.request_id, f"no replica could answer: {event.why}", 502))
        elif not self._may_try_again(event.now_s):
            self.state.forget(flight)
            why = f"no replica could answer: {event.why}; too much was tried again already"
            retry_after_s = self.state.retry_after_s(flight.request, event.now_s)
            actions.append(Refuse(event.request_id, why, 503, retry_after_s))
        else:
            flight.tried |= {replica}
            if flight.request.fallbacks and not self.state.takes(flight.request):
                self._placer.fall_back(flight)
            self._placer.hold(flight, event.now_s, actions)
        self._placer.place_on(replica, event.now_s, actions)

    def _cancel(self, event: Cancelled, actions: list[Action]) -> None:
        flight = self.state.flights.get(event.request_id)
        if flight is None:
            return
        if flight.replica is None:
            self.state.held.release(flight, event.now_s)
            self.state.forget(flight)
            self._placer.place(flight.request.model, event.now_s, actions)
        else:
            replica = self.state.land(flight)
            self.state.forget(flight)
            actions.append(Cancel(event.request_id, replica))
            self._placer.place_on(replica, event.now_s, actions)

    def _report(self, event: Reported, actions: list[Action]) -> None:
        self.state.report(event)
        if self._leaving and event.phase == "draining":
            self._leaving.begin(event.replica, event.now_s)
        self._placer.place_on(event.replica, event.now_s, actions)

    def _follow(self, event: CacheChanged, actions: list[Action]) -> None:
        """What is held waits for room, not for a cache: nobody is asked again."""
        self.state.prefixes.follow(event)

    def _tick(self, event: Ticked, actions: list[Action]) -> None:
        """Time passed: whatever expired by now is looked at after every event."""

    def _may_try_again(self, now_s: float) -> bool:
        state = self.state
        return self._purse is None or self._purse.take(
            now_s, arrivals=state.arrivals, in_flight=len(state.flights)
        )

    def _set_out(self, moves: Iterator[tuple[Flight, Move]], now_s: float, actions: list[Action]) -> None:
        """Move what is to be moved, and send what is held to where there is room now."""
        left: list[str] = []
        for flight, move in moves:
            actions.append(move)
            if not move.running:
                left.append(move.source)
                for note in self._learners:
                    note(Sent(now_s, flight.request, move.replica, True, flight.queued_tokens))
        for replica in left:
            self._placer.place_on(replica, now_s, actions)
