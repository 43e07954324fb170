"""Send requests that begin alike to the same replica, unless it carries more than its share.

Replicas are ranked by rendezvous hashing of the prompt's leading tokens; the first one whose load stays
within `load_factor` times the mean takes the request. Needs no memory of what was sent, so any number
of gateways agree, and a replica that leaves or joins moves only its own share of prefixes.

Source: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates", 1998 (rendezvous);
V. Mirrokni, M. Thorup and M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from operator import attrgetter

from millrace.core.draw import draw_each
from millrace.core.fleet import Decision, FleetView, Hold, Route
from millrace.core.request import Request

_id = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Policy:
    """`key_tokens` leading tokens decide where a prompt lives; shorter prompts use the blocks they have."""

    key_tokens: int = 128
    load_factor: float = 1.25
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.load_factor < inf:
            raise ValueError(f"load_factor is {self.load_factor}; below 1 no replica could take its share")
        if self.key_tokens < 1:
            raise ValueError(f"key_tokens is {self.key_tokens}; at least 1 token must name a prefix")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        loads = [r.waiting + r.running for r in able]
        share = ceil(self.load_factor * (1 + sum(loads)) / len(able))
        order = ranked(self.key(request), tuple(map(_id, able)), self.seed)
        return Route(next(able[place].id for place in order if loads[place] < share))

    def key(self, request: Request) -> int | str:
        """Return what names the prompt's beginning: a chained block hash, or else the request itself."""
        if not request.blocks:
            return request.id
        nth = min(ceil(self.key_tokens / request.block_tokens), len(request.blocks))
        return request.blocks[nth - 1]


@lru_cache(maxsize=256)
def ranked(key: int | str, names: tuple[str, ...], seed: int) -> list[int]:
    """Return the places of the names, those that draw high numbers first.

    It is remembered of the latest keys, as many prompts that come together begin alike.
    """
    draws = draw_each(key, names, seed)
    return sorted(range(len(names)), key=draws.__getitem__, reverse=True)
