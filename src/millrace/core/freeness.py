"""How long the memory of each replica lasts at the pace it is filled, after virtual usage.

Source: freeness and virtual usage of Llumnix (Sun et al., OSDI 2024), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from millrace.core.event import Cancelled, Event, Failed, Finished, Moved, Started
from millrace.core.fleet import ReplicaView, Sent
from millrace.core.load import kv_memory, running_requests


class Freeness:
    """Learns who waits where, in which order, and who of high priority runs where.

    Virtual usage is what is in memory, the prompt at the head of the queue, or with `whole_queue` all of it,
    and `headroom_tokens` beside running requests of a priority above 0.
    """

    __slots__ = ("_flights", "_headroom_tokens", "_high", "_queues", "_whole_queue")

    def __init__(self, *, headroom_tokens: int, whole_queue: bool = False) -> None:
        if headroom_tokens < 0:
            raise ValueError(f"headroom_tokens is {headroom_tokens}; it must not be negative")
        self._headroom_tokens, self._whole_queue = headroom_tokens, whole_queue
        self._flights: dict[str, Sent] = {}
        self._queues: dict[str, dict[str, int]] = {}
        self._high: dict[str, set[str]] = {}

    def of(self, replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
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
        if self._whole_queue:
            return (free_tokens - replica.queued_tokens) / (batch + replica.waiting or 1)
        if replica.waiting:
            queue = self._queues.get(replica.id)
            free_tokens -= next(iter(queue.values())) if queue else replica.queued_tokens
        if self._high.get(replica.id):
            free_tokens -= self._headroom_tokens
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
