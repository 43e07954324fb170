"""Weigh the share of the prompt that is cached against memory and queue, all as shares of one.

score = matched blocks / blocks - KV usage - waiting / most waiting; the highest wins, ties are drawn.

The source divides integers, so its first share is 0 unless the whole prompt is cached, and its last one 0
unless nobody has more waiting: prefixes and queues hardly count. That can be had with `as_written`; the
default is what was meant. Unlike the source, somebody is chosen at any score (it finds nobody below -2),
blocks count only behind those in front of them, and what a replica held is forgotten when it dies.

Source: xllm-service (c8033e0), cache-aware routing (CAR); that shares were meant is inferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.load import kv_usages, waiting_requests
from millrace.core.request import Request
from millrace.core.weighed import Explanation


@dataclass(frozen=True, slots=True)
class Policy:
    """`as_written` divides integers as the source does. Ties are drawn by request and `seed`."""

    as_written: bool = False
    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        costs = [-score for score in self.scores(request, able, fleet.now_s)]
        return Route(able[draw_least(costs, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what speaks for each replica."""
        able = fleet.able(request)
        scores = self.scores(request, able, fleet.now_s) if able else []
        by = "share that is cached, less memory and queue; the most wins"
        return explanation(by, able, [-score for score in scores], totals=scores, terms={})

    def scores(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
        """Return what speaks for each replica."""
        usages, waiting = kv_usages(replicas, now_s), waiting_requests(replicas, now_s)
        most = max(1, *waiting)
        queues: list[float] = [queue / most for queue in waiting]
        cached: list[float] = [0.0] * len(replicas)
        if whole_tokens := len(request.blocks) * request.block_tokens:
            cached = [r.prefix.matched_tokens(request) / whole_tokens for r in replicas]
        if self.as_written:
            cached, queues = [int(share) for share in cached], [int(share) for share in queues]
        return [share - usage - queue for share, usage, queue in zip(cached, usages, queues, strict=True)]
