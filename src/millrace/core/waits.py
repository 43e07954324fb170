"""How long a prompt would wait at each replica, and then take, from the replica's own speeds.

Queued prompts are predicted one by one, as long ones cost more than their tokens tell: what a step takes
grows with every pair of a new token and one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from msgspec import Struct

from millrace.core.event import Cancelled, Event, Failed, Finished, Prefilled, Started
from millrace.core.fleet import FleetView, ReplicaView, Sent
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request

ENGINE_DEFAULTS = Limits()
FAR, SLACK_S = 1.5, 0.25  # a prompt takes far longer: so many times what was foreseen, and seconds more
LEAVING = (Started, Prefilled, Finished, Failed, Cancelled)


class Speeds(Struct, frozen=True):
    """What a policy reckons with for one replica; what it does not tell is as slow as the slowest known."""

    tokens_per_s: float
    attended_s: float
    step_s: float
    context_s: float | None
    step_tokens: int
    adapter_load_s: float


class Queued(Struct, frozen=True):
    """A prompt in a replica's queue: tokens to compute, their pairs, when its request was first sent.

    `prompt_tokens` are all of its tokens, those that are believed to be cached included.
    """

    replica: str
    tokens: int
    pairs: int
    prompt_tokens: int
    sent_s: float
    moved: bool


class Turn(Struct, frozen=True):
    """When a queued prompt's turn comes: seconds until all before it are computed, and those of its own."""

    request_id: str
    ahead_s: float
    own_s: float
    sent_s: float
    moved: bool


class Waits:
    """Learns who waits where; told of every fact, it predicts seconds until a first token.

    Prompts are computed one after the other, and the one in front since the one before it was done. With
    `doubting`, one in front that takes far longer than foreseen is taken to have nothing cached any more:
    caches forget what whoever sent it believes to be there.
    """

    __slots__ = ("_assumed_tokens_per_s", "_doubting", "_pairs", "_queued", "_queues", "_since_s")

    def __init__(self, assumed_tokens_per_s: float, *, doubting: bool = False) -> None:
        if not 0 < assumed_tokens_per_s < inf:
            raise ValueError(f"assumed_tokens_per_s is {assumed_tokens_per_s}; it must be positive")
        self._assumed_tokens_per_s = assumed_tokens_per_s
        self._doubting = doubting
        self._queued: dict[str, Queued] = {}
        self._queues: dict[str, dict[str, Queued]] = {}
        self._pairs: dict[str, int] = {}
        self._since_s: dict[str, float] = {}

    def note(self, fact: Event | Sent) -> None:
        """Follow each request into a replica's queue and out of it."""
        if isinstance(fact, Sent):
            self._join(fact, self._leave(fact.request.id, fact.now_s))
        elif isinstance(fact, LEAVING):
            self._leave(fact.request_id, fact.now_s)

    def first_token_s(
        self, request: Request, replicas: Sequence[ReplicaView], fleet: FleetView
    ) -> list[float]:
        """Predict the seconds until the first token, for each of these replicas out of a fleet."""
        return [
            self.queue_s(replica, speeds, fleet.now_s) + prefill_s(request, replica, speeds)
            for replica, speeds in zip(replicas, self.speeds(replicas, fleet), strict=True)
        ]

    def queue_s(self, replica: ReplicaView, speeds: Speeds, now_s: float) -> float:
        """Predict the seconds until a replica has computed all prompts of its queue."""
        if not replica.queued_tokens:
            return 0.0
        pairs = self._pairs.get(replica.id, 0)
        more_s, done_s = self._front_s(replica, speeds, now_s)
        return work_s(replica.queued_tokens, pairs, replica, speeds) + more_s - done_s

    def turns(self, replica: ReplicaView, speeds: Speeds, now_s: float) -> Iterator[Turn]:
        """Yield when the turn of each prompt in a replica's queue comes, in their order."""
        more_s, done_s = self._front_s(replica, speeds, now_s)
        ahead_s = -done_s
        for request_id, one in self._queues.get(replica.id, {}).items():
            own_s = work_s(one.tokens, one.pairs, replica, speeds) + more_s
            yield Turn(request_id, max(0.0, ahead_s), own_s, one.sent_s, one.moved)
            ahead_s, more_s = ahead_s + own_s, 0.0

    def speeds(self, replicas: Sequence[ReplicaView], fleet: FleetView) -> list[Speeds]:
        """Return what to reckon with for each of these replicas."""
        slowest: Speeds | None = None
        found = []
        for replica in replicas:
            spec = replica.spec
            if not (spec.prefill_tokens_per_s and spec.decode_step_s) and slowest is None:
                slowest = _slowest([r.spec for r in fleet.replicas], self._assumed_tokens_per_s)
            found.append(_speeds(spec, slowest))
        return found

    def _front_s(self, replica: ReplicaView, speeds: Speeds, now_s: float) -> tuple[float, float]:
        """Return how much longer the prompt in front takes than foreseen, and how long it has been computed.

        At most all of it has been.
        """
        queue = self._queues.get(replica.id)
        if not queue:
            return 0.0, 0.0
        first = next(iter(queue.values()))
        more_s, whole_s = 0.0, work_s(first.tokens, first.pairs, replica, speeds)
        since_s = now_s - self._since_s[replica.id]
        if self._doubting and since_s > FAR * whole_s + SLACK_S:
            tokens = first.prompt_tokens
            more_s = max(0.0, work_s(tokens, pairs_of(tokens, 0), replica, speeds) - whole_s)
        return more_s, max(0.0, min(since_s, whole_s + more_s))

    def _join(self, sent: Sent, before: Queued | None) -> None:
        request, new, replica = sent.request, sent.queued_tokens, sent.replica
        pairs = pairs_of(new, request.prompt_tokens - new)
        first_s = before.sent_s if before and sent.moved else sent.now_s
        queued = Queued(replica, new, pairs, request.prompt_tokens, first_s, sent.moved)
        queue = self._queues.get(replica)
        if queue is None:
            queue = self._queues[replica] = {}
            self._since_s[replica] = sent.now_s
        self._queued[request.id] = queue[request.id] = queued
        self._pairs[replica] = self._pairs.get(replica, 0) + pairs

    def _leave(self, request_id: str, now_s: float) -> Queued | None:
        left = self._queued.pop(request_id, None)
        if left is not None:
            replica, queue = left.replica, self._queues[left.replica]
            if next(iter(queue)) == request_id:
                self._since_s[replica] = now_s
            del queue[request_id]
            self._pairs[replica] -= left.pairs
            if not queue:
                del self._queues[replica], self._pairs[replica], self._since_s[replica]
        return left


def pairs_of(new_tokens: int, cached_tokens: int) -> int:
    """Count the pairs of a new token and one before it."""
    return new_tokens * cached_tokens + new_tokens * new_tokens // 2


def prefill_s(request: Request, replica: ReplicaView, speeds: Speeds) -> float:
    """Predict the seconds that a prompt takes when it is its turn: what the cache lacks, and the adapter."""
    cached = replica.prefix.matched_tokens(request) if request.blocks else 0
    new = request.prompt_tokens - cached or 1
    adapter = request.adapter
    loading_s = 0.0 if adapter is None or adapter in replica.adapters else speeds.adapter_load_s
    return loading_s + work_s(new, pairs_of(new, cached), replica, speeds)


def work_s(new_tokens: int, pairs: int, replica: ReplicaView, speeds: Speeds) -> float:
    """Predict the seconds of computing tokens, beside those requests that run."""
    seconds = new_tokens / speeds.tokens_per_s + pairs * speeds.attended_s
    if replica.running:
        steps = -(-new_tokens // speeds.step_tokens)  # rounded up
        each_s = speeds.step_s if speeds.context_s is None else speeds.context_s * replica.context_tokens
        seconds += steps * each_s
    return seconds


def _speeds(spec: ReplicaSpec, slowest: Speeds | None) -> Speeds:
    """Return a replica's speeds, with what it does not tell from the slowest."""
    return Speeds(
        spec.prefill_tokens_per_s or (slowest.tokens_per_s if slowest else 1.0),
        spec.attended_s or (slowest.attended_s if slowest else 0.0),
        spec.decode_step_s or (slowest.step_s if slowest else 0.0),
        spec.context_s,
        (spec.limits or ENGINE_DEFAULTS).step_tokens,
        spec.adapter_load_s or 0.0,
    )


def _slowest(specs: Sequence[ReplicaSpec], assumed_tokens_per_s: float) -> Speeds:
    return Speeds(
        min((s.prefill_tokens_per_s for s in specs if s.prefill_tokens_per_s), default=assumed_tokens_per_s),
        max((s.attended_s for s in specs if s.attended_s), default=0.0),
        max((s.decode_step_s for s in specs if s.decode_step_s), default=0.0),
        None,
        ENGINE_DEFAULTS.step_tokens,
        0.0,
    )
