"""Asking a policy what it would do, and why, while a log is told again."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.event import Event
from millrace.core.explanation import reasons
from millrace.core.fleet import Decision, FleetView, ReplicaView, Route, Sent
from millrace.core.forecast import Forecast
from millrace.core.request import Request
from millrace.core.weighed import Explanation, Weighed
from millrace.policies import Described, describe

ASSUMED_TOKENS_PER_S = 1000.0  # by replicas of unknown speed, as policies assume


class Candidate(Struct, frozen=True, kw_only=True):
    """A replica that could have been chosen: what is on the controller's books, and what was made of it.

    The project's forecast, whatever the policy, is a first token after `foreseen_s`. The last four are the
    policy's own (see `core.weighed`); `place` is None if it did not weigh this replica, or cannot tell.
    """

    replica: str
    waiting: int
    running: int
    queued_tokens: int
    cached_tokens: int
    foreseen_s: float
    place: int | None = None
    total: float | None = None
    terms: dict[str, float] = {}
    ttft_s: float | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """What a policy decides at a moment, and why.

    `by` says what the candidates' totals are; empty if the policy cannot tell what it weighs. `sent_to` is
    where the log's policy sent the request, and `ttft_s` how long after that the first token came from there.
    Told again, the log's first answer that is not the one on record is on line `first_difference`.
    """

    now_s: float
    request_id: str
    model: str
    prompt_tokens: int
    policy: Described
    decision: Decision
    by: str
    candidates: tuple[Candidate, ...]
    sent_to: str | None = None
    ttft_s: float | None = None
    first_difference: int | None = None


class Inquiry:
    """Follows a fleet with a policy of its own, which learns what that of the log learned.

    It asks when a request is sent for the `attempt`th time, and whenever it is held before that; without a
    `request_id`, only when it is told to.
    """

    def __init__(self, policy: Any, request_id: str | None = None, attempt: int = 1) -> None:
        self.answer: Answer | None = None
        self.sent = 0
        self._policy, self._request_id, self._attempt = policy, request_id, attempt
        self._forecast = Forecast(ASSUMED_TOKENS_PER_S)
        self._learn = getattr(policy, "note", None)

    @property
    def is_over(self) -> bool:
        """Whether the decision that was asked for has been taken."""
        return self.sent == self._attempt

    def note(self, fact: Event | Sent) -> None:
        """Learn what there is to learn."""
        self._forecast.note(fact)
        if self._learn is not None:
            self._learn(fact)

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Ask, if it is the request in question."""
        if request.id == self._request_id and not self.is_over:
            sent_to = decision.replica if isinstance(decision, Route) else None
            self.sent += sent_to is not None
            self.answer = self.ask(request, fleet, sent_to)

    def ask(self, request: Request, fleet: FleetView, sent_to: str | None = None) -> Answer:
        """Ask the policy about a request."""
        decision = self._policy.route(request, fleet)
        told = reasons(self._policy, request, fleet, decision.why)
        return Answer(
            now_s=fleet.now_s,
            request_id=request.id,
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            policy=describe(self._policy),
            decision=decision,
            by=told.by,
            candidates=self._candidates(request, fleet, told),
            sent_to=sent_to,
        )

    def _candidates(self, request: Request, fleet: FleetView, told: Explanation) -> tuple[Candidate, ...]:
        """Return those who could answer, or compute the prompt: the best first, then by the forecast."""
        replicas = [*fleet.able(request), *fleet.prefilling(request)]
        foreseen_s = self._forecast.first_tokens_s(request, replicas, fleet.now_s)
        weighed = {one.replica: one for one in told.weighed}
        found = [
            _candidate(request, replica, seconds, weighed.get(replica.id))
            for replica, seconds in zip(replicas, foreseen_s, strict=True)
        ]
        return tuple(sorted(found, key=_by_place))


def _candidate(request: Request, replica: ReplicaView, foreseen_s: float, own: Weighed | None) -> Candidate:
    known = Candidate(
        replica=replica.id,
        waiting=replica.waiting,
        running=replica.running,
        queued_tokens=replica.queued_tokens,
        cached_tokens=replica.prefix.matched_tokens(request),
        foreseen_s=foreseen_s,
    )
    if own is None:
        return known
    return replace(known, place=own.place, total=own.total, terms=own.terms, ttft_s=own.ttft_s)


def _by_place(one: Candidate) -> tuple[bool, int, float, str]:
    return one.place is None, one.place or 0, one.foreseen_s, one.replica
