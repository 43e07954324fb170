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
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.core.weighed import Explanation

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

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell the seconds of which the prediction is made; equally fast ones differ by their requests."""
        able = fleet.able(request)
        foreseen = [terms_s(request, replica, able, self.assumed_tokens_per_s) for replica in able]
        seconds = [prompts_s + steps_s + loading_s for prompts_s, steps_s, loading_s in foreseen]
        names = ("prompts_s", "shared_steps_s", "adapter_s")
        return explanation(
            "seconds to a first token, the least wins",
            able,
            list(zip(seconds, [r.in_flight for r in able], strict=True)),
            totals=seconds,
            terms=dict(zip(names, zip(*foreseen, strict=True), strict=False)),
            ttft_s=seconds,
        )


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
    seconds, speed, step_s, chunk_tokens, queued_tokens, idle = 0.0, 1.0, 0.0, 1, 0, True
    best: list[ReplicaView] = []
    prompt_tokens, has_blocks = request.prompt_tokens, bool(request.blocks)
    tells_apart = has_blocks or adapter is not None
    for replica in replicas:
        kind, waiting_tokens, is_idle = replica.spec, replica.queued_tokens, not replica.running
        # Many replicas are in the state of the one before them: then so is the prediction.
        if tells_apart or waiting_tokens != queued_tokens or is_idle is not idle or kind is not spec:
            queued_tokens, idle = waiting_tokens, is_idle
            if kind is not spec:
                spec, chunk_tokens = kind, (kind.limits or ENGINE_DEFAULTS).step_tokens
                speed, step_s = kind.prefill_tokens_per_s or 0.0, kind.decode_step_s or 0.0
                if not speed or not step_s:
                    slowest = _slowest(replicas, assumed_tokens_per_s)
                    speed, step_s = speed or slowest[0], step_s or slowest[1]
            cached = replica.prefix.matched_tokens(request) if has_blocks else 0
            work = queued_tokens + (prompt_tokens - cached or 1)
            seconds = work / speed
            if not idle:
                seconds += -(-work // chunk_tokens) * step_s  # rounded up
            if adapter is not None and adapter not in replica.adapters:
                seconds += kind.adapter_load_s or 0.0
        if seconds > soonest_s:
            continue
        in_flight = replica.waiting + replica.running
        if seconds < soonest_s or in_flight < fewest:
            soonest_s, fewest, best = seconds, in_flight, [replica]
        elif in_flight == fewest:
            best.append(replica)
    return soonest_s, best


def terms_s(
    request: Request, replica: ReplicaView, replicas: Iterable[ReplicaView], assumed_tokens_per_s: float
) -> tuple[float, float, float]:
    """Return the seconds for prompts, for steps that running requests share, and for loading an adapter.

    Their sum is what `soonest` compares, to the last bit.
    """
    spec, slowest = replica.spec, _slowest(replicas, assumed_tokens_per_s)
    work = replica.queued_tokens + (request.prompt_tokens - replica.prefix.matched_tokens(request) or 1)
    steps = -(-work // (spec.limits or ENGINE_DEFAULTS).step_tokens) if replica.running else 0
    loads = request.adapter is not None and request.adapter not in replica.adapters
    return (
        work / (spec.prefill_tokens_per_s or slowest[0]),
        steps * (spec.decode_step_s or slowest[1]),
        (spec.adapter_load_s or 0.0) if loads else 0.0,
    )


def _slowest(replicas: Iterable[ReplicaView], assumed_tokens_per_s: float) -> tuple[float, float]:
    """Return the lowest known prefill speed and the longest known decode step."""
    prefills = [speed for r in replicas if (speed := r.spec.prefill_tokens_per_s)]
    steps = [step_s for r in replicas if (step_s := r.spec.decode_step_s)]
    return min(prefills, default=assumed_tokens_per_s), max(steps, default=0.0)
