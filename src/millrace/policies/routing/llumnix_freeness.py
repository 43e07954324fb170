"""Send the request to the freest replica: the one whose memory lasts longest at the pace it is filled.

freeness = (memory - virtual usage) / requests in the batch, in tokens: the iterations until memory is full.
Virtual usage is what is in memory, the prompt at the head of the queue (those behind it count nothing), and
room kept beside requests of high priority: each takes its share of `headroom_tokens`, so together they take
it once. A draining replica has a fake request of infinite usage, which is to say that it gets nothing.

Between two first tokens all requests of a burst may go to one replica, since a queue of one looks like a
queue of many; the paper relies on migration to even that out. With `whole_queue` all of the queue counts as
usage and as batch, as in the code published with it (where `defrag` off does so), which has no headroom.

Source: Llumnix (Sun et al., OSDI 2024), Algorithm 1; Llumnix v0 (24220fb). The headroom's size is not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from millrace.core.draw import draw_least
from millrace.core.event import Cancelled, Event, Failed, Finished, Moved, Started
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.load import kv_memory, running_requests
from millrace.core.request import Request


@dataclass(slots=True)
class Policy:
    """`headroom_tokens` is the room kept free for running requests of a priority above 0.

    What it learns: who waits where, in which order, and who of high priority runs where.
    """

    headroom_tokens: int = 4096
    whole_queue: bool = False
    seed: int = 0
    _flights: dict[str, Sent] = field(init=False, repr=False, compare=False, default_factory=dict)
    _queues: dict[str, dict[str, int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _high: dict[str, set[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.headroom_tokens < 0:
            raise ValueError(f"headroom_tokens is {self.headroom_tokens}; it must not be negative")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        costs = [-free for free in self.freeness(able, fleet.now_s)]
        return Route(able[draw_least(costs, request.id, self.seed)].id)

    def freeness(self, replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
        """Return how many iterations the memory of each replica lasts."""
        held, sizes = kv_memory(replicas, now_s)
        running = running_requests(replicas, now_s)
        return [
            self._freeness(replica, size - tokens, batch)
            for replica, tokens, size, batch in zip(replicas, held, sizes, running, strict=True)
        ]

    def _freeness(self, replica: ReplicaView, free_tokens: float, batch: int) -> float:
        if replica.phase == "draining":
            return -inf
        free_tokens -= replica.coming_tokens
        if self.whole_queue:
            return (free_tokens - replica.queued_tokens) / (batch + replica.waiting or 1)
        if replica.waiting:
            queue = self._queues.get(replica.id)
            free_tokens -= next(iter(queue.values())) if queue else replica.queued_tokens
        if self._high.get(replica.id):
            free_tokens -= self.headroom_tokens
        return free_tokens / (batch or 1)

    def note(self, fact: Event | Sent) -> None:
        """Follow each request from its replica's queue into its batch, and out of it."""
        if isinstance(fact, Sent):
            self._forget(fact.request.id)
            self._flights[fact.request.id] = fact
            self._queues.setdefault(fact.replica, {})[fact.request.id] = fact.request.prompt_tokens
        elif isinstance(fact, Started) and (sent := self._flights.get(fact.request_id)):
            self._queues[sent.replica].pop(fact.request_id, None)
            self._run(sent)
        elif isinstance(fact, Moved) and (sent := self._flights.get(fact.request_id)):
            self._forget(fact.request_id)
            self._run(Sent(fact.now_s, sent.request, fact.replica, moved=True))
        elif isinstance(fact, Finished | Failed | Cancelled):
            self._forget(fact.request_id)

    def _run(self, sent: Sent) -> None:
        self._flights[sent.request.id] = sent
        if sent.request.priority > 0:
            self._high.setdefault(sent.replica, set()).add(sent.request.id)

    def _forget(self, request_id: str) -> None:
        sent = self._flights.pop(request_id, None)
        if sent is not None:
            self._queues.get(sent.replica, {}).pop(request_id, None)
            self._high.get(sent.replica, set()).discard(request_id)
