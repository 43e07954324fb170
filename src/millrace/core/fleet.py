"""What a policy may know of a fleet, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Literal, Protocol

from msgspec import Struct

from millrace.core.event import Event
from millrace.core.replica import Phase, ReplicaSpec, Report, Role
from millrace.core.request import Request

ANSWERING: tuple[Role, ...] = ("both", "decode")
PREFILLING: tuple[Role, ...] = ("both", "prefill")
_by_id = attrgetter("id")


class PrefixIndex(Protocol):
    """Which prompt blocks a replica is believed to hold. Policies only ask; the kernel writes."""

    def matched_tokens(self, request: Request) -> int:
        """Return how many leading prompt tokens the replica is believed to hold where it computes."""

    def matched_by_medium(self, request: Request) -> tuple[int, int, int]:
        """Return these tokens, those behind them in its machine's memory, and those behind these on disk."""


class ReplicaView(Struct, kw_only=True, eq=False):
    """One replica as the controller knows it, live. Policies read it and never write.

    The counts are the controller's own bookkeeping, so they are never stale: `waiting` requests were
    sent and have no first token yet, `running` have one. `queued_tokens` are the prompt tokens (less
    what the prefix index holds) of the waiting ones, `context_tokens` the prompt tokens of the running
    ones. `report` is what the engine last said of itself, None if it never spoke. `adapters` are believed to
    be on its device: those last sent to it, or what it reported, the one used longest ago first.
    `coming_tokens` are the prompt tokens that others compute for it: it neither queues nor holds them yet.
    `slots` are the most requests that it was seen to run while others waited; None if it never was.
    """

    id: str
    spec: ReplicaSpec
    prefix: PrefixIndex
    phase: Phase = "starting"
    waiting: int = 0
    running: int = 0
    queued_tokens: int = 0
    context_tokens: int = 0
    report: Report | None = None
    adapters: tuple[str, ...] = ()
    coming_tokens: int = 0
    slots: int | None = None

    @property
    def in_flight(self) -> int:
        """Requests sent to the replica and not ended yet."""
        return self.waiting + self.running

    @property
    def seen_s(self) -> float | None:
        """When the replica last reported on the fleet's clock; None if it never did."""
        return self.report.now_s if self.report else None


class Underway(Protocol):
    """One request as the controller knows it, live. `replica` is None while it is held.

    It came in at `arrived_s`, was last sent at `sent_s`, and its first token came at `started_s` if it has
    `started`. `prefill_on` computes its prompt; its KV cache is on the way to `moving_to`. What was charged
    to its replica's queue are `queued_tokens`.
    """

    request: Request
    replica: str | None
    started: bool
    queued_tokens: int
    arrived_s: float
    sent_s: float
    started_s: float
    prefill_on: str | None
    moving_to: str | None


class FleetView(Struct, kw_only=True, eq=False):
    """The fleet at one decision: a window on live state, not a copy. Policies read it and never write.

    The kernel keeps one and turns it to the decision at hand, so what must last is to be taken from it.
    `routed` counts the requests of the model at hand that were sent so far; `avoid` are replicas on which
    the request at hand failed. `ready` is what the kernel remembers of who is ready, by model, and drops
    when a replica changes its phase or models; None, as in views made by hand, remembers nothing. Replicas
    that only compute prompts for others answer nothing: `prefilling` names them, and `able` does not.
    `flights` are the requests that have not ended, by id, in the order in which they arrived.
    """

    now_s: float
    replicas: Sequence[ReplicaView]
    routed: int = 0
    avoid: frozenset[str] = frozenset()
    ready: dict[str | tuple[str, str], tuple[ReplicaView, ...]] | None = None
    flights: Mapping[str, Underway] = {}

    def waited_s(self, request: Request) -> float | None:
        """Return how long ago a request came in; None for one that is not under way."""
        flight = self.flights.get(request.id)
        return None if flight is None else self.now_s - flight.arrived_s

    def able(self, request: Request) -> tuple[ReplicaView, ...]:
        """Return the ready replicas that answer for the model, by id; those to avoid only if all are."""
        ready = self.ready_for(request.model)
        return self._spared(ready) if self.avoid else ready

    def prefilling(self, request: Request) -> tuple[ReplicaView, ...]:
        """Return the ready replicas that only compute prompts of the request's model, in the same way."""
        return self._only("prefill", request)

    def encoding(self, request: Request) -> tuple[ReplicaView, ...]:
        """Return the ready replicas that only encode media for the request's model, in the same way."""
        return self._only("encode", request)

    def _only(self, role: Role, request: Request) -> tuple[ReplicaView, ...]:
        known, place = self.ready, (role, request.model)
        if known is None or (ready := known.get(place)) is None:
            found = [r for r in self.replicas if r.spec.role == role and _is_ready(r, request.model)]
            ready = tuple(sorted(found, key=_by_id))
            if known is not None and ready:
                known[place] = ready
        return self._spared(ready) if self.avoid else ready

    def ready_for(self, model: str) -> tuple[ReplicaView, ...]:
        """Return the ready replicas that answer for a model, by id."""
        if self.ready is not None and model in self.ready:
            return self.ready[model]
        found = [r for r in self.replicas if r.spec.role in ANSWERING and _is_ready(r, model)]
        ready = tuple(sorted(found, key=_by_id))
        if self.ready is not None and ready:  # only names that exist: anybody may ask for any
            self.ready[model] = ready
        return ready

    def _spared(self, ready: tuple[ReplicaView, ...]) -> tuple[ReplicaView, ...]:
        return tuple(r for r in ready if r.id not in self.avoid) or ready

    def forget_ready(self) -> None:
        """Note that somebody's phase or models changed."""
        if self.ready:
            self.ready.clear()


class Route(Struct, frozen=True, tag=True):
    """Send the request to this replica; its prompt to `prefill_on` before, which hands over the KV cache.

    That is another replica, which only computes prompts, or does both: whose role changes with every request.
    One that only encodes hands over what it made of the media; the prompt is computed where it is answered.
    """

    replica: str
    why: str = ""
    prefill_on: str | None = None


def _is_ready(replica: ReplicaView, model: str) -> bool:
    return replica.phase == "ready" and model in replica.spec.models


class Hold(Struct, frozen=True, tag=True):
    """Keep the request in the queue and ask again when something changes."""

    why: str


class Reject(Struct, frozen=True, tag=True):
    """Turn the request away with this HTTP status."""

    why: str
    status: Literal[400, 404, 429, 503] = 503


Decision = Route | Hold | Reject


class Shift(Struct, frozen=True):
    """Move a request to this replica."""

    request_id: str
    replica: str
    why: str = ""


class Sent(Struct, frozen=True):
    """A request was sent to a replica, to whose queue it adds `queued_tokens`: those not in its prefix cache.

    It is `moved` if it was taken from another one for that.
    """

    now_s: float
    request: Request
    replica: str
    moved: bool = False
    queued_tokens: int = 0


class Held(Struct, frozen=True):
    """A request was put into its model's queue; those of a lower `number` arrived before it."""

    now_s: float
    request: Request
    number: int


class Left(Struct, frozen=True):
    """A request left its model's queue: a Sent follows, or it was turned away, or its client left."""

    now_s: float
    request: Request


class Waiting(Struct, frozen=True):
    """Who is held for a model: so many of a tenant in a band of priorities, the first since `oldest_s` ago.

    `priority` is the one at which the band begins. Tenants beyond the largest few are one, called "other".
    """

    model: str
    priority: int
    tenant: str
    held: int
    oldest_s: float


class Learning(Protocol):
    """A policy that remembers. What it is asked must not change it; what it is told may."""

    def note(self, fact: Event | Sent) -> None:
        """Take note of an event, before it is acted upon, or of a request that was sent."""


class RoutingPolicy(Protocol):
    """Which replica serves this request? One that is `Learning` too is told what happens."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        """Decide from what is visible; change nothing."""


class QueueingPolicy(Protocol):
    """Which held request is asked about next?

    One that is `fair` (an attribute) gives each tenant its share, in the order of arrival, so that nobody
    starves but by what its own tenant asked before; the usual limit on being overtaken is not for it.
    """

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        """Yield the held requests, first to be placed first; lazily, the walk stops at the first Hold."""


class Ordering(Protocol):
    """A queueing policy that keeps its order as requests come and go, so that a long queue costs little.

    Whoever is asked for `order` sorts the whole queue for each request that is placed. A policy that has
    `first` too is asked for that in its place, and told with `note` who enters and leaves each queue
    (`Held`, `Left`), besides all events and what is sent; `core.ranked.Ranked` keeps ids by rank for it. Both
    must agree: `first` is what `order` would yield first of the model's held requests. A request with nobody
    in front of it is never held: `order` is asked about it alone.

    The kernel may place another one than the policy's first: who would starve, and who has a share reserved.
    """

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Take note of an event, before it is acted upon, of a request that was sent, held, or that left."""

    def first(self, model: str, fleet: FleetView) -> str | None:
        """Return the id of the held request of this model to be placed next; None puts nobody forward."""


class MigrationPolicy(Protocol):
    """Which requests are better off elsewhere? Asked every `period_s` while requests are under way.

    One that is `Learning` too is told what happens.
    """

    @property
    def period_s(self) -> float:
        """Seconds between two questions."""

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        """Name the requests to move, each at most once; lazily: each move is booked before the next is asked.

        A request without a first token is taken from its replica and sent to the other one. One with a first
        token goes on where it is until its KV cache is there. Requests that are held, whose prompt is
        computed elsewhere, or that are moving already stay where they are.
        """
