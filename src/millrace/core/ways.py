"""How an answer under way can leave a replica that drains, in predicted seconds: the soonest way is taken.

It stays until it is over, or its KV cache moves to another replica (as in Llumnix, Sun et al., OSDI 2024), or
another one computes prompt and answer so far again (token replay, NVIDIA Dynamo's request migration). Whoever
has no token yet stays in its queue, or is sent elsewhere. What nobody measured is taken to be slow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.fleet import FleetView, ReplicaView, Underway
from millrace.core.waits import Waits, work_s
from millrace.core.weighed import Explanation, Weighed

Kind = Literal["stay", "move", "replay"]
BY = "seconds until the answer goes on without a replica that drains"
MOST_TOLD = 4  # replicas of a large fleet that an explanation names
_RANKS: dict[Kind, int] = {"stay": 0, "move": 1, "replay": 2}


class Assumed(Struct, frozen=True, kw_only=True):
    """What to reckon with where nobody says better: a slow network and a slow engine.

    Every `period_s` it is asked again who should leave, as long as answers are under way on a replica that
    drains. KV caches go from replica to replica at `link_bytes_per_s`, each after `link_latency_s`.
    """

    period_s: float = 1.0
    link_bytes_per_s: float = 125e6
    link_latency_s: float = 0.01
    prefill_tokens_per_s: float = 1000.0
    decode_step_s: float = 0.1

    def __post_init__(self) -> None:
        for name in ("period_s", "link_bytes_per_s", "prefill_tokens_per_s", "decode_step_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.link_latency_s < inf:
            raise ValueError(f"link_latency_s is {self.link_latency_s}; it must not be negative")


class Way(Struct, frozen=True):
    """One way on: at which replica, and in how many seconds. That has `load_tokens` to do already."""

    kind: Kind
    replica: str
    seconds: float
    load_tokens: int = 0


def context_bytes(flight: Underway, source: ReplicaView, now_s: float) -> float | None:
    """Return the bytes of an answer's KV cache, at most; None if nobody says what a token takes."""
    each_bytes = source.spec.kv_bytes_per_token
    if each_bytes is None:
        return None
    return each_bytes * (flight.request.prompt_tokens + generated(flight, source, now_s)[1])


def generated(flight: Underway, source: ReplicaView, now_s: float) -> tuple[int, int]:
    """Return the least and the most tokens that an answer has by now."""
    step_s, most = source.spec.decode_step_s, flight.request.max_tokens
    if not flight.started:
        return 0, 0
    if step_s is None:
        return 0, most
    tokens = min(most, int((now_s - flight.started_s) / step_s) + 1)
    return tokens, tokens


class Ways:
    """Predicts them, from what a fleet's replicas say of themselves and what `assumed` says for the rest."""

    def __init__(self, assumed: Assumed) -> None:
        self.assumed = assumed
        self._waits = Waits(assumed.prefill_tokens_per_s)

    def on(
        self,
        flight: Underway,
        source: ReplicaView,
        targets: Sequence[ReplicaView],
        fleet: FleetView,
        *,
        waiting: Collection[Underway],
        ahead_bytes: float = 0.0,
        barred: Collection[str] = (),
    ) -> list[Way]:
        """Return every way from `source` to one of the targets, and the one to stay.

        Those `waiting` at the source are looked through for who is in front of a request without a token.
        Links carry `ahead_bytes` from there first. Kinds that are `barred` have been tried in vain.
        """
        found = [Way("stay", source.id, self._stay_s(flight, source, waiting, fleet))]
        roomy = [one for one in targets if has_room(one, flight.request.prompt_tokens)]
        if flight.started and "move" not in barred:
            found += self._moves(flight, source, roomy, fleet.now_s, ahead_bytes)
        if "replay" not in barred:
            found += self._replays(flight, source, roomy, fleet)
        return found

    def _stay_s(
        self, flight: Underway, source: ReplicaView, waiting: Collection[Underway], fleet: FleetView
    ) -> float:
        """Predict when an answer is over where it is; of one without a token, when its turn is.

        It may have been computed ever since it was sent: an answer that is no stream shows nothing of it.
        """
        if not flight.started:
            [speeds] = self._waits.speeds([source], fleet)
            turn_s = work_s(_queued_until(flight, source, waiting), 0, source, speeds)
            return max(0.0, turn_s - (fleet.now_s - flight.sent_s))
        request, (least, _) = flight.request, generated(flight, source, fleet.now_s)
        expected = request.expected_tokens
        last = request.max_tokens if expected is None or expected <= least else expected
        return max(1, last - least) * (source.spec.decode_step_s or self.assumed.decode_step_s)

    def _moves(
        self,
        flight: Underway,
        source: ReplicaView,
        targets: Iterable[ReplicaView],
        now_s: float,
        ahead_bytes: float,
    ) -> Iterator[Way]:
        own_bytes, fitting = context_bytes(flight, source, now_s), source.spec.kv_format
        if own_bytes is None or fitting is None:
            return
        seconds = self.assumed.link_latency_s + (ahead_bytes + own_bytes) / self.assumed.link_bytes_per_s
        for target in targets:
            if target.spec.kv_format == fitting:
                yield Way("move", target.id, seconds, _load_tokens(target))

    def _replays(
        self, flight: Underway, source: ReplicaView, targets: Sequence[ReplicaView], fleet: FleetView
    ) -> Iterator[Way]:
        request, (_, most) = flight.request, generated(flight, source, fleet.now_s)
        again = replace(request, prompt_tokens=request.prompt_tokens + most)
        speeds = self._waits.speeds(targets, fleet)
        firsts_s = self._waits.first_token_s(again, targets, fleet)
        for target, speed, first_s in zip(targets, speeds, firsts_s, strict=True):
            coming_s = target.coming_tokens / speed.tokens_per_s
            yield Way("replay", target.id, coming_s + first_s, _load_tokens(target))


def soonest(ways: Iterable[Way]) -> Way:
    """Return the way that takes the fewest seconds.

    Of equals the one that changes least, then at the replica with least to do.
    """
    return min(ways, key=lambda way: (way.seconds, _RANKS[way.kind], way.load_tokens, way.replica))


def has_room(target: ReplicaView, tokens: int) -> bool:
    """Whether so many tokens fit into a replica's KV cache, as far as it says."""
    free_tokens = None if target.report is None else target.report.kv_free_tokens
    return free_tokens is None or free_tokens - target.coming_tokens >= tokens


def told(chosen: Way, ways: Iterable[Way]) -> Explanation:
    """Return what was weighed, by replica: the seconds of each way there, the soonest replicas first."""
    terms: dict[str, dict[str, float]] = {}
    for way in ways:
        terms.setdefault(way.replica, {})[way.kind] = way.seconds
    ranked = sorted((min(found.values()), name != chosen.replica, name) for name, found in terms.items())
    rows = [
        Weighed(name, place, total=total_s, terms=terms[name])
        for place, (total_s, _, name) in enumerate(ranked[:MOST_TOLD], 1)
    ]
    return Explanation(why=chosen.kind, by=BY, weighed=tuple(rows))


def _load_tokens(target: ReplicaView) -> int:
    return target.context_tokens + target.queued_tokens + target.coming_tokens


def _queued_until(flight: Underway, source: ReplicaView, waiting: Iterable[Underway]) -> int:
    """Count the tokens that a replica computes before a request's first one: of those sent before it, too."""
    there = (one for one in waiting if one.replica == source.id and not one.started)
    return sum(one.queued_tokens for one in there if one.sent_s <= flight.sent_s)
