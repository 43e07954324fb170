"""Pair replicas whose memory is nearly full with those that have most of it left, and move requests over.

Freeness is that of the routing policy `llumnix_freeness`: the iterations until a replica's memory is full,
after virtual usage, in which whoever drains has a fake request of infinite usage, so that everything moves
off it. In each round the least free replica below `low` is paired with the freest one above `high`, the next
with the next. Of a pair, requests of lower priority go first, then shorter ones, until the source is low no
more, or the target would be. Running ones take their KV cache along, `concurrency` of a replica at a time;
those without a token move where a replica drains, or with `live` off, for engines that cannot move a cache.

What a request has generated is estimated from when it started and the replica's decode step, if known.

Source: Llumnix (Sun et al., OSDI 2024), and its first implementation, Llumnix v0 (24220fb), for the order of
requests, one migration at a time, and the threshold of 3 blocks of 16 tokens; the period is that of v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from millrace.core.event import Event
from millrace.core.fleet import ANSWERING, FleetView, ReplicaView, Sent, Shift, Underway
from millrace.core.freeness import Freeness


@dataclass(slots=True)
class Policy:
    """`low` and `high` are in iterations until memory is full; `headroom_tokens` as in routing."""

    period_s: float = 0.1
    low: float = 48.0
    high: float = 48.0
    concurrency: int = 1
    live: bool = True
    headroom_tokens: int = 4096
    _freeness: Freeness = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high is {self.high}; it must be at least low, which is {self.low}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}; it must be at least 1")
        self._freeness = Freeness(headroom_tokens=self.headroom_tokens)

    def note(self, fact: Event | Sent) -> None:
        """Follow requests as routing does."""
        self._freeness.note(fact)

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        """Pair the least free replica with the freest one, and so on."""
        there = [r for r in fleet.replicas if r.phase in ("ready", "draining") and r.spec.role in ANSWERING]
        free = self._free(there, fleet)
        ranked = sorted(zip(free, (r.id for r in there), there, strict=True), key=lambda one: one[:2])
        sources = [r for free, _, r in ranked if free < self.low and r.in_flight]
        targets = [r for free, _, r in reversed(ranked) if free > self.high and r.phase == "ready"]
        for source, target in zip(sources, targets, strict=False):
            yield from self._relieve(source, target, fleet)

    def _free(self, replicas: list[ReplicaView], fleet: FleetView) -> list[float]:
        return self._freeness.of(replicas, fleet.now_s) if replicas else []

    def _relieve(self, source: ReplicaView, target: ReplicaView, fleet: FleetView) -> Iterator[Shift]:
        """Move requests until the source is low no more, as far as can be told before a cache has moved."""
        here = [one for one in fleet.flights.values() if one.replica == source.id and one.prefill_on is None]
        going = [one for one in here if one.moving_to is not None]
        freed = sum(_tokens(one, source, fleet.now_s) for one in going)
        moving = len(going)
        for flight in self._candidates(here, source, target, fleet.now_s):
            room, free = self._free([target, source], fleet)
            left = max(1, source.running)
            if free * left + freed >= self.low * max(1, left - moving):
                return
            tokens = _tokens(flight, source, fleet.now_s)
            fits = room * max(1, target.running) - tokens >= self.low * (target.running + 1)
            if fits and not (flight.started and moving >= self.concurrency):
                if flight.started:
                    freed, moving = freed + tokens, moving + 1
                yield Shift(flight.request.id, target.id, f"{tokens:.0f} tokens to the freest")

    def _candidates(
        self, here: Iterable[Underway], source: ReplicaView, target: ReplicaView, now_s: float
    ) -> list[Underway]:
        """Return who may go, first who goes first."""
        waiting = source.phase == "draining" or not self.live
        ranked = [
            (one.request.priority, _tokens(one, source, now_s), place, one)
            for place, one in enumerate(here)
            if one.moving_to is None
            and one.request.model in target.spec.models
            and (self.live if one.started else waiting)
        ]
        return [one for _, _, _, one in sorted(ranked, key=lambda row: row[:3])]


def _tokens(flight: Underway, replica: ReplicaView, now_s: float) -> float:
    """Estimate the tokens that a request has by now."""
    request, step_s = flight.request, replica.spec.decode_step_s
    if not flight.started or not step_s:
        return request.prompt_tokens
    return request.prompt_tokens + min(request.max_tokens, (now_s - flight.started_s) / step_s)
