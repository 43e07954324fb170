"""Send the request where an answer is expected soonest, by the mean pace of what each replica answered.

expected = queueing + prefill seconds per prompt token * prompt tokens + decode seconds per token * tokens.
The source reads three means from each engine. Here they are learned from what happens to the requests: the
time to a first token, by the prompt tokens that were queued before it and its own, gives the pace at which
a replica gets through its queue, and the time after that the pace of decoding; both over the last requests.
The length of an answer is the expected one, else the mean of those that ended, else 100 tokens as in the
source. A replica that has answered nothing is as slow as the slowest known, so it is tried once the others
have queues; the source leaves it out, as long as any other has spoken.

The rule is greedy on means that lag: of equal replicas the one that happens to be thought fastest gets all
until its queue tells. A `buffer` above 0 takes replicas for equal that are within this share of the soonest,
and chooses the one with the fewest requests of them.

Source: AIBrix (0338af7) `least-latency`; LiteLLM for the buffer (`lowest_latency_buffer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean

from msgspec import Struct

from millrace.core.draw import draw_least
from millrace.core.event import Cancelled, Event, Failed, Finished, Reported, Started
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.request import Request
from millrace.core.weighed import Explanation

USUAL_ANSWER_TOKENS = 100.0


class Pace(Struct):
    """Seconds that so many tokens took, of so many requests; older ones count less and less."""

    seconds: float = 0.0
    tokens: float = 0.0
    requests: float = 0.0

    def learn(self, seconds: float, tokens: int, keep: float) -> None:
        """Count one more request, and `keep` of what was counted."""
        self.seconds = self.seconds * keep + seconds
        self.tokens = self.tokens * keep + tokens
        self.requests = self.requests * keep + 1


class Trip(Struct):
    """A request under way: `since_s` it was sent or started, with `work_tokens` to a first token."""

    replica: str
    since_s: float
    prompt_tokens: int
    work_tokens: int
    started: bool = False


@dataclass(slots=True)
class Policy:
    """Paces are means over about `window_requests`; `assumed_tokens_per_s` is the prefill speed of a replica
    of unknown speed while nothing has been answered by anybody.
    """

    window_requests: int = 100
    buffer: float = 0.0
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0
    _trips: dict[str, Trip] = field(init=False, repr=False, compare=False, default_factory=dict)
    _queued: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    _waits: dict[str, Pace] = field(init=False, repr=False, compare=False, default_factory=dict)
    _decodes: dict[str, Pace] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.window_requests < 1:
            raise ValueError(f"window_requests is {self.window_requests}; a mean is over at least 1")
        if not 0 <= self.buffer < inf:
            raise ValueError(f"buffer is {self.buffer}; it must be a share from 0")
        if not 0 < self.assumed_tokens_per_s < inf:
            raise ValueError(f"assumed_tokens_per_s is {self.assumed_tokens_per_s}; it must be positive")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        ranks = self._ranks(able, self.expected_s(request, able))
        return Route(able[draw_least(ranks, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell when each replica is expected to have answered."""
        able = fleet.able(request)
        expected_s = self.expected_s(request, able)
        ranks = self._ranks(able, expected_s) if able else []
        by = "seconds to a whole answer, the least wins"
        requests = {"requests": [r.in_flight for r in able]}
        return explanation(by, able, ranks, totals=expected_s, terms=requests)

    def _ranks(self, replicas: Sequence[ReplicaView], expected_s: Sequence[float]) -> list[tuple[float, int]]:
        within_s = min(expected_s) * (1 + self.buffer)
        return [
            (max(within_s, seconds), r.waiting + r.running)
            for r, seconds in zip(replicas, expected_s, strict=True)
        ]

    def expected_s(self, request: Request, replicas: Sequence[ReplicaView]) -> list[float]:
        """Return the seconds in which each replica is expected to have answered."""
        speeds = [r.spec.prefill_tokens_per_s or self.assumed_tokens_per_s for r in replicas]
        waits = _paces(self._waits, replicas, [1 / speed for speed in speeds])
        decodes = _paces(self._decodes, replicas, [r.spec.decode_step_s or 0.0 for r in replicas])
        prompt, answer = request.prompt_tokens, request.expected_tokens or self._usual_answer_tokens()
        return [
            (r.queued_tokens + prompt) * wait + answer * decode
            for r, wait, decode in zip(replicas, waits, decodes, strict=True)
        ]

    def _usual_answer_tokens(self) -> float:
        means = [pace.tokens / pace.requests for pace in self._decodes.values()]
        return fmean(means) if means else USUAL_ANSWER_TOKENS

    def note(self, fact: Event | Sent) -> None:
        """Learn from first tokens and ends how fast a replica is; what was learned ends with its process."""
        if isinstance(fact, Sent):
            self._depart(fact)
        elif isinstance(fact, Started):
            self._start(fact)
        elif isinstance(fact, Finished | Failed | Cancelled):
            self._end(fact)
        elif isinstance(fact, Reported) and fact.phase in ("starting", "gone"):
            self._waits.pop(fact.replica, None)
            self._decodes.pop(fact.replica, None)

    def _depart(self, sent: Sent) -> None:
        request, replica = sent.request, sent.replica
        self._leave(request.id)
        work = self._queued[replica] = self._queued.get(replica, 0) + request.prompt_tokens
        self._trips[request.id] = Trip(replica, sent.now_s, request.prompt_tokens, work)

    def _start(self, fact: Started) -> None:
        trip = self._trips.get(fact.request_id)
        if trip is None or trip.started:
            return
        self._waits.setdefault(trip.replica, Pace()).learn(
            fact.now_s - trip.since_s, trip.work_tokens, self._keep
        )
        self._queued[trip.replica] -= trip.prompt_tokens
        trip.started, trip.since_s = True, fact.now_s

    def _end(self, fact: Finished | Failed | Cancelled) -> None:
        trip = self._leave(fact.request_id)
        tokens = fact.output_tokens if isinstance(fact, Finished) else None
        if trip is not None and trip.started and tokens:
            self._decodes.setdefault(trip.replica, Pace()).learn(
                fact.now_s - trip.since_s, tokens, self._keep
            )

    def _leave(self, request_id: str) -> Trip | None:
        trip = self._trips.pop(request_id, None)
        if trip is not None and not trip.started:
            self._queued[trip.replica] -= trip.prompt_tokens
        return trip

    @property
    def _keep(self) -> float:
        return 1 - 1 / self.window_requests


def _paces(
    known: dict[str, Pace], replicas: Sequence[ReplicaView], otherwise: Sequence[float]
) -> list[float]:
    """Return the seconds per token of each replica: learned, else the worst learned, else what is assumed."""
    learned = [pace.seconds / pace.tokens if (pace := known.get(r.id)) else None for r in replicas]
    worst = max((pace for pace in learned if pace is not None), default=None)
    if worst is None:
        return list(otherwise)
    return [worst if pace is None else pace for pace in learned]
