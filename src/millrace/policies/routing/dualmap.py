"""Send requests that begin alike to one of their two homes: where the cache is, unless that is too late.

Two independent hashes of the prompt's beginning find the homes (see `millrace.core.homes`). The home whose
cache holds more of the prompt takes it as long as the first token is predicted within the objective; else,
and if the caches hold as much, the home where it is predicted sooner. The prediction is the time for all
queued prompts and for what the cache lacks of this one, at the replica's own speeds.

The paper's code takes pending prompt tokens for the load; here it is the predicted time, the same but for
replicas that differ, and prompts so long that attention counts. Its scaling by a second pair of rings needs
no counterpart: a replica that is not able is passed over, which moves its share of keys only.

Source: DualMap (arXiv 2602.06502), from its abstract and published notes; sizes of window and key as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.homes import Homes
from millrace.core.request import Request
from millrace.core.waits import Waits


@dataclass(slots=True)
class Policy:
    """`slo_ttft_s` is the objective of requests that have none. Keys have at least `key_blocks` blocks of
    `block_tokens` tokens; the last `window` requests tell what is hot. `assumed_tokens_per_s` is the prefill
    speed of replicas when none of them has a known one.
    """

    slo_ttft_s: float = 5.0
    key_blocks: int = 2
    block_tokens: int = 512
    window: int = 512
    virtual_nodes: int = 150
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0
    _homes: Homes = field(init=False, repr=False, compare=False)
    _waits: Waits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.slo_ttft_s > 0:
            raise ValueError(f"slo_ttft_s is {self.slo_ttft_s}; it must be positive")
        self._waits = Waits(self.assumed_tokens_per_s)
        self._homes = Homes(
            key_blocks=self.key_blocks,
            block_tokens=self.block_tokens,
            window=self.window,
            virtual_nodes=self.virtual_nodes,
            seed=self.seed,
        )

    def note(self, fact: Event | Sent) -> None:
        """Learn what is hot, and who waits where."""
        self._homes.note(fact)
        self._waits.note(fact)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = {replica.id: replica for replica in fleet.able(request)}
        if not able:
            return Hold("no ready replica")
        homes = self._homes.pair(request, tuple(replica.id for replica in fleet.replicas), able)
        if len(homes) == 1:
            return Route(homes[0].id)
        return Route(self._better(request, homes, fleet).id)

    def _better(self, request: Request, homes: tuple[ReplicaView, ...], fleet: FleetView) -> ReplicaView:
        seconds = self._waits.first_token_s(request, homes, fleet)
        if request.blocks:
            first, second = (home.prefix.matched_tokens(request) for home in homes)
            fuller = int(second > first)
            if first != second and seconds[fuller] <= (request.slo.ttft_s or self.slo_ttft_s):
                return homes[fuller]
        return homes[draw_least(seconds, request.id, self.seed)]
