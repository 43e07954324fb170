"""Compute long prompts on replicas that do nothing else, and answer where the KV cache has the most room.

A prompt of which the answering replica lacks few tokens is computed there: handing its cache over would
take longer than it saves. One of which it lacks somewhat more is sent away only under pressure: if a step
that computes some of it would keep the running requests longer than their objective per output token. All
else goes to the prefill replica that is predicted to be done soonest: the prompt tokens queued before it and
its own that the prefix cache lacks, at the replica's prefill speed. Without prefill replicas, everybody
computes the prompts it answers.

Dynamo's conditional disaggregation (never up to 5,000 new tokens, always beyond 16,384) is
`disaggregated(pressed_from_tokens=5001, local_below_tokens=16385)`; what decides in between is inferred.

Source: DistServe (Zhong et al., OSDI 2024) and Splitwise (Patel et al., ISCA 2024), which joins the shortest
queue in tokens on both sides; uncached tokens decide as in llm-d's decider by prefix, whose sample says 16.
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
    """`local_below_tokens` is how many tokens a prompt must lack to be sent away in any case, and
    `pressed_from_tokens` how many if running requests would miss their objective: theirs, or `slo_tpot_s` for
    those without one. `assumed_tokens_per_s` is the prefill speed of replicas when none has a known one.
    """

    local_below_tokens: int = 256
    pressed_from_tokens: int = 16
    slo_tpot_s: float | None = None
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("local_below_tokens", "pressed_from_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.slo_tpot_s is not None and not 0 < self.slo_tpot_s < inf:
            raise ValueError(
                f"slo_tpot_s is {self.slo_tpot_s}; it must be positive, or None for no objective"
            )
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
        lacking = _lacking(request, answering)
        if lacking < self.local_below_tokens and not (
            lacking >= self.pressed_from_tokens and self._presses(lacking, answering, fleet, able)
        ):
            return Route(answering.id)
        return Route(answering.id, prefill_on=self._soonest(request, prefilling).id)

    def _presses(
        self, tokens: int, replica: ReplicaView, fleet: FleetView, able: Sequence[ReplicaView]
    ) -> bool:
        """Whether a step that computes so many tokens takes longer than somebody running there was promised.

        An unknown decode step is as long as the longest known one; if none is known, any objective is missed.
        """
        running = [f.request for f in fleet.flights.values() if f.started and f.replica == replica.id]
        promised = [objective for one in running if (objective := one.slo.tpot_s or self.slo_tpot_s)]
        if not promised:
            return False
        chunk = min(tokens, (replica.spec.limits or ENGINE_DEFAULTS).step_tokens)
        known = [step_s for one in able if (step_s := one.spec.decode_step_s)]
        step_s = replica.spec.decode_step_s or max(known, default=inf)
        return step_s + chunk / self._speed(replica, able) > min(promised)

    def _speed(self, replica: ReplicaView, replicas: Sequence[ReplicaView]) -> float:
        """Its prompt tokens a second; of unknown speed are those as slow as any."""
        speeds = [speed for one in replicas if (speed := one.spec.prefill_tokens_per_s)]
        return replica.spec.prefill_tokens_per_s or min(speeds, default=self.assumed_tokens_per_s)

    def _soonest(self, request: Request, replicas: Sequence[ReplicaView]) -> ReplicaView:
        """The one predicted to have computed the prompt first."""

        def seconds(replica: ReplicaView) -> float:
            work = replica.queued_tokens + max(1, _lacking(request, replica))
            return work / self._speed(replica, replicas)

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
