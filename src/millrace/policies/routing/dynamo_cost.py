"""Send the request where it costs the fewest KV blocks: those to compute for it, and those in its way.

cost = prefill_scale * max(0, blocks queued and its own - credit for cached ones) + blocks in use
+ request_weight * requests in flight. A block on the device counts for `overlap_credit` of one to compute,
one behind those in host memory for `host_credit`, and one behind these on disk for `disk_credit`, as far as
engines tell of them. The device's credit shrinks with `credit_decay`, by the prefill that a replica has
queued beyond the least of any, in prompts like this one. Everything is counted by what was sent, as in the
source. At temperature 0 the least cost wins; above, a softmax of minus the cost, scaled to its range, is
drawn from. Unlike the source, draws belong to the request: identical replicas share the work, and a log
replays. What replicas share is not known, so it has no credit.

Source: NVIDIA Dynamo KV router (07a6c9c) and its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, inf

from millrace.core.draw import draw, draw_least
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request
from millrace.core.weighed import Explanation

ENGINE_DEFAULTS = Limits()
NUMBERS = (
    "overlap_credit",
    "host_credit",
    "disk_credit",
    "credit_decay",
    "prefill_scale",
    "request_weight",
    "temperature",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """`overlap_credit` is what a cached block counts of one that is not, `host_credit` and `disk_credit` what
    one does that has to be loaded.

    With a `queue_threshold`, requests are held while every replica has more prompt tokens queued than so many
    times what fits into one of its steps. The source's is 16; here it is None, off, so that nothing waits
    which could be sent.
    """

    overlap_credit: float = 1.0
    credit_decay: float = 0.0
    prefill_scale: float = 1.0
    request_weight: float = 0.0
    temperature: float = 0.0
    queue_threshold: float | None = None
    host_credit: float = 0.75
    disk_credit: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        for name in NUMBERS:
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0")
        if self.queue_threshold is not None and not 0 < self.queue_threshold < inf:
            raise ValueError(
                f"queue_threshold is {self.queue_threshold}; it must be positive, or None for off"
            )

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if self.queue_threshold is not None and all(_queued_steps(r) > self.queue_threshold for r in able):
            return Hold("every replica has its fill of prompts queued")
        costs = self.costs(request, able)
        if self.temperature:
            return Route(able[self._sampled(costs, request)].id)
        return Route(able[draw_least(costs, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what the request costs on each replica, in blocks."""
        able = fleet.able(request)
        costs = self.costs(request, able) if able else []
        used = [(r.context_tokens + r.queued_tokens + r.coming_tokens) / request.block_tokens for r in able]
        requests = [self.request_weight * r.in_flight for r in able]
        prefill = [cost - blocks - weight for cost, blocks, weight in zip(costs, used, requests, strict=True)]
        return explanation(
            "blocks, the fewest win" if not self.temperature else "blocks, the fewer the likelier",
            able,
            costs,
            totals=costs,
            terms={"prefill": prefill, "in_use": used, "requests": requests},
        )

    def costs(self, request: Request, replicas: Sequence[ReplicaView]) -> list[float]:
        """Return what the request costs on each replica, in blocks."""
        size, prompt, tells_apart = request.block_tokens, request.prompt_tokens, bool(request.blocks)
        least = min(r.queued_tokens for r in replicas)
        # Backlog in prompts like this one: whole blocks are rounded up, as the request takes them.
        decay = self.credit_decay / (-(-prompt // size) * size or size)
        costs = []
        for replica in replicas:
            queued = replica.queued_tokens
            lacking: float = queued + prompt
            if tells_apart:
                device, host, disk = replica.prefix.matched_by_medium(request)
                credit = self.overlap_credit * device / (1 + decay * (queued - least))
                lacking = max(0.0, lacking - credit - self.host_credit * host - self.disk_credit * disk)
            used = replica.context_tokens + queued + replica.coming_tokens
            in_flight = replica.waiting + replica.running
            costs.append((self.prefill_scale * lacking + used) / size + self.request_weight * in_flight)
        return costs

    def _sampled(self, costs: Sequence[float], request: Request) -> int:
        """Draw a place, likelier where the cost is lower."""
        least, most = min(costs), max(costs)
        scale = -1 / ((most - least) * self.temperature) if most > least else 0.0
        bounds = list(accumulate(exp((cost - least) * scale) for cost in costs))
        drawn = draw(request.id, self.seed) / 2**64 * bounds[-1]
        return next(place for place, bound in enumerate(bounds) if drawn < bound or bound == bounds[-1])


def _queued_steps(replica: ReplicaView) -> float:
    return replica.queued_tokens / (replica.spec.limits or ENGINE_DEFAULTS).step_tokens
