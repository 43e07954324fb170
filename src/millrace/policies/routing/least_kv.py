"""Send the request to the replica with the least of its KV cache taken.

Taken is what the engine reported, or the prompts it is known to work on if they are more. Prompts that are
queued count too, unlike in the source, which sends everything between two reports to the same replica. Usage
that is unknown, or older than ten seconds, is taken to be as bad as the worst known. Of equals, the replica
with the fewest requests is chosen.

Source: AIBrix (e3e10f9) `least-kv-cache`, by its reports alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_least
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.load import kv_usages
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """Ties are drawn by request and `seed`."""

    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        usages = kv_usages(able, fleet.now_s)
        ranks = [(usage, r.waiting + r.running) for r, usage in zip(able, usages, strict=True)]
        return Route(able[draw_least(ranks, request.id, self.seed)].id)
