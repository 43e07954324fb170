"""When each replica will have computed the prompts in its queue, from what was sent and what came of it.

A prompt takes as many steps as its tokens fill beside the running requests, each as long as one of prompt
tokens only and longer for every cached token that it looks at; a part of a step takes at least as long as one
that only decodes. Engines compute prompts in the order in which they came.

What replicas of a kind took for their last prompts over what was foreseen corrects what is
foreseen next: of a kind, because who is thought slow alone is not asked again, and is thought so for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from millrace.core.event import Cancelled, Event, Failed, Finished, Moved, Prefilled, Reported, Started
from millrace.core.fleet import ReplicaView, Sent
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request

DEFAULTS = Limits()
FADING = 0.98  # of what was learned from one prompt when the next one is done
TRUST_S = 2.0  # so many seconds of prompts weigh as much as what a replica's spec says,
DOUBT_S = 0.05  # or as what is only assumed


class Work(NamedTuple):
    """What a prompt asks for: tokens to compute, and pairs of one of them and a token before it."""

    tokens: int
    pairs: float


NOTHING = Work(0, 0.0)


class Pace:
    """What replicas of one kind took, and what was foreseen; older prompts count for less."""

    __slots__ = ("_foreseen_s", "_taken_s", "factor")

    def __init__(self, prior_s: float) -> None:
        self._taken_s = self._foreseen_s = prior_s
        self.factor = 1.0

    def learn(self, taken_s: float, foreseen_s: float) -> None:
        """Take one more prompt into account, for which so much was foreseen with the factor at hand."""
        self._taken_s = FADING * self._taken_s + taken_s
        self._foreseen_s = FADING * self._foreseen_s + foreseen_s / self.factor
        self.factor = self._taken_s / self._foreseen_s


class Line:
    """The queue in front of one replica. By `free_s` it is foreseen to be empty, if nobody else comes.

    All but the first in it take `behind_s`: whoever comes now waits at least as long.
    """

    __slots__ = (
        "_alone_s",
        "_context_tokens",
        "_idle_s",
        "_least_s",
        "_pace",
        "_pair_s",
        "_queued",
        "_room",
        "_running",
        "_since_s",
        "_step_s",
        "_step_tokens",
        "_token_s",
        "behind_s",
        "free_s",
        "waiting",
    )

    def __init__(self, spec: ReplicaSpec, speed: float, pace: Pace) -> None:
        self.waiting: dict[str, Work] = {}
        self._queued = NOTHING
        self._step_tokens = self._room = (spec.limits or DEFAULTS).step_tokens
        self._alone_s = self._step_s = self._step_tokens / speed
        self._idle_s = self._least_s = min(spec.decode_step_s or 0.0, self._alone_s)
        self._token_s, self._pair_s = spec.context_s or 0.0, spec.attended_s or 0.0
        self._running = self._context_tokens = 0
        self._pace = pace
        self.free_s = self.behind_s = self._since_s = 0.0

    def seconds(self, tokens: int, pairs: float) -> float:
        """Predict what some work takes by itself: whole steps, a part of one, and what looking back costs."""
        whole, rest = divmod(tokens, self._room)
        seconds = whole * self._step_s + self._pair_s * pairs
        if rest:
            seconds += self._least_s + rest / self._room * (self._step_s - self._least_s)
        return self._pace.factor * seconds

    def prompt_s(self, prompt_tokens: int, cached_tokens: int) -> float:
        """Predict what a prompt takes by itself of which so many tokens are cached."""
        tokens = max(1, prompt_tokens - cached_tokens)
        return self.seconds(tokens, tokens * (cached_tokens + 0.5 * tokens))

    def enter(self, id: str, tokens: int, pairs: float, now_s: float) -> None:
        """Note that a request joined the queue."""
        seconds = self.seconds(tokens, pairs)
        if self.waiting:
            self.free_s = max(self.free_s, now_s + self.behind_s) + seconds
            self.behind_s += seconds
        else:
            self.free_s, self._since_s = now_s + seconds, now_s
        self.waiting[id] = Work(tokens, pairs)
        self._queued = Work(self._queued.tokens + tokens, self._queued.pairs + pairs)

    def start(self, id: str, context_tokens: int, now_s: float) -> None:
        """Note that a request's prompt is computed, which tells of the next ones' time; it runs now."""
        if next(iter(self.waiting)) == id:
            self._pace.learn(now_s - self._since_s, self.seconds(*self.waiting[id]))
        self._since_s = now_s
        self.run(context_tokens)
        self.leave(id, now_s)

    def leave(self, id: str, now_s: float) -> None:
        """Note that a request is not in the queue any more."""
        if next(iter(self.waiting)) == id:
            self._since_s = now_s
        work = self.waiting.pop(id)
        self._queued = Work(self._queued.tokens - work.tokens, self._queued.pairs - work.pairs)
        self._look_ahead(now_s)

    def run(self, context_tokens: int, count: int = 1) -> None:
        """Note that a request with this context runs from now on; or, with a count of -1, no longer."""
        self._carry(self._running + count, self._context_tokens + count * context_tokens)

    def see(self, replica: ReplicaView) -> Line:
        """Take over what a view says of the replica, for want of better knowledge."""
        self._carry(replica.running, replica.context_tokens)
        self.behind_s = self.seconds(replica.queued_tokens, 0.0)
        return self

    def _carry(self, running: int, context_tokens: int) -> None:
        self._running, self._context_tokens = running, context_tokens
        self._room = max(1, self._step_tokens - running)
        context_s = self._token_s * context_tokens
        self._step_s, self._least_s = self._alone_s + context_s, self._idle_s + context_s

    def _look_ahead(self, now_s: float) -> None:
        """Foresee again when the queue is empty, its first request being under way."""
        if not self.waiting:
            self._queued, self.behind_s, self.free_s = NOTHING, 0.0, now_s
            return
        head_s, all_s = self.seconds(*next(iter(self.waiting.values()))), self.seconds(*self._queued)
        self.behind_s = max(0.0, all_s - head_s)
        self.free_s = self.behind_s + max(now_s, self._since_s + head_s)


class Forecast:
    """The lines of all replicas, kept by telling it everything that happens.

    A replica of unknown speed is taken to be as slow as the slowest known one; if none is known, it computes
    `assumed_tokens_per_s`.
    """

    def __init__(self, assumed_tokens_per_s: float) -> None:
        self._assumed = assumed_tokens_per_s
        self._lines: dict[str, Line] = {}
        self._specs: dict[str, ReplicaSpec] = {}
        self._paces: dict[ReplicaSpec, Pace] = {}
        self._unknown = Pace(DOUBT_S)
        self._flights: dict[str, tuple[Request, str, bool]] = {}

    def lines(self, replicas: Iterable[ReplicaView]) -> list[Line]:
        """Return the queues in front of replicas; one that was never told of is judged by its view."""
        known = self._lines
        return [known.get(replica.id) or self._new(replica.spec).see(replica) for replica in replicas]

    def ttft_s(self, sent: Sent) -> float:
        """Predict when the first token of a request comes that is just sent; 0 of an unknown replica."""
        line = self._lines.get(sent.replica)
        if line is None:
            return 0.0
        tokens, pairs = _work(sent)
        return max(line.behind_s, line.free_s - sent.now_s) + line.seconds(tokens, pairs)

    def first_tokens_s(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
        """Predict how long it takes from now to a first token of the request from each of these replicas."""
        return [
            max(line.behind_s, line.free_s - now_s)
            + line.prompt_s(request.prompt_tokens, replica.prefix.matched_tokens(request))
            + loading_s(request, replica)
            for replica, line in zip(replicas, self.lines(replicas), strict=True)
        ]

    def note(self, fact: Event | Sent) -> None:
        """Follow a request into its line, out of it, and to its end."""
        if isinstance(fact, Sent):
            self._send(fact)
        elif isinstance(fact, Reported):
            self._report(fact)
        elif isinstance(fact, Started):
            self._start(fact)
        elif isinstance(fact, Moved):
            self._move(fact)
        elif isinstance(fact, Finished | Failed | Cancelled | Prefilled):
            self._end(fact.request_id, fact.now_s)

    def _report(self, event: Reported) -> None:
        name = event.replica
        if event.spec is not None:
            self._specs[name] = event.spec
        if name not in self._lines or event.phase in ("starting", "gone"):
            spec = self._specs[name]
            self._paces[spec] = self._pace(spec)
            self._lines[name] = self._new(spec)
            self._flights = {one: flight for one, flight in self._flights.items() if flight[1] != name}

    def _send(self, sent: Sent) -> None:
        request = sent.request
        self._end(request.id, sent.now_s)
        if sent.replica in self._lines:
            self._lines[sent.replica].enter(request.id, *_work(sent), sent.now_s)
            self._flights[request.id] = (request, sent.replica, False)

    def _start(self, event: Started) -> None:
        request, replica, running = self._flights.get(event.request_id, NOBODY)
        if request is None or running:
            return
        self._lines[replica].start(request.id, request.prompt_tokens, event.now_s)
        self._flights[request.id] = (request, replica, True)

    def _move(self, event: Moved) -> None:
        request, replica, running = self._flights.get(event.request_id, NOBODY)
        if request is not None and running and replica != event.replica and event.replica in self._lines:
            self._lines[replica].run(request.prompt_tokens, -1)
            self._lines[event.replica].run(request.prompt_tokens)
            self._flights[request.id] = (request, event.replica, True)

    def _end(self, request_id: str, now_s: float) -> None:
        request, replica, running = self._flights.pop(request_id, NOBODY)
        if request is None:
            return
        line = self._lines[replica]
        if running:
            line.run(request.prompt_tokens, -1)
        else:
            line.leave(request_id, now_s)

    def _new(self, spec: ReplicaSpec) -> Line:
        return Line(spec, spec.prefill_tokens_per_s or self._slowest(), self._pace(spec))

    def _pace(self, spec: ReplicaSpec) -> Pace:
        """Return what is learned of replicas like this one; all of unknown speed are taken to be alike."""
        if not spec.prefill_tokens_per_s:
            return self._unknown
        return self._paces.get(spec) or Pace(TRUST_S)

    def _slowest(self) -> float:
        speeds = [spec.prefill_tokens_per_s for spec in self._specs.values() if spec.prefill_tokens_per_s]
        return min(speeds, default=self._assumed)


def loading_s(request: Request, replica: ReplicaView) -> float:
    """Return how long a replica loads the request's adapter, as far as that is known."""
    if request.adapter is None or request.adapter in replica.adapters:
        return 0.0
    return replica.spec.adapter_load_s or 0.0


NOBODY: tuple[None, str, bool] = (None, "", False)


def _work(sent: Sent) -> Work:
    tokens = sent.queued_tokens or 1
    return Work(tokens, tokens * (sent.request.prompt_tokens - 0.5 * tokens))
