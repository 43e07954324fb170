"""Round robin: everybody gets the same number of requests, in turn."""

from __future__ import annotations

from collections import Counter

from millrace.core.fleet import FleetView, Hold, Route
from millrace.policies.routing.round_robin import Policy
from millrace.testing import fakes


def _turn(routed: int, *names: str) -> str:
    decision = Policy().route(fakes.request(), _fleet(routed, *names))
    assert isinstance(decision, Route)
    return decision.replica


def _fleet(routed: int, *names: str) -> FleetView:
    return fakes.fleet(*(fakes.replica(name, waiting=len(name)) for name in names), routed=routed)


def test_replicas_take_turns_in_the_order_of_their_names() -> None:
    assert [_turn(n, "b", "a", "c") for n in range(5)] == ["a", "b", "c", "a", "b"]


def test_everybody_gets_the_same_number_of_requests() -> None:
    assert set(Counter(_turn(n, "a", "bb", "ccc", "dddd") for n in range(100)).values()) == {25}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")
