"""Send the request to the freest replica: the one whose memory lasts longest at the pace it is filled.

freeness = (memory - virtual usage) / requests in the batch, in tokens: the iterations until memory is full.
Virtual usage is what is in memory, the prompt at the head of the queue (those behind it count nothing), and
room kept beside requests of high priority: each takes its share of `headroom_tokens`, so together they take
it once. A draining replica has a fake request of infinite usage, which is to say that it gets nothing.

Between two first tokens all requests of a burst may go to one replica, since a queue of one looks like a
queue of many; the paper relies on migration to even that out. With `whole_queue` all of the queue counts as
usage and as batch, as in the code published with it (where `defrag` off does so), which has no headroom.

Source: Llumnix (Sun et al., OSDI 2024), Algorithm 1; Llumnix v0 (24220fb). The headroom's size is not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.freeness import Freeness
from millrace.core.request import Request
from millrace.core.weighed import Explanation


@dataclass(slots=True)
class Policy:
    """`headroom_tokens` is the room kept free for running requests of a priority above 0."""

    headroom_tokens: int = 4096
    whole_queue: bool = False
    seed: int = 0
    _freeness: Freeness = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._freeness = Freeness(headroom_tokens=self.headroom_tokens, whole_queue=self.whole_queue)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        costs = [-free for free in self.freeness(able, fleet.now_s)]
        return Route(able[draw_least(costs, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell how long the memory of each replica lasts."""
        able = fleet.able(request)
        free = self.freeness(able, fleet.now_s) if able else []
        by = "iterations until memory is full, the most win"
        return explanation(by, able, [-one for one in free], totals=free, terms={})

    def freeness(self, replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
        """Return how many iterations the memory of each replica lasts."""
        return self._freeness.of(replicas, now_s)

    def note(self, fact: Event | Sent) -> None:
        """Learn who waits where, and who of high priority runs."""
        self._freeness.note(fact)
