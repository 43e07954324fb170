"""Score every replica in several ways from 0 to 1, and take the highest weighted sum; ties are drawn.

By default: queue (2), KV cache (2) and cached prefix (3). The other scorers of the source have weight 0 until
they are given one, and its filter on prefixes is off, as they are there.

Deviations: queues and usage count what was sent since the report, and unknown ones are as bad as the worst
known, where the source takes gauges as they were last read. A replica takes prompts of up to its context, not
of ranges by label. An adapter about to be loaded is one that is there. Whether a request is the first of its
prefix is told from the first block of the prompts sent so far.

Source: llm-d EPP (llm-d-router ebab687), its default profile, scorers and `prefix-cache-affinity-filter`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import add
from typing import TypeVar

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.load import kv_usages, running_requests, waiting_requests
from millrace.core.request import Request
from millrace.core.weighed import Explanation

LONG_PREFIX_TOKENS = 8192
FULL_QUEUE = 128
FULL_TOKENS = 4_194_304
WIDE_TOKENS = 10_000
FAR_TOKENS = 1000
MOST_REMEMBERED = 65_536  # sessions, and prefixes

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Scores = list[float]

WEIGHTS = (
    "queue",
    "kv_cache",
    "prefix",
    "running_requests",
    "load_aware",
    "token_load",
    "active_request",
    "lora_affinity",
    "context_length_aware",
    "session_affinity",
    "no_hit_lru",
)


@dataclass(slots=True)
class Policy:
    """The first eleven settings are the scorers' weights.

    `long_prefix` is how much of the prefix score is for its length (squared, up to 8192 tokens) instead of
    for its share of the prompt. With `prefix_filter` only replicas that have `sticky_share` of the prompt are
    considered, unless the soonest of them is predicted to take over `sticky_gain_s` longer to a first token
    than the soonest other one, at `prefill_tokens_per_s` for all that is in flight there.
    What it learns: where each session went last, and which replica had no new prefix for longest.
    """

    queue: float = 2.0
    kv_cache: float = 2.0
    prefix: float = 3.0
    running_requests: float = 0.0
    load_aware: float = 0.0
    token_load: float = 0.0
    active_request: float = 0.0
    lora_affinity: float = 0.0
    context_length_aware: float = 0.0
    session_affinity: float = 0.0
    no_hit_lru: float = 0.0
    long_prefix: float = 0.0
    prefix_filter: bool = False
    sticky_share: float = 0.8
    sticky_gain_s: float = 18.0
    prefill_tokens_per_s: float = 15928.0
    seed: int = 0
    _sessions: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)
    _begun: dict[int, None] = field(init=False, repr=False, compare=False, default_factory=dict)
    _cold: dict[str, None] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*WEIGHTS, "sticky_gain_s"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0")
        for name in ("long_prefix", "sticky_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 < self.prefill_tokens_per_s < inf:
            raise ValueError(f"prefill_tokens_per_s is {self.prefill_tokens_per_s}; it must be positive")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = self._considered(request, fleet)
        if not able:
            return Hold("no ready replica")
        costs = [-score for score in self.scores(request, able, fleet.now_s)]
        return Route(able[draw_least(costs, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what each scorer gives to each replica that is considered, weighted."""
        able = self._considered(request, fleet)
        terms = dict(self._weighted(request, able, fleet.now_s)) if able else {}
        totals = _total(list(terms.values()), len(able))
        ranks = [-score for score in totals]
        return explanation("scores, the highest wins", able, ranks, totals=totals, terms=terms)

    def scores(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> Scores:
        """Return the weighted sum of each replica's scores."""
        return _total([scores for _, scores in self._weighted(request, replicas, now_s)], len(replicas))

    def _weighted(
        self, request: Request, replicas: Sequence[ReplicaView], now_s: float
    ) -> Iterator[tuple[str, Scores]]:
        """Yield each scorer that has a weight, and its scores times that."""
        if w := self.queue:
            yield "queue", _least_first(w, waiting_requests(replicas, now_s))
        if w := self.kv_cache:
            yield "kv_cache", [w - w * use if use < 1 else 0.0 for use in kv_usages(replicas, now_s)]
        if (w := self.prefix) and request.blocks:
            yield "prefix", self._prefixes(w, request, replicas)
        if w := self.running_requests:
            yield "running_requests", _least_first(w, running_requests(replicas, now_s))
        if w := self.load_aware:
            queues = waiting_requests(replicas, now_s)
            yield "load_aware", [w * max(0.0, 0.5 * (1 - queue / FULL_QUEUE)) for queue in queues]
        if w := self.token_load:
            yield "token_load", [w * (1 - min(1.0, _tokens(r) / FULL_TOKENS)) for r in replicas]
        if w := self.active_request:
            yield "active_request", _idle_first(w, [r.in_flight for r in replicas])
        if (w := self.lora_affinity) and request.adapter is not None:
            yield "lora_affinity", [w * _adapter_score(r, request.adapter) for r in replicas]
        if w := self.context_length_aware:
            yield "context_length_aware", [w * _context_score(r, request.prompt_tokens) for r in replicas]
        if (w := self.session_affinity) and request.session is not None:
            home = self._sessions.get(request.session)
            yield "session_affinity", [w if r.id == home else 0.0 for r in replicas]
        if w := self.no_hit_lru:
            yield "no_hit_lru", [w * score for score in self._coldest_first(request, replicas)]

    def _prefixes(self, weight: float, request: Request, replicas: Sequence[ReplicaView]) -> Scores:
        each = weight * (1 - self.long_prefix) / (len(request.blocks) * request.block_tokens)
        if not (long := weight * self.long_prefix):
            return [each * r.prefix.matched_tokens(request) for r in replicas]
        matched = [r.prefix.matched_tokens(request) for r in replicas]
        return [long * min(1.0, tokens / LONG_PREFIX_TOKENS) ** 2 + each * tokens for tokens in matched]

    def _coldest_first(self, request: Request, replicas: Sequence[ReplicaView]) -> Scores:
        """For a prompt that nobody has begun: the longer without one the better, never is best."""
        if len(replicas) == 1 or any(r.prefix.matched_tokens(request) for r in replicas):
            return [0.5] * len(replicas)
        order = [r.id for r in replicas if r.id not in self._cold] + list(self._cold)
        places = {name: place for place, name in enumerate(order)}
        return [max(0.0, 1 - places[r.id] / (len(replicas) - 1)) for r in replicas]

    def _considered(self, request: Request, fleet: FleetView) -> Sequence[ReplicaView]:
        able = fleet.able(request)
        return self._kept(request, able) if self.prefix_filter and request.blocks and able else able

    def _kept(self, request: Request, able: Sequence[ReplicaView]) -> Sequence[ReplicaView]:
        """Those with enough of the prompt, if there are any that are not too busy; else all."""
        enough_tokens = self.sticky_share * len(request.blocks) * request.block_tokens
        sticky = [r for r in able if r.prefix.matched_tokens(request) >= enough_tokens]
        if not sticky or len(sticky) == len(able):
            return able
        others = min(_tokens(r) for r in able if r not in sticky)
        gain_s = (min(_tokens(r) for r in sticky) - others) / self.prefill_tokens_per_s
        return able if gain_s > self.sticky_gain_s else sticky

    def note(self, fact: Event | Sent) -> None:
        """Remember where sessions and new prefixes went, if a scorer asks for it."""
        if not isinstance(fact, Sent):
            return
        request = fact.request
        if self.session_affinity and request.session is not None:
            _remember(self._sessions, request.session, fact.replica)
        if self.no_hit_lru:
            if not request.blocks or request.blocks[0] not in self._begun:
                _remember(self._cold, fact.replica, None)
            if request.blocks:
                _remember(self._begun, request.blocks[0], None)


def _total(weighted: Sequence[Scores], replicas: int) -> Scores:
    """Add up what each replica got, scorer by scorer."""
    total = weighted[0] if weighted else [0.0] * replicas
    for scores in weighted[1:]:
        total = list(map(add, total, scores))
    return total


def _least_first(weight: float, counts: Sequence[int]) -> Scores:
    """The weight for the least, 0 for the most, in proportion between them; all of it if they are equal."""
    most = max(counts)
    if (span := most - min(counts)) == 0:
        return [weight] * len(counts)
    each = weight / span
    return [each * (most - count) for count in counts]


def _idle_first(weight: float, counts: Sequence[int]) -> Scores:
    most = max(counts)
    return [weight * (most - count) / most if count else weight for count in counts]


def _tokens(replica: ReplicaView) -> int:
    return replica.queued_tokens + replica.context_tokens + replica.coming_tokens


def _adapter_score(replica: ReplicaView, adapter: str) -> float:
    """1 if the adapter is on the device, less if there is room for it, 0 if none or nothing is known."""
    if adapter in replica.adapters:
        return 1.0
    limits = replica.spec.limits
    free = limits is not None and (limits.adapters is None or len(replica.adapters) < limits.adapters)
    return 0.8 if free else 0.0


def _context_score(replica: ReplicaView, prompt_tokens: int) -> float:
    """More than 0.3 if the prompt fits, and most if closely; less by how much it does not fit."""
    limits = replica.spec.limits
    if limits is None:
        return 0.5
    headroom_tokens = limits.context_tokens - prompt_tokens
    if headroom_tokens < 0:
        return 0.3 / (1 - headroom_tokens / FAR_TOKENS)
    headroom = headroom_tokens / limits.context_tokens
    return 0.3 + 0.7 * (0.7 / (1 + limits.context_tokens / WIDE_TOKENS) + 0.3 * headroom)


def _remember(known: MutableMapping[Key, Value], key: Key, value: Value) -> None:
    """Put the key last, and forget the first one of too many."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MOST_REMEMBERED:
        del known[next(iter(known))]
