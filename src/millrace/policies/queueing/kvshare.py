"""First those of whose prompt the most is cached, but nobody waits for ever.

The hit rate of a request is the largest share of its prompt that a ready replica is believed to hold. It is
computed from what is known now, so a request moves up as soon as the prefix that it shares has been computed
for another one. Whoever has waited for `patience_s` is in front of all who have not, first come first; the
bound is this project's, since the abstract names none. Of equal rates, the first to come goes first.

Only what is held at the gateway is ordered: with `max_waiting` in the control settings that is all but the
few requests at the head of each engine's own queue, without it next to nothing.

Source: the cache-aware scheduler of KVShare (arXiv:2503.16525); caches are shared by prefix only here, not by
likeness.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from millrace.core.fleet import FleetView
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """`patience_s` is how long a request may be overtaken."""

    patience_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.patience_s < inf:
            raise ValueError(f"patience_s is {self.patience_s}; it must be a number of seconds from 0")

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        waiting = list(held)
        if len(waiting) < 2:
            return waiting
        # Sorting is stable, so equals stay in the order of arrival.
        return sorted(waiting, key=lambda one: -inf if self._is_due(one, fleet) else -_hit_rate(one, fleet))

    def _is_due(self, request: Request, fleet: FleetView) -> bool:
        waited_s = fleet.waited_s(request)
        return waited_s is not None and waited_s >= self.patience_s


def _hit_rate(request: Request, fleet: FleetView) -> float:
    if not request.blocks:
        return 0.0
    able = fleet.ready_for(request.model)
    return max((one.prefix.matched_tokens(request) for one in able), default=0) / request.prompt_tokens
