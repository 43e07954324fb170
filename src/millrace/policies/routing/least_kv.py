"""Send the request to the replica with the least of its KV cache taken.

Taken is what the engine reported, or the prompts it is known to work on if they are more. Prompts that are
queued count too, unlike in the source, which sends everything between two reports to the same replica. Usage
that is unknown, or older than ten seconds, is taken to be as bad as the worst known. Of equals, the replica
with the fewest requests is chosen.

Source: AIBrix (e3e10f9) `least-kv-cache`, by its reports alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.load import kv_usages
from millrace.core.request import Request
from millrace.core.weighed import Explanation


@dataclass(frozen=True, slots=True)
class Policy:
    """Ties are drawn by request and `seed`."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        return Route(able[draw_least(_ranks(able, fleet.now_s), request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell how full each replica's KV cache is."""
        able = fleet.able(request)
        ranks = _ranks(able, fleet.now_s) if able else []
        terms = {"requests": [requests for _, requests in ranks]}
        shares = [share for share, _ in ranks]
        return explanation("share of the KV cache, the least wins", able, ranks, totals=shares, terms=terms)


def _ranks(replicas: Sequence[ReplicaView], now_s: float) -> list[tuple[float, int]]:
    usages = kv_usages(replicas, now_s)
    return [(usage, r.waiting + r.running) for r, usage in zip(replicas, usages, strict=True)]
