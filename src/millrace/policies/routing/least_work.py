"""Send the request to the replica predicted to answer its first token soonest.

The prediction is in seconds: prompt tokens queued before it and its own tokens the prefix cache lacks,
at the replica's prefill speed, plus a decode iteration for each step that running requests share, plus the
loading of an adapter that it lacks.

Source: join the shortest queue, measured in work instead of requests; the prefix term as in llm-d and SGLang.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits, ReplicaSpec
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
        _, best = soonest(request, able, self.assumed_tokens_per_s)
        chosen = best[0] if len(best) == 1 else best[draw_below(len(best), request.id, self.seed)]
        return Route(chosen.id)


def soonest(
    request: Request, replicas: Iterable[ReplicaView], assumed_tokens_per_s: float
) -> tuple[float, list[ReplicaView]]:
    """Predict the seconds until the first token could come, and name the replicas it could come from.

    Of those that are equally fast, only the ones with the fewest requests in flight. A replica of unknown
    speed is taken to be as slow as the slowest known one; if none is known, `assumed_tokens_per_s` holds
    and decoding takes no time. One pass in one function, since this is asked for every request.
    """
    fewest, soonest_s, adapter = 0, inf, request.adapter
    spec: ReplicaSpec | None = None
    speed, step_s, load_s, chunk_tokens = 1.0, 0.0, 0.0, 1
    best: list[ReplicaView] = []
    prompt_tokens, has_blocks = request.prompt_tokens, bool(request.blocks)
    for replica in replicas:
        cached = replica.prefix.matched_tokens(request) if has_blocks else 0
        work = replica.queued_tokens + (prompt_tokens - cached or 1)
        if replica.spec is not spec:  # most fleets have few kinds of replicas
            spec = replica.spec
            speed, step_s = spec.prefill_tokens_per_s or 0.0, spec.decode_step_s or 0.0
            chunk_tokens, load_s = (spec.limits or ENGINE_DEFAULTS).step_tokens, spec.adapter_load_s or 0.0
            if not speed or not step_s:
                slowest = _slowest(replicas, assumed_tokens_per_s)
                speed, step_s = speed or slowest[0], step_s or slowest[1]
        seconds = work / speed
        if seconds > soonest_s:
            continue  # whatever comes on top
        if replica.running:
            seconds += -(-work // chunk_tokens) * step_s  # rounded up
        if adapter is not None and adapter not in replica.adapters:
            seconds += load_s
        if seconds > soonest_s:
            continue
        in_flight = replica.waiting + replica.running
        if seconds < soonest_s or in_flight < fewest:
            soonest_s, fewest, best = seconds, in_flight, [replica]
        elif in_flight == fewest:
            best.append(replica)
    return soonest_s, best


def _slowest(replicas: Iterable[ReplicaView], assumed_tokens_per_s: float) -> tuple[float, float]:
    """Return the lowest known prefill speed and the longest known decode step."""
    prefills = [speed for r in replicas if (speed := r.spec.prefill_tokens_per_s)]
    steps = [step_s for r in replicas if (step_s := r.spec.decode_step_s)]
    return min(prefills, default=assumed_tokens_per_s), max(steps, default=0.0)
