"""Take queued requests away from a hotspot, each to its other home, where that pays.

A replica is a hotspot while a request in its queue is predicted to miss its time to first token. Of those
that wait there behind others, the one goes first that gains most by moving, until the replica is none any
more, each request once at most.

The published rule moves whatever gains at all, to where it would be in time; that loses more in caches than
it wins as soon as many move. Here a move has to gain more than `margin_s` and `cache_factor` times the
seconds by which the prompt takes longer where less of it is cached, which all those behind it wait, too; the
request must have at least `wait_s` still to wait where it is, and where it goes its turn must come within
`patience` times the objective, so that nothing moves when all are late.

Queues that were foreseen hold nothing to gain, since whoever was routed knew of them. What pays is to leave
those that were not: a prompt of which the cache has forgotten what it was believed to hold takes seconds
instead of a fraction, and everybody behind it waits. So a prompt in front that takes far longer than foreseen
is reckoned with as if nothing of it was cached, here and where a move would go. With that, nearly all of the
gain is in moves that lose little: a high `cache_factor` costs none of it, and keeps a fleet that is beyond
what it can take from wasting its caches (`benchmarks/migration.py`).

Source: DualMap (arXiv 2602.06502), from its abstract and published notes; the cost test is not from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from millrace.core.draw import draw
from millrace.core.event import Event
from millrace.core.fleet import FleetView, ReplicaView, Sent, Shift, Underway
from millrace.core.homes import Homes
from millrace.core.waits import Turn, Waits, prefill_s

MOST = 32  # requests of a queue that are looked at in a round


@dataclass(slots=True)
class Policy:
    """Settings that routing has too must be the same there, so that both know the same homes."""

    period_s: float = 0.25
    slo_ttft_s: float = 5.0
    margin_s: float = 0.25
    wait_s: float = 0.5
    cache_factor: float = 16.0
    patience: float = 2.0
    key_blocks: int = 2
    block_tokens: int = 512
    window: int = 512
    virtual_nodes: int = 150
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0
    _homes: Homes = field(init=False, repr=False, compare=False)
    _waits: Waits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.slo_ttft_s > 0:
            raise ValueError(f"slo_ttft_s is {self.slo_ttft_s}; it must be positive")
        for name in ("margin_s", "wait_s", "cache_factor", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        self._waits = Waits(self.assumed_tokens_per_s, doubting=True)
        self._homes = Homes(
            key_blocks=self.key_blocks,
            block_tokens=self.block_tokens,
            window=self.window,
            virtual_nodes=self.virtual_nodes,
            seed=self.seed,
        )

    def note(self, fact: Event | Sent) -> None:
        """Learn what is hot, and who waits where."""
        self._homes.note(fact)
        self._waits.note(fact)

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        """Look at each replica once, the longest queue first."""
        speeds = self._waits.speeds(fleet.replicas, fleet)
        queues_s = [
            (-self._waits.queue_s(replica, speed, fleet.now_s), replica.id, replica)
            for replica, speed in zip(fleet.replicas, speeds, strict=True)
            if replica.waiting > 1  # or nobody waits behind somebody
        ]
        for _, _, replica in sorted(queues_s, key=lambda one: one[:2]):
            yield from self._relieve(replica, fleet)

    def _relieve(self, source: ReplicaView, fleet: FleetView) -> Iterator[Shift]:
        """Move who gains most, as long as somebody is late."""
        turns = self._turns(source, fleet)
        if not self._is_hot(turns, fleet):
            return
        ranked = sorted(
            (-gain_s, draw(request_id, self.seed), request_id)
            for request_id in list(turns)[:MOST]
            if (gain_s := self._gain_s(turns[request_id], source, fleet)[0]) > 0
        )
        for _, _, request_id in ranked:
            turns = self._turns(source, fleet)  # again, as it changes with every move
            if not self._is_hot(turns, fleet):
                return
            gain_s, target = self._gain_s(turns[request_id], source, fleet)
            if gain_s > 0:
                yield Shift(request_id, target, f"gains {gain_s:.3f} s")

    def _turns(self, source: ReplicaView, fleet: FleetView) -> dict[str, Turn]:
        [speeds] = self._waits.speeds([source], fleet)
        return {turn.request_id: turn for turn in self._waits.turns(source, speeds, fleet.now_s)}

    def _is_hot(self, turns: dict[str, Turn], fleet: FleetView) -> bool:
        """Whether somebody waits who is going to be late."""
        for turn in turns.values():
            flight = fleet.flights.get(turn.request_id)
            if flight is not None and turn.ahead_s > self.wait_s:
                late_s = fleet.now_s - turn.sent_s - self._slo_s(flight)
                if late_s + turn.ahead_s + turn.own_s > 0:
                    return True
        return False

    def _gain_s(self, turn: Turn, source: ReplicaView, fleet: FleetView) -> tuple[float, str]:
        """Return the seconds by which a request gains more than a move has to, and where; 0 if it cannot."""
        flight = fleet.flights.get(turn.request_id)
        if flight is None or turn.moved or turn.ahead_s <= self.wait_s or not _is_movable(flight, source):
            return 0.0, source.id
        request = flight.request
        able = {replica.id: replica for replica in fleet.able(request)}
        if not able.keys() - {source.id}:
            return 0.0, source.id
        homes = self._homes.pair(request, tuple(replica.id for replica in fleet.replicas), able)
        others = [home for home in homes if home.id != source.id]
        there_s = self._waits.first_token_s(request, others, fleet)
        soonest_s = min(there_s)
        target = others[there_s.index(soonest_s)]
        [speeds] = self._waits.speeds([target], fleet)
        own_s = prefill_s(request, target, speeds)
        if fleet.now_s - turn.sent_s + soonest_s - own_s > self.patience * self._slo_s(flight):
            return 0.0, source.id
        lost_s = max(0.0, own_s - turn.own_s)
        gain_s = turn.ahead_s + turn.own_s - soonest_s
        return gain_s - self.margin_s - self.cache_factor * lost_s, target.id

    def _slo_s(self, flight: Underway) -> float:
        return flight.request.slo.ttft_s or self.slo_ttft_s


def _is_movable(flight: Underway, source: ReplicaView) -> bool:
    waits = flight.replica == source.id and not flight.started
    return waits and flight.prefill_on is None and flight.moving_to is None
