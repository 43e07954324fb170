"""Compute long prompts on replicas that do nothing else, and answer where the KV cache has the most room.

A prompt of which the answering replica lacks few tokens is computed there: handing its cache over would
take longer than it saves, and so few tokens hardly hold up the others. All else goes to the prefill replica
that is predicted to be done soonest: the prompt tokens queued before it and its own that the prefix cache
lacks, at the replica's prefill speed. Without prefill replicas, everybody computes the prompts it answers.

Source: DistServe (Zhong et al., OSDI 2024) and Splitwise (Patel et al., ISCA 2024), which joins the shortest
queue in tokens on both sides; the threshold is that of llm-d's profile handler for prefill and decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request

ENGINE_DEFAULTS = Limits()


@dataclass(frozen=True, slots=True)
class Policy:
    """`local_below_tokens` is how many tokens a prompt must lack to be sent away; `assumed_tokens_per_s` is
    the prefill speed of replicas when none of them has a known one.
    """

    local_below_tokens: int = 256
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.local_below_tokens < 0:
            raise ValueError(f"local_below_tokens is {self.local_below_tokens}; it must not be negative")
        if not 0 < self.assumed_tokens_per_s < inf:
            raise ValueError(f"assumed_tokens_per_s is {self.assumed_tokens_per_s}; it must be positive")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        prefilling = fleet.prefilling(request)
        if not prefilling:
            return Route(self._soonest(request, able).id)
        answering = self._least(request, able, _fullness)
        if _lacking(request, answering) < self.local_below_tokens:
            return Route(answering.id)
        return Route(answering.id, prefill_on=self._soonest(request, prefilling).id)

    def _soonest(self, request: Request, replicas: Sequence[ReplicaView]) -> ReplicaView:
        """The one predicted to have computed the prompt first; of unknown speed are those as slow as any."""
        speeds = [speed for r in replicas if (speed := r.spec.prefill_tokens_per_s)]
        slowest = min(speeds, default=self.assumed_tokens_per_s)

        def seconds(replica: ReplicaView) -> float:
            work = replica.queued_tokens + max(1, _lacking(request, replica))
            return work / (replica.spec.prefill_tokens_per_s or slowest)

        return self._least(request, replicas, seconds)

    def _least(
        self, request: Request, replicas: Sequence[ReplicaView], of: Callable[[ReplicaView], float]
    ) -> ReplicaView:
        """The one with the least of it; of equals, one with the fewest requests, drawn by request."""
        ranked = [(of(replica), replica.in_flight) for replica in replicas]
        least = min(ranked)
        tied = [replica for replica, rank in zip(replicas, ranked, strict=True) if rank == least]
        return tied[draw_below(len(tied), request.id, self.seed)]


def _fullness(replica: ReplicaView) -> float:
    """The share of the KV cache that prompts take, those to come included."""
    limits = replica.spec.limits or ENGINE_DEFAULTS
    taken = replica.context_tokens + replica.coming_tokens + replica.queued_tokens
    return taken / (limits.kv_blocks * limits.block_tokens)


def _lacking(request: Request, replica: ReplicaView) -> int:
    """Prompt tokens that the replica's prefix cache is not believed to hold."""
    return request.prompt_tokens - (replica.prefix.matched_tokens(request) if request.blocks else 0)
