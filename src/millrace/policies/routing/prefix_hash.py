"""Send requests that begin alike to the same place on a ring, unless whoever is there carries too much.

The hash of a prompt's first tokens finds the next replica clockwise. If it has more requests in flight than
`load_factor` times the mean (with the one at hand), the least loaded replica takes the request instead.
A prompt too short to share anything goes there as well, where the source finds nobody for one without
tokens. The fallback of the source to the loaded replica never happens: somebody is always below the mean.

Source: SMG (3adfd7d) `prefix_hash`, consistent hashing with bounded loads (Mirrokni et al., 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from millrace.core.draw import draw_least
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request
from millrace.core.ring import ring_of


@dataclass(frozen=True, slots=True)
class Policy:
    """`prefix_tokens` leading tokens decide where a prompt lives; each replica has `virtual_nodes` places."""

    prefix_tokens: int = 256
    load_factor: float = 1.25
    virtual_nodes: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prefix_tokens < 1:
            raise ValueError(f"prefix_tokens is {self.prefix_tokens}; at least 1 token must name a prefix")
        if not 1 <= self.load_factor < inf:
            raise ValueError(f"load_factor is {self.load_factor}; below 1 no replica could take its share")
        if self.virtual_nodes < 1:
            raise ValueError(f"virtual_nodes is {self.virtual_nodes}; each replica needs a place on the ring")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        in_flight = [r.waiting + r.running for r in able]
        if request.blocks:
            # Those to avoid keep their places: another ring would cost more than the walk past them.
            ring = ring_of(
                tuple([r.id for r in fleet.ready_for(request.model)]), self.virtual_nodes, self.seed
            )
            loads = {r.id: load for r, load in zip(able, in_flight, strict=True)}
            home = next(name for name in ring.walk(self.key(request)) if name in loads)
            if loads[home] * len(able) <= self.load_factor * (sum(in_flight) + 1):
                return Route(home)
        return Route(able[draw_least(in_flight, request.id, self.seed)].id)

    def key(self, request: Request) -> int:
        """Return what names the prompt's beginning: the chained hash of its last block of these tokens."""
        nth = min(ceil(self.prefix_tokens / request.block_tokens), len(request.blocks))
        return request.blocks[nth - 1]
