"""Send the request where it costs least and is in time; if it would be late anywhere, out of the others' way.

For each replica the time to the first token is predicted in seconds: the prompts in front as far as they are
not computed yet, its own tokens that the prefix cache lacks, steps shared with running requests, their
context, and the loading of an adapter; what a replica took before corrects it. Where that is a `roomy` share
of the objective, what counts is the work that the request brings, for the running ones too, and the wait: so
it goes where its prefix is cached, and nobody is crowded. Where it is more, the soonest replica is taken. A
request that would be late everywhere takes time from those that can be helped: unless the fleet is at ease,
it joins the longest queue, but none where it would wait for more than `patience_s`, and only while at most a
share `most_late` of the latest requests is late, since an objective that more of them miss is not to be saved
that way. Without an objective the soonest replica is taken.

Of more than `candidates` replicas only those are weighed that may be best: half as many with the shortest
wait, half as many with the most of the prompt, and the longest queue.

Source: this project. Predicted times to the first token are Mooncake's (Qin et al., FAST 2025), affinity
while the objective holds is DualMap's (arXiv:2602.06502).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from typing import NamedTuple

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.forecast import Forecast, Line, loading_s
from millrace.core.load import waiting_requests
from millrace.core.request import Request
from millrace.core.weighed import Explanation

SOONEST, CHEAPEST, SPARING = "soonest", "cheapest in time", "late anywhere: out of the way"
MEANING = {
    SOONEST: "seconds to a first token, the least wins",
    CHEAPEST: "seconds of work, for others too, and of waiting, the least wins",
    SPARING: "seconds of waiting, the most wins",
}

RECENT = 200  # requests that tell how many are late


class Candidate(NamedTuple):
    """What is predicted of a replica, in seconds, and how many of the prompt's tokens it has.

    The first token comes after `ttft_s`: the wait for the prompts in front, the work on this one, and the
    loading of its adapter.
    """

    replica: ReplicaView
    ttft_s: float
    wait_s: float
    work_s: float
    adapter_s: float
    cached_tokens: int


@dataclass(slots=True)
class Policy:
    """`slo_ttft_s` is the objective of requests that bring none.

    A prediction up to `roomy` times it leaves room, up to `in_time` times it can be trusted. `wait_weight` is
    what a second of waiting counts beside a second of work where there is room, and `others_weight` what it
    counts for each running request that shares its steps with the prompt. The fleet is at ease while on more
    than a share `at_ease` of its replicas one waits no longer than `short` times the objective.
    """

    slo_ttft_s: float | None = None
    roomy: float = 0.5
    in_time: float = 0.9
    wait_weight: float = 1.0
    others_weight: float = 0.02
    short: float = 0.2
    at_ease: float = 0.7
    most_late: float = 0.1
    patience_s: float = 600.0
    candidates: int = 16
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0
    _forecast: Forecast = field(init=False, repr=False, compare=False)
    _late: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        for name in ("roomy", "in_time", "short", "at_ease", "patience_s", "assumed_tokens_per_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.slo_ttft_s is not None and not 0 < self.slo_ttft_s < inf:
            raise ValueError(
                f"slo_ttft_s is {self.slo_ttft_s}; it must be positive, or None for no objective"
            )
        for name in ("wait_weight", "others_weight"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0")
        if self.candidates < 2:
            raise ValueError(f"candidates is {self.candidates}; weigh at least 2 replicas")
        self._forecast = Forecast(self.assumed_tokens_per_s)

    def note(self, fact: Event | Sent) -> None:
        """Follow every request, to foresee when each replica is free, and how many are late."""
        if type(fact) is Sent and not fact.moved:
            slo_s = fact.request.slo.ttft_s or self.slo_ttft_s
            late = slo_s is not None and self._forecast.ttft_s(fact) > self.in_time * slo_s
            self._late += (late - self._late) / RECENT
        self._forecast.note(fact)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        weighed, waits = self.weigh(request, able, fleet.now_s)
        ranks, why = self._rank(weighed, waits, request.slo.ttft_s or self.slo_ttft_s)
        return Route(weighed[draw_least(ranks, request.id, self.seed)].replica.id, why)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what is predicted of each candidate, in seconds; the total is what the rule compares."""
        able = fleet.able(request)
        if not able:
            return Explanation()
        weighed, waits = self.weigh(request, able, fleet.now_s)
        ranks, why = self._rank(weighed, waits, request.slo.ttft_s or self.slo_ttft_s)
        return explanation(
            MEANING[why],
            [one.replica for one in weighed],
            ranks,
            totals=[rank[1] if why == SOONEST else abs(rank[0]) for rank in ranks],
            terms={
                "wait_s": [one.wait_s for one in weighed],
                "work_s": [one.work_s for one in weighed],
                "adapter_s": [one.adapter_s for one in weighed],
                "others_s": [self._imposed_s(one) for one in weighed],
            },
            ttft_s=[one.ttft_s for one in weighed],
        )

    def weigh(
        self, request: Request, able: Sequence[ReplicaView], now_s: float
    ) -> tuple[list[Candidate], list[float]]:
        """Predict when the first token would come from each replica that may be best; and all waits."""
        lines = self._forecast.lines(able)
        waits = [max(line.behind_s, line.free_s - now_s) for line in lines]
        if any(map(_says_more, able)):
            waits = self._with_others(request, able, lines, waits, now_s)
        cached = [r.prefix.matched_tokens(request) for r in able] if request.blocks else [0] * len(able)
        few = len(able) <= self.candidates
        places = range(len(able)) if few else self._promising(waits, cached)
        return [_candidate(request, able[n], lines[n], waits[n], cached[n]) for n in places], waits

    def _with_others(
        self,
        request: Request,
        able: Sequence[ReplicaView],
        lines: list[Line],
        waits: list[float],
        now_s: float,
    ) -> list[float]:
        """Where more requests are said to wait than we have sent, wait for as many prompts like this one."""
        tokens = request.prompt_tokens
        return [
            max(wait_s, waiting * line.seconds(tokens, 0.5 * tokens * tokens))
            if waiting > replica.waiting
            else wait_s
            for replica, line, wait_s, waiting in zip(
                able, lines, waits, waiting_requests(able, now_s), strict=True
            )
        ]

    def _promising(self, waits: list[float], cached: list[int]) -> list[int]:
        """Name the places of the shortest waits, of the most of the prompt, and of the longest queue."""
        half = self.candidates // 2
        by_wait = sorted(range(len(waits)), key=waits.__getitem__)
        known = nsmallest(half, [n for n, tokens in enumerate(cached) if tokens], lambda n: -cached[n])
        late = next((n for n in reversed(by_wait) if waits[n] <= self.patience_s), by_wait[0])
        return list(dict.fromkeys([*by_wait[:half], *known, late]))

    def _rank(
        self, weighed: list[Candidate], waits: list[float], slo_s: float | None
    ) -> tuple[list[tuple[float, float, int]], str]:
        """Rank the candidates, the least first, and say by what."""
        soonest_s = min(one.ttft_s for one in weighed)
        if slo_s is not None and soonest_s <= self.roomy * slo_s:
            room_s = self.roomy * slo_s
            return [self._crowding(one, room_s) for one in weighed], CHEAPEST
        if slo_s is not None and soonest_s > self.in_time * slo_s and self._may_spare(waits, slo_s):
            return [self._sparing(one) for one in weighed], SPARING
        return [(0.0, one.ttft_s, one.replica.in_flight) for one in weighed], SOONEST

    def _may_spare(self, waits: list[float], slo_s: float) -> bool:
        """Whether others need to be spared a late request, and few enough are late for that to help."""
        at_ease = sum([wait_s <= self.short * slo_s for wait_s in waits]) > self.at_ease * len(waits)
        return not at_ease and self._late <= self.most_late

    def _crowding(self, one: Candidate, room_s: float) -> tuple[float, float, int]:
        if one.ttft_s > room_s:
            return inf, one.ttft_s, one.replica.in_flight
        own_s = (one.work_s + one.adapter_s) * (1.0 + self.others_weight * one.replica.running)
        return own_s + self.wait_weight * one.wait_s, one.wait_s, one.replica.in_flight

    def _imposed_s(self, one: Candidate) -> float:
        """What those that run lose, as far as it counts where there is room."""
        return (one.work_s + one.adapter_s) * self.others_weight * one.replica.running

    def _sparing(self, one: Candidate) -> tuple[float, float, int]:
        if one.wait_s > self.patience_s:
            return inf, one.ttft_s, one.replica.in_flight
        return -one.wait_s, one.ttft_s, one.replica.in_flight


def _candidate(
    request: Request, replica: ReplicaView, line: Line, wait_s: float, cached_tokens: int
) -> Candidate:
    adapter_s = loading_s(request, replica)
    work_s = line.prompt_s(request.prompt_tokens, cached_tokens)
    return Candidate(replica, wait_s + work_s + adapter_s, wait_s, work_s, adapter_s, cached_tokens)


def _says_more(replica: ReplicaView) -> bool:
    """Whether more requests are said to wait there than we have sent."""
    report = replica.report
    return report is not None and report.waiting is not None and report.waiting > replica.waiting
