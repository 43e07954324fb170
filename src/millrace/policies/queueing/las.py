"""Least attained service: the program goes first that has had least lately, and has waited longest.

A program is a session (an agent's or a chat's calls share one); a request without a session is a program of
its own. What it attained are the tokens of its prompts and `answer_weight` times those of its answers, which
fade by half every `half_life_s`. Its rank is `service_share` of that less the rest of how long its request
has waited, each as a share of the most that any has; the lowest goes first. So a long agent run yields to
newcomers, but not for ever.

A session is remembered until less than a token of what it attained is left.

Source: the program-aware fairness of llm-d's router (0.8 of attained service with output tokens doubled and a
half-life of 60 s, less 0.2 of the head's wait); Autellix (Luo et al., 2025) for programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop
from math import inf

from msgspec import Struct

from millrace.core.event import Cancelled, Event, Failed, Finished
from millrace.core.fleet import FleetView, Sent
from millrace.core.request import Request

FEW_PROGRAMS = 1024


class Attained(Struct):
    """So many tokens of service, as of `at_s`."""

    tokens: float
    at_s: float


@dataclass(slots=True)
class Policy:
    """The constants are llm-d's."""

    service_share: float = 0.8
    answer_weight: float = 2.0
    half_life_s: float = 60.0
    _attained: dict[str, Attained] = field(init=False, repr=False, compare=False, default_factory=dict)
    _sent: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)
    _tidy_at: int = field(init=False, repr=False, compare=False, default=FEW_PROGRAMS)

    def __post_init__(self) -> None:
        if not 0 <= self.service_share <= 1:
            raise ValueError(f"service_share is {self.service_share}; it must be from 0 to 1")
        if not 0 <= self.answer_weight < inf:
            raise ValueError(f"answer_weight is {self.answer_weight}; it must be a number from 0")
        if not 0 < self.half_life_s < inf:
            raise ValueError(f"half_life_s is {self.half_life_s}; it must be seconds above 0")

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        waiting = list(held)
        return waiting if len(waiting) < 2 else self._least_first(waiting, fleet)

    def note(self, fact: Event | Sent) -> None:
        """Charge prompts when they are sent, and answers when they end."""
        if isinstance(fact, Sent):
            session = fact.request.session
            if session is not None and not fact.moved:
                self._sent[fact.request.id] = session
                self._charge(session, fact.request.prompt_tokens, fact.now_s)
        elif isinstance(fact, Finished):
            session = self._sent.pop(fact.request_id, None)
            if session is not None:
                self._charge(session, self.answer_weight * (fact.output_tokens or 0), fact.now_s)
        elif isinstance(fact, Failed | Cancelled):
            self._sent.pop(fact.request_id, None)

    def attained_tokens(self, session: str | None, now_s: float) -> float:
        """Return what is left of a program's service."""
        known = None if session is None else self._attained.get(session)
        if known is None:
            return 0.0
        return float(known.tokens * 0.5 ** ((now_s - known.at_s) / self.half_life_s))

    def _least_first(self, waiting: list[Request], fleet: FleetView) -> Iterator[Request]:
        """A heap, since mostly the first alone is asked for; places decide between equals."""
        attained = [self.attained_tokens(one.session, fleet.now_s) for one in waiting]
        waits_s = [fleet.waited_s(one) or 0.0 for one in waiting]
        most, longest_s = max(attained) or 1.0, max(waits_s) or 1.0
        share = self.service_share
        heap = [
            (share * tokens / most - (1 - share) * wait_s / longest_s, place)
            for place, (tokens, wait_s) in enumerate(zip(attained, waits_s, strict=True))
        ]
        heapify(heap)
        while heap:
            yield waiting[heappop(heap)[1]]

    def _charge(self, session: str, tokens: float, now_s: float) -> None:
        left = self.attained_tokens(session, now_s)
        self._attained[session] = Attained(left + tokens, now_s)
        if len(self._attained) >= self._tidy_at:
            self._tidy(now_s)

    def _tidy(self, now_s: float) -> None:
        faded = [name for name in self._attained if self.attained_tokens(name, now_s) < 1]
        for name in faded:
            del self._attained[name]
        self._tidy_at = max(FEW_PROGRAMS, 2 * len(self._attained))
