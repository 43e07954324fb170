"""Send the request to the replica predicted to answer its first token soonest.

The prediction is in seconds: prompt tokens queued before it and its own tokens the prefix cache lacks,
at the replica's prefill speed, plus a decode iteration for each step that running requests share.

Source: join the shortest queue, measured in work instead of requests; the prefix term as in llm-d and SGLang.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request

ENGINE_DEFAULTS = Limits()


@dataclass(frozen=True, slots=True)
class Policy:
    """`assumed_tokens_per_s` is the prefill speed of replicas when none of them has a known one."""

    assumed_tokens_per_s: float = 1000.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.assumed_tokens_per_s < inf:
            raise ValueError(f"assumed_tokens_per_s is {self.assumed_tokens_per_s}; it must be positive")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        slowest = self._slowest(able)
        predicted = [first_token_s(request, replica, slowest) for replica in able]
        best = min(predicted)
        tied = [r for r, seconds in zip(able, predicted, strict=True) if seconds == best]
        return Route(tied[0].id if len(tied) == 1 else self._drawn(request, tied).id)

    def _drawn(self, request: Request, tied: list[ReplicaView]) -> ReplicaView:
        """One of those with the fewest requests in flight."""
        fewest = min(r.in_flight for r in tied)
        idlest = [r for r in tied if r.in_flight == fewest]
        return idlest[draw_below(len(idlest), request.id, self.seed)]

    def _slowest(self, able: list[ReplicaView]) -> Speed:
        """A replica of unknown speed is taken to be as slow as the slowest known one."""
        prefills = [speed for r in able if (speed := r.spec.prefill_tokens_per_s)]
        steps = [step_s for r in able if (step_s := r.spec.decode_step_s)]
        return Speed(min(prefills, default=self.assumed_tokens_per_s), max(steps, default=0.0))


class Speed(NamedTuple):
    """What is assumed of a replica whose own speeds are unknown."""

    prefill_tokens_per_s: float
    decode_step_s: float


def first_token_s(request: Request, replica: ReplicaView, assumed: Speed) -> float:
    """Predict the seconds until this replica would emit the request's first token."""
    spec = replica.spec
    cached = replica.prefix.matched_tokens(request) if request.blocks else 0
    work = replica.queued_tokens + max(1, request.prompt_tokens - cached)
    seconds = work / (spec.prefill_tokens_per_s or assumed.prefill_tokens_per_s)
    if replica.running:
        steps = ceil(work / (spec.limits or ENGINE_DEFAULTS).step_tokens)
        seconds += steps * (spec.decode_step_s or assumed.decode_step_s)
    return seconds
