"""Send the request to the replica predicted to answer its first token soonest.

The prediction is in seconds: prompt tokens queued before it and its own tokens the prefix cache lacks,
at the replica's prefill speed, plus a decode iteration for each step that running requests share.

Source: join the shortest queue, measured in work instead of requests; the prefix term as in llm-d and SGLang.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from millrace.core.draw import draw
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request

ENGINE_DEFAULTS = Limits()


@dataclass(frozen=True, slots=True)
class Policy:
    """`assumed_tokens_per_s` is the prefill speed of replicas when none of them has a known one."""

    assumed_tokens_per_s: float = 1000.0
    seed: int = 0

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        slowest = self._slowest(able)
        predicted = [first_token_s(request, replica, slowest) for replica in able]
        best = min(predicted)
        tied = [r for r, seconds in zip(able, predicted, strict=True) if seconds == best]
        if len(tied) > 1:
            tied.sort(key=lambda r: (r.in_flight, draw(request.id, r.id, self.seed)))
        return Route(tied[0].id)

    def _slowest(self, able: list[ReplicaView]) -> float:
        """A replica of unknown speed is taken to be as slow as the slowest known one."""
        known = [r.spec.prefill_tokens_per_s for r in able if r.spec.prefill_tokens_per_s]
        return min(known, default=self.assumed_tokens_per_s)


def first_token_s(request: Request, replica: ReplicaView, assumed_tokens_per_s: float) -> float:
    """Predict the seconds until this replica would emit the request's first token."""
    missing = max(1, request.prompt_tokens - replica.prefix.matched_tokens(request))
    work = replica.queued_tokens + missing
    seconds = work / (replica.spec.prefill_tokens_per_s or assumed_tokens_per_s)
    if replica.running and replica.spec.decode_step_s:
        limits = replica.spec.limits or ENGINE_DEFAULTS
        seconds += ceil(work / limits.step_tokens) * replica.spec.decode_step_s
    return seconds
