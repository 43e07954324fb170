"""Everything the fleet knows, and how each fact changes it. Only facts: decisions are in the controller."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET
from msgspec.structs import replace

from millrace.control.drains import Drains
from millrace.control.flight import Flight
from millrace.control.held import Queues
from millrace.control.horizon import NO_TRAIL
from millrace.control.knowledge import Prefixes
from millrace.control.refusals import Why
from millrace.control.settings import ControlSettings
from millrace.core.event import Refuse, Reported
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.replica import Report
from millrace.core.request import Request

NOBODY: frozenset[str] = frozenset()
MOST_ADAPTERS = 1000  # that are remembered of a replica which does not limit them
RETRY_AFTER_S = (1.0, 120.0)  # clients refuse to wait longer than two minutes


class State:
    """Replicas, requests in flight, and the queue of each model."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = settings
        self.replicas: dict[str, ReplicaView] = {}
        self.flights: dict[str, Flight] = {}
        self.held = Queues(settings)
        self.routed: dict[str, int] = {}
        self.arrivals = 0
        self.readiness_changed = False
        self.prefixes = Prefixes(settings)
        self._served: set[str] = set()
        self._any_model = False
        self._view = FleetView(now_s=0.0, replicas=(), ready={}, flights=self.flights)
        self._drains = Drains(settings.max_hold_s)

    def view(self, now_s: float, model: str, avoid: frozenset[str] = NOBODY) -> FleetView:
        """Return a window on the fleet for one decision about a request for this model.

        Sent requests are counted by model: models that take turns at arriving must not share one turn.
        """
        view = self._view
        view.now_s, view.routed, view.avoid = now_s, self.routed.get(model, 0), avoid
        return view

    def report(self, event: Reported) -> None:
        """Note what a replica said; the first report of a replica must carry its spec."""
        replica = self.replicas.get(event.replica)
        if replica is None:
            replica = self._join(event)
        if event.spec is not None:
            replica.spec = event.spec
            self.prefixes.expect(event.replica, event.spec)
            self._learn_models()
        if event.phase in ("starting", "gone"):
            self._empty(replica)
        if event.phase != replica.phase or event.spec is not None:
            replica.phase = event.phase
            self._forget_ready()
        if event.report is not None:
            _heed(replica, event.report)

    def lose(self, replica_id: str) -> None:
        """Note that a replica cannot be reached. What was sent to it still fails one by one, by its shell."""
        replica = self.replicas[replica_id]
        replica.phase = "gone"
        self._forget_ready()
        self._empty(replica)

    def serves(self, model: str) -> bool:
        """Whether any replica, in whatever phase, answers to this name or has not said what it answers to."""
        return model in self._served or self._any_model

    def takes(self, request: Request) -> bool:
        """Whether a request can be sent to a ready replica, or wait for one not to be busy."""
        return bool(self._view.ready_for(request.model)) and self.held.objection(request) is None

    def admit(self, request: Request, model: str) -> Flight:
        """Note that a request, which asked for this model, arrived and was not turned away."""
        flight = Flight(request, self.arrivals, model, self.settings.max_attempts)
        self.arrivals += 1
        self.flights[request.id] = flight
        return flight

    def first_choice(self, request: Request) -> Request:
        """Return the request as it is for the first of its models that takes it, else for one that exists."""
        if self.takes(request):
            return request
        choices = [request, *request.alternatives()]
        taken = (choice for choice in choices if self.takes(choice))
        known = (choice for choice in choices if self.serves(choice.model))
        return next(taken, None) or next(known, request)

    def turn(self, flight: Flight, request: Request) -> None:
        """Note that a request is now for one of its fallbacks, which is tried as often as the first was."""
        flight.request, flight.allowed = request, flight.attempts + self.settings.max_attempts

    def forget(self, flight: Flight) -> None:
        """Note that a request ended."""
        del self.flights[flight.request.id]

    def turn_stranded(self, now_s: float) -> Iterator[Flight]:
        """Turn who waits for a model with no ready replica to a fallback that has one; yield each, unheld."""
        self.readiness_changed = False
        waiting = (queue.values() for model, queue in self.held.items() if not self._view.ready_for(model))
        for flight in [flight for queue in waiting for flight in queue if flight.request.fallbacks]:
            choice = next(filter(self.takes, flight.request.alternatives()), None)
            if choice is not None:
                self.held.release(flight, now_s)
                self.turn(flight, choice)
                yield flight

    def launch(self, flight: Flight, replica_id: str, now_s: float) -> None:
        """Note that a request was sent to a replica."""
        replica, request = self.replicas[replica_id], flight.request
        flight.replica, flight.sent_s = replica_id, now_s
        flight.attempts += 1
        queued_tokens = request.prompt_tokens
        if replica.spec.role == "encode":
            queued_tokens = request.encode_tokens
        else:
            held_tokens, flight.trail = self.prefixes.send(replica_id, request, replica.queued_tokens)
            queued_tokens -= held_tokens
        if request.adapter is not None:
            replica.adapters = _used(replica, request.adapter)
        flight.queued_tokens = queued_tokens
        replica.waiting += 1
        replica.queued_tokens += queued_tokens
        self.routed[request.model] = self.routed.get(request.model, 0) + 1

    def launch_apart(self, flight: Flight, replica_id: str, prefill_on: str, now_s: float) -> None:
        """Note that a request was sent to a replica, and its prompt to another one first, which queues it."""
        self.launch(flight, prefill_on, now_s)
        flight.replica, flight.prefill_on = replica_id, prefill_on
        self.replicas[replica_id].coming_tokens += flight.request.prompt_tokens

    def hand_over(self, flight: Flight) -> str:
        """Note that a prompt is computed, and its cache goes to who answers; return who computed it."""
        prefiller, replica = self._part(flight), self._replica(flight)
        held_tokens, flight.trail = self.prefixes[replica.id].remember(flight.request), NO_TRAIL
        encoded = self.replicas[prefiller].spec.role == "encode"
        flight.queued_tokens = flight.request.prompt_tokens - held_tokens if encoded else 0
        replica.waiting += 1
        replica.queued_tokens += flight.queued_tokens
        return prefiller

    def shift(self, flight: Flight, replica_id: str, now_s: float) -> None:
        """Note that a request without a first token was taken from its replica and sent to another one.

        That is no attempt that failed, so it may fail as often as before.
        """
        self.land(flight)
        self.launch(flight, replica_id, now_s)
        flight.allowed += 1

    def set_out(self, flight: Flight, replica_id: str, *, replays: bool = False) -> None:
        """Note that a running request is on the way to another replica, or its KV cache is."""
        flight.moving_to, flight.replays = replica_id, replays
        self.replicas[replica_id].coming_tokens += flight.request.prompt_tokens

    def stay(self, flight: Flight) -> None:
        """Note that a running request does not move any more."""
        if flight.moving_to is not None:
            self.replicas[flight.moving_to].coming_tokens -= flight.request.prompt_tokens
            flight.moving_to, flight.replays = None, False

    def settle(self, flight: Flight) -> str:
        """Note that a running request moved; return the replica that it left."""
        source, target = self._replica(flight), flight.moving_to
        assert target is not None
        self.stay(flight)
        self._stop(flight)
        flight.replica, flight.trail = target, NO_TRAIL
        self.prefixes[target].remember(flight.request)
        self._run(flight)
        return source.id

    def resume(self, flight: Flight, resume_tokens: int) -> None:
        """Note that an answer which broke off goes on after so many tokens, which its prompt has from now."""
        request, more = flight.request, resume_tokens - flight.resumed_tokens
        flight.request = replace(
            request,
            prompt_tokens=request.prompt_tokens + more,
            max_tokens=max(1, request.max_tokens - more),
            fallbacks=(),  # another model would not go on with the same answer
        )
        flight.resumed_tokens, flight.started = resume_tokens, False

    def start(self, flight: Flight, now_s: float) -> str:
        """Note a first token: the prompt left the replica's queue for its memory; return the replica's id."""
        replica = self._replica(flight)
        flight.started, flight.started_s = True, now_s
        replica.waiting -= 1
        replica.queued_tokens -= flight.queued_tokens
        self._run(flight)
        return replica.id

    def land(self, flight: Flight) -> str:
        """Note that nobody works on the request any more; return who did, or who computed its prompt."""
        if flight.prefill_on is not None:
            prefiller, flight.replica = self._part(flight), None
            return prefiller
        replica = self._replica(flight)
        if flight.started:
            self.stay(flight)
            self._stop(flight)
        else:
            replica.waiting -= 1
            replica.queued_tokens -= flight.queued_tokens
        flight.replica = None
        return replica.id

    def finish(self, flight: Flight, now_s: float) -> None:
        """Note that a request ended well, which tells how fast its model's queue drains."""
        del self.flights[flight.request.id]
        self._drains.note(flight.request.model, now_s)

    def retry_after_s(self, request: Request, now_s: float) -> float:
        """Predict when it is worth trying again with a request that was turned away."""
        queue = self.held.get(request.model)
        in_front = 0 if queue is None else len(queue)
        drain_s = None if queue is None else queue.drain_s(in_front + 1, now_s)
        if drain_s is None or self.settings.queue is UNSET:
            drain_s = self._drains.seconds(request.model, in_front, now_s)
        return max(RETRY_AFTER_S[0], min(RETRY_AFTER_S[1], drain_s))

    def refusal(self, request: Request, why: Why, now_s: float) -> Refuse:
        """Return what a client is told that is turned away."""
        reasoned = self.settings.queue is not UNSET
        return why.refusal(request.id, self.retry_after_s(request, now_s), reasoned=reasoned)

    def _forget_ready(self) -> None:
        self._view.forget_ready()
        self.readiness_changed = True

    def _replica(self, flight: Flight) -> ReplicaView:
        assert flight.replica is not None
        return self.replicas[flight.replica]

    def _run(self, flight: Flight) -> None:
        replica = self._replica(flight)
        replica.running += 1
        replica.context_tokens += flight.request.prompt_tokens

    def _stop(self, flight: Flight) -> None:
        replica = self._replica(flight)
        replica.running -= 1
        replica.context_tokens -= flight.request.prompt_tokens

    def _part(self, flight: Flight) -> str:
        """Note that the prompt is no longer computed for another replica; return the id of who did."""
        assert flight.prefill_on is not None
        prefiller = self.replicas[flight.prefill_on]
        prefiller.waiting -= 1
        prefiller.queued_tokens -= flight.queued_tokens
        self._replica(flight).coming_tokens -= flight.request.prompt_tokens
        flight.prefill_on = None
        return prefiller.id

    def _empty(self, replica: ReplicaView) -> None:
        """Note that its process ended: neither its cache nor what it said of itself is true any more."""
        self.prefixes[replica.id].forget()
        replica.report, replica.adapters, replica.slots = None, (), None

    def _join(self, event: Reported) -> ReplicaView:
        if event.spec is None:
            raise ValueError(f"replica {event.replica!r} is new: its first Reported must carry a spec")
        prefix = self.prefixes.join(event.replica)
        self.replicas[event.replica] = replica = ReplicaView(id=event.replica, spec=event.spec, prefix=prefix)
        self._view.replicas = tuple(self.replicas.values())
        return replica

    def _learn_models(self) -> None:
        specs = [replica.spec for replica in self.replicas.values()]
        self._served = {model for spec in specs for model in spec.models}
        self._any_model = not all(spec.models for spec in specs)


def _heed(replica: ReplicaView, report: Report) -> None:
    """Note what an engine says of itself. While requests wait there, it runs as many as it can."""
    replica.report = report
    if report.adapters is not None:
        replica.adapters = report.adapters
    if report.waiting and report.running:
        replica.slots = max(replica.slots or 0, report.running)


def _used(replica: ReplicaView, adapter: str) -> tuple[str, ...]:
    """Return a replica's adapters when one is sent to it: no more than it can have."""
    limits = replica.spec.limits
    most = min(MOST_ADAPTERS, (limits and limits.adapters) or MOST_ADAPTERS)
    return (*(one for one in replica.adapters if one != adapter), adapter)[-most:]
