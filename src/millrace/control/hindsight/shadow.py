"""Policies that are asked too, and change nothing: how often they disagree, and what they would gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from millrace.control.hindsight.inquiry import ASSUMED_TOKENS_PER_S
from millrace.control.log import Recording, Retelling
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Route, Sent
from millrace.core.forecast import Forecast
from millrace.core.request import Request
from millrace.core.stats import Summary, summary

Agreement = Literal["same", "other", "none"]


class Swap(Struct, frozen=True, kw_only=True):
    """So many requests went to the `sent` replica which the shadow would have sent to the `shadow` one."""

    sent: str
    shadow: str
    requests: int


class Compared(Struct, frozen=True, kw_only=True):
    """What a shadow made of the decisions of another policy, each in the world as it was.

    Of all `decisions` that sent a request, it would have sent `same` to the same replica, `other` elsewhere,
    and `none` not at all. Where it would have sent elsewhere, `gain_s` are the seconds by which the forecast
    sees a first token sooner there, and `gained_cached_tokens` the prompt tokens that are cached there and
    not where the request went, all in all; the forecast saw `sooner` of them sooner, and `later` later.
    """

    policy: str
    decisions: int
    same: int
    other: int
    none: int
    sooner: int
    later: int
    gain_s: Summary | None
    gained_cached_tokens: int
    swaps: tuple[Swap, ...]

    @property
    def disagreement(self) -> float:
        """The share of decisions that the shadow would have taken differently."""
        return 1 - self.same / self.decisions if self.decisions else 0.0

    @property
    def mean_gain_s(self) -> float:
        """The seconds foreseen to be gained by each request, of all that were sent."""
        return self.gain_s.mean * self.gain_s.count / self.decisions if self.gain_s else 0.0


def agreement(sent: Route, shadow: Decision) -> Agreement:
    """Return whether a shadow sends a request where it was sent."""
    if not isinstance(shadow, Route):
        return "none"
    return "same" if (shadow.replica, shadow.prefill_on) == (sent.replica, sent.prefill_on) else "other"


class Comparison:
    """Asks a shadow about every request that is sent, and keeps the books on what it says."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._forecast = Forecast(ASSUMED_TOKENS_PER_S)
        self._learn = getattr(policy, "note", None)
        self._agreed: Counter[Agreement] = Counter()
        self._swaps: Counter[tuple[str, str]] = Counter()
        self._gains_s: list[float] = []
        self._cached_tokens = 0

    def note(self, fact: Event | Sent) -> None:
        """Learn what happened, and what was really sent."""
        self._forecast.note(fact)
        if self._learn is not None:
            self._learn(fact)

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Ask what the shadow would have done instead."""
        if not isinstance(decision, Route):
            return
        shadow = self._policy.route(request, fleet)
        how = agreement(decision, shadow)
        self._agreed[how] += 1
        if how == "other":
            self._weigh(request, fleet, decision, shadow)

    def result(self, name: str) -> Compared:
        """Return the books."""
        agreed, gains_s = self._agreed, self._gains_s
        return Compared(
            policy=name,
            decisions=agreed.total(),
            same=agreed["same"],
            other=agreed["other"],
            none=agreed["none"],
            sooner=sum(gain_s > 0 for gain_s in gains_s),
            later=sum(gain_s < 0 for gain_s in gains_s),
            gain_s=summary(gains_s) if gains_s else None,
            gained_cached_tokens=self._cached_tokens,
            swaps=tuple(
                Swap(sent=sent, shadow=shadow, requests=count)
                for (sent, shadow), count in sorted(self._swaps.items(), key=_most_first)
            ),
        )

    def _weigh(self, request: Request, fleet: FleetView, sent: Route, shadow: Route) -> None:
        """Foresee both first tokens: each comes after the prompt is computed, wherever that is."""
        self._swaps[sent.replica, shadow.replica] += 1
        computing = [one.prefill_on or one.replica for one in (sent, shadow)]
        known = {replica.id: replica for replica in fleet.replicas}
        replicas = [known[name] for name in computing]
        here_s, there_s = self._forecast.first_tokens_s(request, replicas, fleet.now_s)
        here, there = (replica.prefix.matched_tokens(request) for replica in replicas)
        self._gains_s.append(here_s - there_s)
        self._cached_tokens += there - here


class Comparisons:
    """Several comparisons at once."""

    def __init__(self, policies: Mapping[str, Any]) -> None:
        self._comparisons = {name: Comparison(policy) for name, policy in policies.items()}

    def note(self, fact: Event | Sent) -> None:
        """Tell every one of them."""
        for one in self._comparisons.values():
            one.note(fact)

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Ask every one of them."""
        for one in self._comparisons.values():
            one.decided(request, fleet, decision)

    def results(self) -> list[Compared]:
        """Return the books of each."""
        return [one.result(name) for name, one in self._comparisons.items()]


def compare(lines: Iterable[bytes], policies: Mapping[str, Any]) -> tuple[Retelling, list[Compared]]:
    """Tell a log again, and ask policies, by name, at every request that it sent.

    Raises what reading a log does.
    """
    asking = Comparisons(policies)
    told = Retelling(Recording(lines), asking)
    for _ in told:
        pass
    return told, asking.results()


def _most_first(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -item[1], item[0]
