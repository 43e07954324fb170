"""Draw two ready replicas and take the one with fewer requests in flight.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Ray Serve's default;
SMG (1373e8d) `power_of_two`, which compares KV usage if both have reported it.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.core.draw import draw_below
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.load import kv_usage
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """The draw belongs to (request, seed): the same request draws the same two in both worlds.

    With `by_kv_usage` the one with less of its KV cache taken is chosen if that is known of both.
    """

    seed: int = 0
    by_kv_usage: bool = False

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if len(able) == 1:
            return Route(able[0].id)
        first = draw_below(len(able), request.id, self.seed, "first")
        second = draw_below(len(able) - 1, request.id, self.seed, "second")
        one, other = able[first], able[second + (second >= first)]  # any but the first
        return Route((one if self._is_less(one, other, fleet.now_s) else other).id)

    def _is_less(self, one: ReplicaView, other: ReplicaView, now_s: float) -> bool:
        """Whether the first carries no more than the second; what is known of one only compares nothing."""
        if self.by_kv_usage:
            usage, than = kv_usage(one, now_s), kv_usage(other, now_s)
            if usage is not None and than is not None:
                return usage <= than
        return one.in_flight <= other.in_flight
