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

from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.explanation import explanation
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.homes import Homes
from millrace.core.request import Request
from millrace.core.waits import Waits
from millrace.core.weighed import Explanation


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
        homes = self._pair(request, fleet)
        if not homes:
            return Hold("no ready replica")
        if len(homes) == 1:
            return Route(homes[0].id)
        seconds = self._waits.first_token_s(request, homes, fleet)
        fuller = self._fuller(request, homes, seconds)
        if fuller is not None:
            return Route(homes[fuller].id)
        return Route(homes[draw_least(seconds, request.id, self.seed)].id)

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what is predicted of the request's homes, and which of them its cache decides for."""
        homes = self._pair(request, fleet)
        seconds = self._waits.first_token_s(request, homes, fleet) if homes else []
        fuller = self._fuller(request, homes, seconds) if len(homes) == 2 else None
        return explanation(
            "seconds to a first token, the least wins"
            if fuller is None
            else "tokens cached, the most win as long as the first token is in time",
            homes,
            [(place != fuller, seconds[place]) for place in range(len(homes))],
            totals=seconds,
            terms={"cached_tokens": [home.prefix.matched_tokens(request) for home in homes]},
            ttft_s=seconds,
        )

    def _pair(self, request: Request, fleet: FleetView) -> tuple[ReplicaView, ...]:
        """Return the request's homes: two, one if no other is able, or none."""
        able = {replica.id: replica for replica in fleet.able(request)}
        if not able:
            return ()
        return self._homes.pair(request, tuple(replica.id for replica in fleet.replicas), able)

    def _fuller(
        self, request: Request, homes: tuple[ReplicaView, ...], seconds: Sequence[float]
    ) -> int | None:
        """Return the place of the home whose cache holds more of the prompt, if it is in time."""
        if not request.blocks:
            return None
        first, second = (home.prefix.matched_tokens(request) for home in homes)
        fuller = int(second > first)
        in_time = first != second and seconds[fuller] <= (request.slo.ttft_s or self.slo_ttft_s)
        return fuller if in_time else None
