"""Send the request to who holds most of its prompt and is not much busier than the others.

While the busiest replica has over `imbalance_requests` more than the least busy one, only the least busy ones
are considered. Of those that hold some of the prompt, in the order of how many percent, and then of how busy
they are, the first one serves that has no more than the mean number of requests and `deviation_factor`
standard deviations; if there is none, the least busy replica.

The deviation is that of a sample, and nobody can be further than (n - 1) / sqrt(n) of it above the mean: the
guard never binds for two replicas, nor for up to five if the factor is 2. The README says 16 requests and a
factor of 2, the code 8 and 1. Its table loses the first block of the prompt used longest ago first, and with
it all that follow; here the last ones go first. Blocks are those of the request, not of 128 characters.

Source: AIBrix (e3e10f9, v0.7.0) `prefix-cache`; later versions compare the busiest with the mean as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt

from millrace.core.draw import draw_below
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.prefix_tree import PrefixTree
from millrace.core.request import Request
from millrace.core.sent_prompts import SentPrompts, learn


@dataclass(slots=True)
class Policy:
    """The table has at most `max_blocks`, forgets what was not used for `ttl_s`, and takes `budget_bytes`."""

    imbalance_requests: int = 8
    deviation_factor: float = 1.0
    max_blocks: int = 200_000
    ttl_s: float = 1200.0
    budget_bytes: int = 64 << 20
    seed: int = 0
    _tree: PrefixTree = field(init=False, repr=False, compare=False)
    _sent: SentPrompts = field(init=False, repr=False, compare=False, default_factory=SentPrompts)

    def __post_init__(self) -> None:
        if not 0 <= self.deviation_factor < inf:
            raise ValueError(f"deviation_factor is {self.deviation_factor}; it must be a number from 0")
        self._tree = PrefixTree(self.budget_bytes, most_blocks=self.max_blocks)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        running = {replica.id: replica.waiting + replica.running for replica in able}
        least = min(running.values())
        idlest = [name for name, count in running.items() if count == least]
        imbalanced = max(running.values()) - least > self.imbalance_requests
        among = self._matching(request, running, idlest if imbalanced else running) or idlest
        return Route(among[draw_below(len(among), request.id, self.seed)])

    def note(self, fact: Event | Sent) -> None:
        """Learn what was sent where, and who lost what it held; forget what was not used for too long."""
        learn(self._tree, self._sent.news(fact))
        self._tree.expire(fact.now_s - self.ttl_s)

    def _matching(self, request: Request, running: dict[str, int], among: Iterable[str]) -> list[str]:
        """The least busy of those that hold most and are not too busy; nobody if there is none."""
        levels = self._tree.match(request.blocks)
        if not levels:
            return []
        size, allowed = len(request.blocks), frozenset(among)
        limit = busiest_allowed(list(running.values()), self.deviation_factor)
        by_percent = {100 * blocks // size: holders for blocks, holders in reversed(levels)}
        for holders in by_percent.values():
            found = [name for name in holders if name in allowed]
            if found and (least := min([running[name] for name in found])) <= limit:
                return sorted(name for name in found if running[name] == least)
        return []


def busiest_allowed(running: Sequence[int], deviation_factor: float) -> float:
    """Return how many requests a replica may have: so many deviations, of the sample, above the mean."""
    count, total = len(running), sum(running)
    if count == 1:
        return float(total)
    squares = sum(number * number for number in running)
    variance = max(0.0, (squares - total * total / count) / (count - 1))
    return total / count + deviation_factor * sqrt(variance)
